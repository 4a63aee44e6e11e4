"""Permutation importance in blocks of time, rank correlation, and groups of redundant features."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from volspike.market import SECOND_NS
from volspike.training.importance import (
    HeldOutSample,
    PrAucLoss,
    clustered_order,
    drop_redundant,
    group_redundant,
    permutation_loss,
    permute_blocks,
    rank_correlation,
)


def held_out(rows: int = 6000, seed: int = 0) -> HeldOutSample:
    """Labels in one-minute runs, which column 0 and its copy, column 1, reveal; column 2 is noise."""
    random = np.random.default_rng(seed)
    regime = np.repeat(random.normal(size=rows // 60), 60)
    x = np.column_stack([regime, regime, random.normal(size=rows)])
    time = np.arange(rows, dtype=np.int64) * SECOND_NS
    return HeldOutSample(time, np.zeros(rows, np.int32), x, (regime > 1.0).astype(np.int8))


def either(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A model that uses the larger of two redundant columns."""
    return np.asarray(np.maximum(x[:, 0], x[:, 1]))


def test_blocks_are_permuted_as_a_whole() -> None:
    """Every row occurs once, and the order within a block of ten minutes is kept."""
    rows = held_out()
    order = permute_blocks(rows.time, rows.product, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(order), np.arange(6000))
    assert np.count_nonzero(np.diff(order) != 1) <= 9
    assert np.mean(order == np.arange(6000)) < 0.5


def test_products_keep_their_own_values() -> None:
    """Rows are exchanged within a product only."""
    rows = held_out()
    product = (np.arange(6000) % 3).astype(np.int32)
    order = permute_blocks(rows.time, product, np.random.default_rng(1))
    np.testing.assert_array_equal(product[order], product)


def test_redundant_columns_are_permuted_together() -> None:
    """Permuting noise costs nothing; permuting one of two copies costs less than permuting both."""
    alone, noise, both = permutation_loss(
        either, held_out(), [np.array([0]), np.array([2]), np.array([0, 1])], 5, seed=3
    )
    assert (noise == 0.0).all()
    assert both.mean() > alone.mean() > 0.0
    assert both.mean() > 0.5


def test_values_are_not_modified() -> None:
    """Permuting columns changes a copy."""
    rows = held_out()
    before = rows.x.copy()
    permutation_loss(either, rows, [np.array([0, 1])], 2, seed=0)
    np.testing.assert_array_equal(rows.x, before)


@pytest.mark.parametrize(
    ("lost", "is_significant"),
    [
        ([[0.10], [0.11], [0.09], [0.10]], True),
        ([[0.30], [-0.10], [0.00], [0.05]], False),
        ([[0.10, 0.11, 0.09]], True),
        ([[0.10]], False),
    ],
)
def test_loss_is_significant_if_folds_agree(lost: list[list[float]], is_significant: bool) -> None:
    """A loss is significant if folds agree, not if they disagree, and not with a single value."""
    assert PrAucLoss.of(np.array(lost)).is_significant is is_significant


def test_repeats_are_no_folds() -> None:
    """Repeats within a fold are averaged: they do not count as folds."""
    few, many = (PrAucLoss.of(np.repeat([[0.2], [-0.1]], count, axis=1)) for count in (1, 100))
    assert (few.mean, few.spread) == pytest.approx((many.mean, many.spread))
    assert not many.is_significant


def columns(rows: int = 500) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """0 and 2 are redundant (with opposite sign), 1 and 3 are independent, 4 is constant, 5 is empty."""
    random = np.random.default_rng(0)
    first, second, third = random.normal(size=(3, rows))
    return np.column_stack([first, second, -np.exp(first), third + 0.5 * second, np.ones(rows), np.full(rows, np.nan)])


def test_correlation_is_spearmans() -> None:
    """Without missing values the result equals SciPy's, including ties."""
    x = np.round(columns()[:, :4], 1)
    np.testing.assert_allclose(rank_correlation(x), spearmanr(x).statistic, atol=1e-12)


def test_missing_values_cost_their_own_rows_only() -> None:
    """A column with half its values missing keeps its correlations approximately."""
    x = columns()
    holed = x.copy()
    holed[::2, 1] = np.nan
    whole, found = rank_correlation(x), rank_correlation(holed)
    assert abs(found[1, 3] - whole[1, 3]) < 0.1
    np.testing.assert_allclose(found[0, 3], whole[0, 3], atol=1e-12)


def test_constant_column_has_no_correlation() -> None:
    """A constant and an empty column have NaN correlations, also with themselves."""
    found = rank_correlation(columns())
    assert np.isnan(found[4:]).all()
    assert np.isnan(found[:, 4:]).all()


def test_redundant_features_form_a_group() -> None:
    """Either sign counts; columns without a correlation are groups of their own; the order keeps a group together."""
    correlation = rank_correlation(columns())
    found = group_redundant(correlation)
    assert found[0] == found[2]
    assert len(set(found)) == 5
    place = {int(column): index for index, column in enumerate(clustered_order(correlation))}
    assert sorted(place) == list(range(6))
    assert abs(place[0] - place[2]) == 1


def test_one_column_is_a_group_of_its_own() -> None:
    """A single column is a group of its own."""
    correlation = np.ones((1, 1))
    assert group_redundant(correlation).tolist() == [0]
    assert clustered_order(correlation).tolist() == [0]


def test_better_of_two_redundant_features_is_kept() -> None:
    """Of redundant features the best one is kept."""
    correlation = rank_correlation(columns())
    assert drop_redundant([2, 3, 0, 1], correlation) == [2, 3, 1]
    assert drop_redundant([0, 1, 2, 3], correlation) == [0, 1, 3]


def test_limits_of_significance_and_redundancy() -> None:
    """A lower bound of exactly 0 is not significant; exactly the limit of correlation is one group, and kept twice."""
    assert not PrAucLoss(0.1, 0.1, 0.0).is_significant
    assert PrAucLoss(0.1, 0.1, 1e-12).is_significant
    correlation = np.array([[1.0, 0.75], [0.75, 1.0]])
    assert len(set(group_redundant(correlation, redundant=0.75).tolist())) == 1
    assert drop_redundant([0, 1], correlation, redundant=0.75) == [0, 1]
    assert drop_redundant([0, 1], correlation, redundant=0.7499) == [0]
