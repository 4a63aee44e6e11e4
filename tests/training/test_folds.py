"""Folds, fit rows and weights: τ, purge and embargo at their limits, thinning, average uniqueness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.datasets.splits import earliest_input, label_length, purge, select_labelled_before
from volspike.errors import NotEnoughData
from volspike.features import Every
from volspike.training.folds import FitRows, Fold, FoldSet, average_uniqueness, build_folds
from volspike.training.request import TrainingRequest


def test_the_last_tick_of_each_second_and_product_is_kept(market: Dataset) -> None:
    """The last tick of each second is kept, for each product separately."""
    seconds = [0, 0, 0, 1, 1, 3]
    ticks = replace(
        market,
        facts=msgspec.structs.replace(market.facts, every=Every.TICK),
        time=np.array(seconds, np.int64) * 1_000_000_000 + np.arange(6),
        product=np.array([0, 1, 0, 0, 0, 1], np.int32),
    )
    assert FitRows.select(ticks, np.arange(6)).rows.tolist() == [1, 2, 4, 5]
    assert FitRows.select(ticks, np.array([0, 3, 5])).rows.tolist() == [0, 3, 5]


def test_too_many_seconds_are_thinned_evenly(market: Dataset) -> None:
    """Every k-th second is kept over the full range, and weights have mean 1."""
    fit_rows = FitRows.select(market, np.arange(9000), most=3100)
    assert set(np.diff(fit_rows.rows).tolist()) == {3}
    assert len(fit_rows.rows) == 3000
    assert abs(fit_rows.weight.mean() - 1.0) < 1e-12


def test_only_the_columns_and_rows_requested_are_copied(market: Dataset) -> None:
    """Values are in the order of rows and names."""
    names = ("spread_mean_60s", "log_return_30s")
    rows = np.array([5, 3])
    assert np.array_equal(market.inputs(names, market.tau, rows), market.columns(names)[rows])


def plain(second: list[int], product: list[int], horizon: int) -> NDArray[np.float64]:
    """The definition, computed label by label and second by second."""
    uniqueness = []
    for s, p in zip(second, product, strict=True):
        terms = []
        for t in range(s + 1, s + horizon + 1):
            alive = sum(
                1 for other, of in zip(second, product, strict=True) if of == p and other + 1 <= t <= other + horizon
            )
            terms.append(1 / alive)
        uniqueness.append(sum(terms) / horizon)
    told: NDArray[np.float64] = np.array(uniqueness) / np.mean(uniqueness)
    return told


@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 2)), min_size=1, max_size=40),
    st.integers(1, 20),
)
def test_uniqueness_is_that_of_the_definition(rows: list[tuple[int, int]], horizon: int) -> None:
    """For any rows, seconds and products the weight is the mean of 1 / concurrency over the label."""
    rows = sorted(rows)
    second, product = [row[0] for row in rows], [row[1] for row in rows]
    found = average_uniqueness(np.array(second, np.int64), np.array(product, np.int32), horizon)
    np.testing.assert_allclose(found, plain(second, product, horizon), rtol=1e-12)


def test_a_busy_second_weighs_no_more_than_a_quiet_one() -> None:
    """A hundred ticks of one second weigh as much together as one tick of another, equally overlapped second."""
    second = np.concatenate([np.full(100, 0), [1000]]).astype(np.int64)
    weight = average_uniqueness(second, np.zeros(101, np.int32))
    assert weight[:100].sum() == pytest.approx(weight[100])
    assert weight.mean() == pytest.approx(1.0)


def test_a_regular_grid_weighs_the_same_all_over() -> None:
    """On a regular grid interior rows weigh the same, and rows at the ends, with less overlap, more."""
    weight = average_uniqueness(np.arange(1000, dtype=np.int64), np.zeros(1000, np.int32))
    assert np.ptp(weight[60:-60]) < 1e-9
    assert weight[0] > 3 * weight[500]


def row_every_second(market: Dataset, rows: int) -> Dataset:
    """The first rows of the market as one session that began long before them."""
    columns = ("time", "product", "session", "x", "future_volatility", "persistence")
    return replace(market, **{name: getattr(market, name)[:rows] for name in columns})


def test_label_that_ends_where_the_later_part_begins_is_purged(market: Dataset) -> None:
    """A row whose label ends exactly at the start of the later rows' windows is purged, an earlier one is not."""
    dataset = row_every_second(market, 2000)
    embargo_s = 300
    later = np.arange(1000, 2000)
    kept = purge(dataset, np.arange(1000), later, embargo_s)
    start = earliest_input(dataset, later, embargo_s)
    label_end = dataset.time + label_length(dataset)
    assert kept.tolist() == np.flatnonzero(label_end < start).tolist()
    at_the_cut = replace(dataset, time=dataset.time - (label_end[kept[-1] + 1] - start))
    edge = kept[-1] + 1
    assert at_the_cut.time[edge] + label_length(at_the_cut) == start
    assert select_labelled_before(at_the_cut, np.array([edge]), start).tolist() == []
    assert select_labelled_before(at_the_cut, np.array([edge]), start + 1).tolist() == [edge]


def test_500_labelled_rows_are_enough_to_split(market: Dataset, request_for: Callable[..., TrainingRequest]) -> None:
    """Exactly 500 rows pass the size check, 499 do not."""
    request = request_for(split_method="time_based")
    embargo_s = market.facts.feature_set.longest_window
    with pytest.raises(NotEnoughData, match="training needs 500"):
        build_folds(row_every_second(market, 499), request, embargo_s)
    with pytest.raises(NotEnoughData) as refused:
        build_folds(row_every_second(market, 500), request, embargo_s)
    assert "training needs" not in str(refused.value)


@pytest.mark.parametrize(("kept", "embargo_s"), [(500, 900), (499, 300)])
def test_longer_embargo_must_keep_half_of_the_training_rows(
    kept: int,
    embargo_s: int,
    market: Dataset,
    request_for: Callable[..., TrainingRequest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exactly half of the training rows are enough for the longer embargo; with fewer the longest window is used."""

    def fold_set(_: Dataset, __: TrainingRequest, seconds: int) -> FoldSet:
        rows = np.arange(1000 if seconds == 300 else kept)
        none = np.empty(0, np.int64)
        fit_rows = FitRows(rows, np.ones(len(rows)))
        fold = Fold(1, rows, none, none, np.ones(1000), np.zeros(1000, np.int8), fit_rows, is_final=True, block="")
        return FoldSet((fold,), (), seconds)

    monkeypatch.setattr("volspike.training.folds._usable_folds", fold_set)
    assert build_folds(market, request_for(), 900).embargo_s == embargo_s
