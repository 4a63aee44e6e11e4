"""Splits keep what they promise: order, purge, embargo, whole sessions, equal rates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.datasets import Dataset, FeatureFacts, Split, load_dataset, split
from volspike.datasets.splits import HORIZON_NS
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
        FACTS, ("X",), time, np.zeros(n, np.int32), session, ("a",), np.zeros((n, 1)), volatility, volatility
    )


def assert_apart(data: Dataset, earlier: np.ndarray, later: np.ndarray) -> None:
    """No label of the earlier part, and no window of the later one, reaches over the cut."""
    longest = data.facts.feature_set.longest_window * SECOND_NS
    assert data.time[earlier].max() + HORIZON_NS < data.time[later].min()
    gap = data.time[later].min() - data.time[earlier].max()
    same_session = data.session[earlier[-1]] == data.session[later[0]]
    assert gap >= HORIZON_NS + longest or not same_session


def assert_in_time_order(data: Dataset, part: Split) -> None:
    assert_apart(data, part.train, part.validation)
    assert_apart(data, part.validation, part.test)


@given(st.lists(st.integers(200, 3000), min_size=1, max_size=6), st.integers(1, 4))
def test_walk_forward_trains_on_the_past_alone(sessions: list[int], folds: int) -> None:
    """In every fold training, validation and test follow each other, purged and embargoed; tests never overlap."""
    data = dataset([*sessions, 9000])
    parts = split(data, "walk_forward", folds=folds)
    assert [part.fold for part in parts] == list(range(folds))
    for part in parts:
        assert_in_time_order(data, part)
    tested = np.concatenate([part.test for part in parts])
    assert len(np.unique(tested)) == len(tested)
    assert [len(part.train) for part in parts] == sorted(len(part.train) for part in parts)


@given(st.lists(st.integers(500, 4000), min_size=1, max_size=6))
def test_time_based_cuts_once(sessions: list[int]) -> None:
    """Time-based parts follow each other in about the shares asked for."""
    data = dataset([*sessions, 6000])
    (part,) = split(data, "time_based")
    assert_in_time_order(data, part)
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
    """Where purge and embargo leave a part empty, that is said instead of splitting anyhow."""
    with pytest.raises(NotEnoughData, match="purge"):
        split(dataset([900]), "walk_forward")


@pytest.mark.parametrize(
    ("method", "fractions", "folds"),
    [("random", (0.7, 0.15, 0.15), 5), ("time_based", (0.7, 0.2, 0.2), 5), ("walk_forward", (0.7, 0.15, 0.15), 0)],
)
def test_wrong_requests_are_named(method: str, fractions: tuple[float, float, float], folds: int) -> None:
    """An unknown method and shares that are none are usage errors."""
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
