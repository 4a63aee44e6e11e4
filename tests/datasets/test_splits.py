"""Tests of splits: order, purge, embargo, complete sessions, equal spike rates."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit

from volspike.datasets import Dataset, FeatureFacts, Split, load_dataset, split
from volspike.datasets.splits import days, earliest_input, label_length, newest_fold, purge, recordings, resolve_fold_by
from volspike.errors import NotEnoughData, UsageError
from volspike.features import Every, FeatureSet
from volspike.market import SECOND_NS, Profile

SET = FeatureSet((30, 60, 120))
FACTS = FeatureFacts(digest=SET.digest, windows=SET.windows, every=Every.SECOND, profile=Profile.TICKER)


def dataset(sessions: list[int], seed: int = 0) -> Dataset:
    """One row a second; an hour between sessions."""
    parts = [np.arange(length) * SECOND_NS for length in sessions]
    starts = np.cumsum([0, *[length + 3600 for length in sessions[:-1]]]) * SECOND_NS + 10**18
    time = np.concatenate([part + start for part, start in zip(parts, starts, strict=True)])
    session = np.repeat(starts // SECOND_NS, sessions)
    n = len(time)
    volatility = np.random.default_rng(seed).gamma(2.0, 1e-4, n)
    return Dataset(
        FACTS,
        ("X",),
        time,
        np.zeros(n, np.int32),
        session,
        ("a",),
        np.zeros((n, 1)),
        volatility,
        np.full(n, np.nan),
        volatility,
    )


def assert_apart(data: Dataset, earlier: np.ndarray, later: np.ndarray, embargo_s: int) -> None:
    """Labels of the earlier part end before the first window of the later part starts."""
    label_end = data.time[earlier].max() + label_length(data)
    windows = np.maximum(data.time[later] - embargo_s * SECOND_NS, data.session[later] * SECOND_NS)
    assert label_end < windows.min()


def assert_in_time_order(data: Dataset, part: Split, embargo_s: int = SET.longest_window) -> None:
    assert_apart(data, part.train, part.validation, embargo_s)
    assert_apart(data, part.validation, part.test, embargo_s)


def of_two(data: Dataset, seed: int) -> Dataset:
    """The rows of two products, whose sessions begin at seconds of their own."""
    product = np.random.default_rng(seed).integers(0, 2, len(data)).astype(np.int32)
    return replace(data, products=("X", "Y"), product=product, session=data.session + 7 * product)


recorded = st.lists(st.integers(200, 3000), min_size=1, max_size=6)


@settings(max_examples=40)
@given(recorded, st.integers(1, 5), st.sampled_from(["rows", "session", "day"]), st.sampled_from([120, 600]))
def test_walk_forward_trains_on_the_past_alone(sessions: list[int], folds: int, fold_by: str, embargo_s: int) -> None:
    """In every fold training, validation and test follow each other, purged and embargoed; tests never overlap."""
    data = of_two(dataset([*sessions, 40_000, 45_000]), folds)
    parts = split(data, "walk_forward", folds=folds, fold_by=fold_by, embargo_s=embargo_s)
    usable = [part for part in parts if not part.empty_parts]
    for part in usable:
        assert_in_time_order(data, part, embargo_s)
    tested = np.concatenate([part.test for part in parts])
    assert len(np.unique(tested)) == len(tested)
    assert [len(part.train) for part in parts] == sorted(len(part.train) for part in parts)
    assert [part.is_final for part in parts] == [False] * (len(parts) - 1) + [True]
    for part, following in pairwise(parts):
        assert data.time[part.test].max() + label_length(data) < data.time[following.test].min()


@settings(max_examples=40)
@given(recorded, st.integers(1, 4), st.integers(0, 2**32))
def test_what_comes_later_changes_no_earlier_fold(sessions: list[int], folds: int, seed: int) -> None:
    """Neither other prices later on nor more recordings change which rows an earlier test block was learned from."""
    lengths = [*sessions, 4000, 5000]
    data = dataset(lengths)
    random = np.random.default_rng(seed)
    later = replace(data, future_volatility=random.permutation(data.future_volatility))
    longer = dataset([*lengths, 2500])
    for fold_by in ("rows", "session"):
        parts = split(data, folds=folds, fold_by=fold_by)
        for part, same in zip(parts, split(later, folds=folds, fold_by=fold_by), strict=True):
            assert rows_of(part) == rows_of(same)
    before = {part.block: part for part in split(data, folds=folds, fold_by="session")}
    for part in split(longer, folds=folds + 1, fold_by="session")[:-1]:
        known = before[part.block]
        assert rows_of(part)[:2] == rows_of(known)[:2]
        assert part.test.tolist() == known.test.tolist()  # an hour's silence: no label reaches into the new recording


def rows_of(part: Split) -> list[list[int]]:
    return [part.train.tolist(), part.validation.tolist(), part.test.tolist()]


@pytest.mark.parametrize("training", ["expanding", "rolling"])
def test_the_sets_are_those_of_scikit_learn(training: str) -> None:
    """On a grid of a row a second the sets are those of ``TimeSeriesSplit`` with purge and embargo as its gap."""
    n, folds, embargo_s = 24_000, 5, 300
    gap = 61 + embargo_s + 2
    data = replace(dataset([n]), session=np.zeros(n, np.int64))
    parts = split(data, folds=folds, fold_by="rows", training=training, embargo_s=embargo_s)
    size = n // 10  # 60 % of the rows in six blocks, the first of which belongs to the first past
    most = (n - folds * size) - gap if training == "rolling" else None
    peers = TimeSeriesSplit(folds, gap=gap, test_size=size, max_train_size=most).split(np.zeros(n))
    for part, (past, test) in zip(parts, peers, strict=True):
        assert part.test.tolist() == (test if part.is_final else test[:-61]).tolist()
        assert (part.train[0], part.validation[-1]) == (past[0], past[-1])
        assert len(part.validation) == len(past) - round(0.85 * len(past))
        *_, (train, validation) = TimeSeriesSplit(2, gap=gap, test_size=len(part.validation)).split(past)
        assert part.train.tolist() == past[train].tolist()
        assert part.validation.tolist() == past[validation].tolist()


def test_automatic_folds_are_days_then_recordings_then_rows() -> None:
    """Four days fold by day, three recordings by recording; fewer or very uneven ones fold by rows."""
    assert resolve_fold_by(dataset([86_400 * 4]), "auto") == "day"
    assert resolve_fold_by(dataset([4000, 4000, 5000]), "auto") == "session"
    assert resolve_fold_by(dataset([4000, 4000]), "auto") == "rows"
    assert resolve_fold_by(dataset([500, 500, 20_000]), "auto") == "rows"


def test_recordings_of_several_products_are_one_where_they_overlap() -> None:
    """A product that pauses while another goes on begins no new recording."""
    data = dataset([4000, 3000])
    product = (np.arange(7000) % 2).astype(np.int32)
    paused = np.where((product == 1) & (np.arange(7000) > 2000), 5, 0)
    both = replace(data, products=("X", "Y"), product=product, session=data.session + paused)
    assert recordings(both).tolist() == [0, 4000]


def test_recordings_as_blocks_are_complete_and_the_newest() -> None:
    """Folding by session tests on the newest complete recordings, and no row of them is embargoed."""
    data = dataset([3000, 3000, 2000, 2500])
    parts = split(data, folds=2, fold_by="session")
    assert [np.unique(data.session[part.test]).tolist() for part in parts] == [
        [data.session[6000]],
        [data.session[8000]],
    ]
    assert [len(part.test) for part in parts] == [2000, 2500]
    assert part_ends(data, parts[0]) == [3000 + 3000 - 1]


def part_ends(data: Dataset, part: Split) -> list[int]:
    return [int(part.validation[-1])]


def test_rolling_training_forgets() -> None:
    """No row is older than the span before its test block."""
    data = dataset([30_000])
    for part in split(data, folds=3, fold_by="rows", training="rolling", training_span_h=2):
        assert data.time[part.train[0]] == data.time[part.test[0]] - 2 * 3600 * SECOND_NS


def test_folds_with_an_empty_part_are_in_the_result() -> None:
    """A short first recording leaves its fold without training rows; the newest complete fold is found."""
    parts = split(dataset([200, 3000, 3000]), folds=5, fold_by="session")
    assert [part.empty_parts for part in parts] == [("train",), ()]
    assert newest_fold(parts) is parts[1]


@given(st.lists(st.integers(500, 4000), min_size=1, max_size=6))
def test_time_based_cuts_once(sessions: list[int]) -> None:
    """Time-based parts follow each other in about the requested shares."""
    data = dataset([*sessions, 6000])
    (part,) = split(data, "time_based")
    assert_in_time_order(data, part)
    assert part.is_final
    assert 0.5 < len(part.train) / len(data) <= 0.76


def test_cuts_prefer_session_starts() -> None:
    """Where a session begins near a cut, the cut is there, and no session is torn."""
    data = dataset([7100, 1400, 1500])
    (part,) = split(data, "time_based")
    assert set(np.unique(data.session[part.train])).isdisjoint(np.unique(data.session[part.validation]))
    assert set(np.unique(data.session[part.validation])).isdisjoint(np.unique(data.session[part.test]))


def test_stratified_draws_equal_spike_rates() -> None:
    """All parts have the same share of spikes, no row twice, every row once."""
    data = dataset([10_000])
    (part,) = split(data, "stratified", seed=4)
    tau = np.quantile(data.future_volatility, 0.9)
    rates = [(data.future_volatility[rows] >= tau).mean() for rows in (part.train, part.validation, part.test)]
    assert np.ptp(rates) < 0.002
    assert sorted(np.concatenate([part.train, part.validation, part.test]).tolist()) == list(range(10_000))
    assert [len(part.train), len(part.validation), len(part.test)] == [7000, 1500, 1500]


def test_splits_are_repeatable() -> None:
    """The same seed draws the same rows, another draws others."""
    data = dataset([3000])
    (a,), (b,), (c,) = (split(data, "stratified", seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(a.test, b.test)
    assert not np.array_equal(a.test, c.test)


def test_too_little_data_is_refused() -> None:
    """A split with an empty part raises an error that names purge and embargo."""
    with pytest.raises(NotEnoughData, match="purge"):
        split(dataset([300]), "walk_forward")


@pytest.mark.parametrize(
    ("method", "fractions", "folds"),
    [("random", (0.7, 0.15, 0.15), 5), ("time_based", (0.7, 0.2, 0.2), 5), ("walk_forward", (0.7, 0.15, 0.15), 0)],
)
def test_wrong_requests_are_named(method: str, fractions: tuple[float, float, float], folds: int) -> None:
    """Unknown methods and invalid shares are usage errors."""
    with pytest.raises(UsageError):
        split(dataset([3000]), method, fractions=fractions, folds=folds)


def test_a_loaded_dataset_is_warm_labelled_and_in_order(features: Path) -> None:
    """Rows that cannot be learned from are left out, and the rest follow each other in time."""
    data = load_dataset(features)
    assert np.isfinite(data.future_volatility).all()
    assert np.isfinite(data.columns(["log_return_120s", "realized_volatility_60s"])).all()
    assert (np.diff(data.time) >= 0).all()
    assert set(data.products) == {"BTC-USD", "ETH-USD"}
    everything = load_dataset(features, labelled=False)
    assert len(everything) == len(data) + 2 * 60


def of_rows(seconds: list[int], session: int = 10**9 - 1000) -> Dataset:
    """Rows at these seconds after 10^9, all in a session that began long before."""
    time = (10**9 + np.array(seconds)) * SECOND_NS
    zeros = np.zeros(len(time))
    sessions = np.full(len(time), session)
    return Dataset(FACTS, ("X",), time, zeros.astype(np.int32), sessions, ("a",), zeros[:, None], zeros, zeros, zeros)


@pytest.mark.parametrize("horizon", [60, 3600])
@pytest.mark.parametrize(("early_by_ns", "is_kept"), [(0, False), (1, True), (-1, False)])
def test_label_that_ends_as_the_later_windows_begin_is_purged(early_by_ns: int, is_kept: bool, horizon: int) -> None:
    """A label must end before the earliest price of a later row; at the same instant it is purged."""
    data = of_rows([0, 5000])
    data = replace(data, facts=msgspec.structs.replace(FACTS, horizon_s=horizon))
    assert label_length(data) == (horizon + 1) * SECOND_NS
    embargo_s = 120
    begin = earliest_input(data, np.array([1]), embargo_s)
    assert begin == data.time[1] - (embargo_s + 2) * SECOND_NS
    exact = replace(data, time=np.array([begin - label_length(data) - early_by_ns, data.time[1]]))
    assert purge(exact, np.array([0]), np.array([1]), embargo_s).tolist() == ([0] if is_kept else [])


def test_embargo_ends_where_the_session_begins() -> None:
    """Windows start again with a session, so no input is earlier than its start."""
    data = of_rows([0, 500], session=10**9 + 490)
    assert earliest_input(data, np.array([1]), 120) == (10**9 + 490) * SECOND_NS


def test_days_begin_at_midnight() -> None:
    """A row exactly at midnight UTC is the first of the new day; blocks are named by their day."""
    midnight = 86_400 * 11_575
    data = of_rows([second - 10**9 for second in (midnight - 1, midnight, midnight + 1, midnight + 86_400)])
    assert days(data).tolist() == [0, 1, 3]
    month = dataset([86_400 * 5])
    parts = split(month, folds=3, fold_by="day")
    assert [part.fold for part in parts] == [0, 1, 2]
    assert [part.block for part in parts] == ["2001-09-12", "2001-09-13", "2001-09-14"]
    assert [month.time[part.test[0]] % (86_400 * SECOND_NS) for part in parts] == [0, 0, 0]


def test_time_based_cut_is_exactly_at_a_row() -> None:
    """The row at the cut is the first of the later part, and shares that differ from the default are kept."""
    data = dataset([10_000])
    (part,) = split(data, "time_based", fractions=(0.5, 0.2, 0.3))
    assert (part.fold, part.test.tolist()) == (0, list(range(7000, 10_000)))
    past_end = 7000 - 1 - (61 + SET.longest_window + 2)
    assert part.validation[-1] == past_end
    cut = round((1 - 0.2 / 0.7) * (past_end + 1))
    assert part.validation[0] == cut
    assert part.train[-1] == cut - 1 - (61 + SET.longest_window + 2)
    assert part.train[0] == 0


@pytest.mark.parametrize("fractions", [(0.0, 0.5, 0.5), (0.7, 0.15, 0.1500001), (0.7, 0.15, 0.1499999)])
def test_shares_are_positive_and_sum_to_one(fractions: tuple[float, float, float]) -> None:
    """A share of zero and a sum that is off by 1e-7 are refused."""
    with pytest.raises(UsageError, match="shares"):
        split(dataset([3000]), "time_based", fractions=fractions)
