"""An audit finds the leak where there is one, and none where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.training.conftest import MakeDataset

from volspike.datasets import Dataset, FeatureFacts
from volspike.errors import NotEnoughData, UsageError
from volspike.evaluation import Interval
from volspike.features import Every, FeatureSet
from volspike.market import SECOND_NS, Profile
from volspike.training.audit import (
    WORLDS,
    Audit,
    AuditRequest,
    ProtocolScore,
    every_nth_second,
    protocol_score,
    shuffled,
    turned,
)
from volspike.training.null_market import NullMarket, null_dataset

FEATURES = FeatureSet()
START = 1_764_979_200
FILE = Path("features.parquet")


def null(seconds: int, seed: int = 1, *, every: Every = Every.SECOND, profile: Profile = Profile.TICKER) -> Dataset:
    facts = FeatureFacts(digest=FEATURES.digest, windows=FEATURES.windows, every=every, profile=profile)
    returns = 1e-5 * np.random.default_rng(seed).standard_t(4, 5000)
    market = NullMarket(returns=returns, seconds=seconds, ticks_per_second=2.0, start=START, seed=seed)
    return null_dataset(facts, market, most_rows=40_000)


@pytest.fixture(scope="module")
def null_scores() -> dict[str, ProtocolScore]:
    """The forest on a null market of some hours, under each protocol."""
    dataset = null(10_000)
    request = AuditRequest(features=FILE, model="random_forest", columns=("all",), folds=3)
    return {method: protocol_score(dataset, request.training(method)) for method in ("stratified", "walk_forward")}


def test_walking_forward_makes_nothing_of_noise(null_scores: dict[str, ProtocolScore]) -> None:
    """Where nothing can be foreseen, PR-AUC lies within what guessing reaches: no label or feature leaks over a cut."""
    score = null_scores["walk_forward"]
    assert score.guessing.low <= score.pr_auc <= score.guessing.high
    assert score.guessing.low < score.base_rate < score.guessing.high
    assert not score.finds_something


def test_a_stratified_split_makes_much_of_noise(null_scores: dict[str, ProtocolScore]) -> None:
    """The instrument is sharp: on the same rows the split that leaks is found out, many times over the base rate."""
    score = null_scores["stratified"]
    assert score.pr_auc > 4 * score.base_rate
    assert score.pr_auc > score.guessing.high
    assert score.finds_something


def test_foresight_is_found(market: Dataset) -> None:
    """Where the last minute does tell the next, walking forward scores above guessing."""
    request = AuditRequest(features=FILE, model="logistic", columns=("all",))
    score = protocol_score(market, request.training("walk_forward"))
    assert score.finds_something
    assert score.interval.low > score.base_rate
    assert score.folds == 4  # the fifth, the final block, is not looked at


def test_returns_of_a_null_market_are_independent() -> None:
    """Squares of neighbouring returns are uncorrelated, and as large as those that they were drawn from."""
    dataset = null(9_000)
    returns = dataset.x[:, FEATURES.names.index("log_return_30s")]
    apart = returns[::30] - returns.mean()
    square = apart**2 - np.mean(apart**2)
    assert abs(np.mean(square[1:] * square[:-1]) / np.mean(square**2)) < 0.15
    assert 0.7 < np.sqrt(np.mean(apart**2) / 30) / (1e-5 * np.sqrt(2)) < 1.4


@pytest.mark.parametrize("every", list(Every))
def test_labels_of_a_null_market_are_those_of_its_prices(every: Every) -> None:
    """A row's future volatility is the volatility feature of the row a minute later, bit for bit but for rounding."""
    dataset = null(2_000, every=every)
    second = dataset.time // SECOND_NS
    realized = dataset.x[:, FEATURES.names.index("realized_volatility_60s")]
    if every is Every.TICK:  # a tick's windows end with the last finished second
        second, first = np.unique(second, return_index=True)
        later = np.searchsorted(second, second + 61)
        known = later < len(second)
        future, seen = dataset.future_volatility[first][known], realized[first][later[known]]
    else:
        future, seen = dataset.future_volatility[:-60], realized[60:]
    assert len(future) > 1000
    np.testing.assert_allclose(future, seen, rtol=1e-6)


@pytest.mark.parametrize("profile", list(Profile))
def test_a_null_market_tells_what_the_recording_tells(profile: Profile) -> None:
    """Rows of every profile have all their values; the same seed gives the same rows."""
    dataset = null(1_500, every=Every.TICK, profile=profile)
    assert len(dataset) > 1000
    has_book = profile is not Profile.TRADE
    book = np.array([name.startswith("order_book") for name in FEATURES.names])
    assert np.isfinite(dataset.x[:, ~book | has_book]).all()
    again = null(1_500, every=Every.TICK, profile=profile)
    np.testing.assert_array_equal(dataset.x, again.x)
    assert dataset.facts.simulated


def test_turned_labels_keep_their_neighbours(make_dataset: MakeDataset) -> None:
    """Turning moves each product's labels on by at least a quarter and changes their order nowhere else."""
    dataset = make_dataset(4000, skill=1.0)
    dataset = replace(dataset, product=(np.arange(4000) % 2).astype(np.int32), products=("A", "B"))
    moved = turned(dataset, seed=0)
    for product in (0, 1):
        before = dataset.future_volatility[dataset.product == product]
        after = moved.future_volatility[moved.product == product]
        distance = int(np.flatnonzero(after == before[0])[0])
        assert 500 <= distance <= 1500
        np.testing.assert_array_equal(np.roll(before, distance), after)
    np.testing.assert_array_equal(moved.x, dataset.x)


def test_shuffled_labels_are_the_same_labels(market: Dataset) -> None:
    """Shuffling keeps every label and hardly any place; the features stay."""
    other = shuffled(market, seed=0)
    np.testing.assert_array_equal(np.sort(other.future_volatility), np.sort(market.future_volatility))
    assert np.mean(other.future_volatility == market.future_volatility) < 0.01
    np.testing.assert_array_equal(other.x, market.x)


def test_thinning_keeps_whole_seconds_over_all_of_the_time(market: Dataset) -> None:
    """Every third second's rows stay, from the beginning to the end."""
    thinned = every_nth_second(market, 3)
    assert len(thinned) == 3000
    assert set(np.diff(thinned.time)) == {3 * SECOND_NS}


def score(pr_auc: float, low: float = 0.05, high: float = 0.15, events: int = 30) -> ProtocolScore:
    return ProtocolScore(
        rows=1000,
        folds=4,
        spike_events=events,
        base_rate=0.1,
        pr_auc=pr_auc,
        interval=Interval(pr_auc - 0.05, pr_auc + 0.05),
        guessing=Interval(low, high),
        persistence=0.3,
    )


def report(yours: ProtocolScore, of_turned: float, on_noise: float) -> str:
    told = {"yours": yours, "turned": score(of_turned), "shuffled": score(0.1), "null market": score(on_noise)}
    audit = Audit(
        request=AuditRequest(features=FILE),
        rows=1000,
        step=1,
        null_rows=1000,
        simulated=False,
        scores={(name, protocol): told[name] for name in WORLDS for protocol in ("stratified", "walk_forward")},
    )
    return audit.sentences()[0]


def test_sentences_say_what_the_figures_say() -> None:
    """A leak is called one with what is left, foresight foresight, guessing guessing, and few events few."""
    leak = report(score(0.98), 0.91, 0.93)
    assert "scores 0.93 on a market that nobody can foresee" in leak
    assert "it leaks" in leak
    assert "of the 0.98 that it gives your data 0.91 is the protocol, and the other 0.07" in leak
    real = report(score(0.42), 0.1, 0.12)
    assert "it makes nothing of noise" in real
    assert "foresight, on days like these; the last minute's volatility alone scores 0.30" in real
    assert "no foresight is shown" in report(score(0.12), 0.1, 0.12)
    assert "3 event(s) are too few to tell" in report(score(0.42, events=3), 0.1, 0.12)
    assert "cannot be judged" in report(score(float("nan")), 0.1, 0.12)


@pytest.mark.parametrize(
    ("changes", "told"),
    [({"model": "lgbm"}, "no model named lgbm"), ({"model": "all"}, "one model"), ({"rows": 100}, "at least 2000")],
)
def test_what_cannot_be_audited_is_refused(changes: dict[str, Any], told: str) -> None:
    """A model that is none or several, and too few rows, are refused before anything is read."""
    with pytest.raises(UsageError, match=told):
        replace(AuditRequest(features=FILE), **changes).check()


def test_too_short_a_market_is_told(make_dataset: MakeDataset) -> None:
    """Under 500 rows nothing is scored."""
    with pytest.raises(NotEnoughData, match="training takes 500"):
        protocol_score(make_dataset(400, skill=1.0), AuditRequest(features=FILE).training("stratified"))
