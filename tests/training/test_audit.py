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
from volspike.features.schema import Scope
from volspike.labels import SpikeDefinition
from volspike.market import SECOND_NS, Profile
from volspike.training.audit import (
    DATA_VARIANTS,
    AuditReport,
    AuditRequest,
    ProtocolScore,
    every_nth_second,
    rotate_labels,
    score_protocol,
    shuffle_labels,
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
    return {
        method: score_protocol(dataset, request.training_request(method)) for method in ("stratified", "walk_forward")
    }


@pytest.mark.parametrize("spike", ["jump:1.25", "level"])
def test_walk_forward_does_not_leak_with_a_tau_of_each_row(spike: str) -> None:
    """On a null market a τ of each row gives no more than chance and τ itself; the base rate is within them."""
    features = FeatureSet(scope=Scope.FULL)
    facts = FeatureFacts(
        digest=features.digest,
        windows=features.windows,
        scope=features.scope,
        every=Every.SECOND,
        profile=Profile.TRADE,
    )
    returns = 1e-5 * np.random.default_rng(1).standard_t(5, 5000)
    market = NullMarket(returns=returns, seconds=40_000, ticks_per_second=2.0, start=START, seed=2)
    request = AuditRequest(features=FILE, model="lightgbm", folds=3, spike=spike).training_request("walk_forward")
    dataset = null_dataset(facts, market, 8_000, SpikeDefinition.parse(spike))
    score = score_protocol(dataset, request)
    assert 0.05 < score.base_rate < 0.15
    assert score.spike_events >= 10
    assert score.tau_alone.low < score.pr_auc <= max(score.tau_alone.high, score.guessing.high)
    assert score.guessing.low < score.base_rate < score.guessing.high
    assert not score.beats_chance


def test_walk_forward_does_not_leak(null_scores: dict[str, ProtocolScore]) -> None:
    """On an unpredictable market PR-AUC stays within what chance reaches: nothing leaks over a cut."""
    score = null_scores["walk_forward"]
    assert score.guessing.low <= score.pr_auc <= score.guessing.high
    assert score.guessing.low < score.base_rate < score.guessing.high
    assert not score.beats_chance


def test_stratified_split_leaks(null_scores: dict[str, ProtocolScore]) -> None:
    """On the same rows a stratified split scores several times the base rate, and the audit detects it."""
    score = null_scores["stratified"]
    assert score.pr_auc > 4 * score.base_rate
    assert score.pr_auc > score.guessing.high
    assert score.beats_chance


def test_skill_is_found(market: Dataset) -> None:
    """If the last minute predicts the next, walk_forward scores above chance."""
    request = AuditRequest(features=FILE, model="logistic", columns=("all",))
    score = score_protocol(market, request.training_request("walk_forward"))
    assert score.beats_chance
    assert score.interval.low > score.base_rate
    assert score.folds == 4  # the fifth, the final block, is not used


def test_returns_of_a_null_market_are_independent() -> None:
    """Squares of neighbouring returns are uncorrelated and keep the size of the returns they are drawn from."""
    dataset = null(9_000)
    returns = dataset.x[:, FEATURES.names.index("log_return_30s")]
    apart = returns[::30] - returns.mean()
    square = apart**2 - np.mean(apart**2)
    assert abs(np.mean(square[1:] * square[:-1]) / np.mean(square**2)) < 0.15
    assert 0.7 < np.sqrt(np.mean(apart**2) / 30) / (1e-5 * np.sqrt(2)) < 1.4


@pytest.mark.parametrize("every", list(Every))
def test_labels_of_a_null_market_are_those_of_its_prices(every: Every) -> None:
    """A row's future volatility equals the volatility feature of the row a minute later, up to rounding."""
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
def test_null_market_has_the_values_of_its_profile(profile: Profile) -> None:
    """Rows of every profile have all values that the profile provides; the same seed gives the same rows."""
    dataset = null(1_500, every=Every.TICK, profile=profile)
    assert len(dataset) > 1000
    has_book = profile is not Profile.TRADE
    book = np.array([name.startswith("order_book") for name in FEATURES.names])
    assert np.isfinite(dataset.x[:, ~book | has_book]).all()
    again = null(1_500, every=Every.TICK, profile=profile)
    np.testing.assert_array_equal(dataset.x, again.x)
    assert dataset.facts.simulated


def test_rotated_labels_keep_their_order(make_dataset: MakeDataset) -> None:
    """Each product's labels are rotated by at least a quarter and otherwise unchanged."""
    dataset = make_dataset(4000, skill=1.0)
    dataset = replace(dataset, product=(np.arange(4000) % 2).astype(np.int32), products=("A", "B"))
    moved = rotate_labels(dataset, seed=0)
    for product in (0, 1):
        before = dataset.future_volatility[dataset.product == product]
        after = moved.future_volatility[moved.product == product]
        distance = int(np.flatnonzero(after == before[0])[0])
        assert 500 <= distance <= 1500
        np.testing.assert_array_equal(np.roll(before, distance), after)
    np.testing.assert_array_equal(moved.x, dataset.x)


def test_rotated_labels_are_those_of_other_rows_whatever_their_tau(market: Dataset) -> None:
    """With a τ of each row, labels are rotated or shuffled as they are, not compared with the τ of another row."""
    tau = np.random.default_rng(4).lognormal(-9.0, 1.0, len(market))
    own = replace(market, tau=tau)
    labels = own.future_volatility >= tau
    for moved in (rotate_labels(own, seed=0), shuffle_labels(own, seed=0)):
        changed = moved.future_volatility >= tau
        assert abs(int(changed.sum()) - int(labels.sum())) <= 1
        assert np.mean(changed == labels) < 0.9
        assert abs(np.corrcoef(changed, tau)[0, 1]) < 0.05
    assert np.corrcoef(labels, tau)[0, 1] < -0.2


def test_shuffled_labels_are_the_same_labels(market: Dataset) -> None:
    """Shuffling keeps the set of labels and the features, but hardly any label's row."""
    other = shuffle_labels(market, seed=0)
    np.testing.assert_array_equal(np.sort(other.future_volatility), np.sort(market.future_volatility))
    assert np.mean(other.future_volatility == market.future_volatility) < 0.01
    np.testing.assert_array_equal(other.x, market.x)


def test_every_third_second_is_kept(market: Dataset) -> None:
    """The rows of every third second are kept, from beginning to end."""
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
    scores = {
        "yours": yours,
        "turned": score(of_turned),
        "shuffled": score(0.1),
        "null market": score(on_noise),
    }
    audit = AuditReport(
        request=AuditRequest(features=FILE),
        rows=1000,
        step=1,
        null_rows=1000,
        simulated=False,
        scores={
            (name, protocol): scores[name] for name in DATA_VARIANTS for protocol in ("stratified", "walk_forward")
        },
    )
    return audit.sentences()[0]


def test_conclusions_follow_from_the_scores() -> None:
    """The sentences name a leak and its size, skill, chance, and too few events."""
    leak = report(score(0.98), 0.91, 0.93)
    assert "scores 0.93 on an unpredictable market" in leak
    assert "it leaks" in leak
    assert "of the 0.98 on your data, 0.91 come from the protocol, and the other 0.07" in leak
    real = report(score(0.42), 0.1, 0.12)
    assert "it does not leak" in real
    assert "scores 0.42 (95 %: 0.37 to 0.47), which is above what chance reaches (0.05 to 0.15)" in real
    assert real.endswith("and that of the last minute's volatility alone (0.30): it has skill on days like these.")
    assert "no skill is shown" in report(score(0.12), 0.1, 0.12)
    assert "cannot be evaluated" in report(score(float("nan")), 0.1, 0.12)
    assert "cannot be measured" in report(score(0.98), float("nan"), 0.93)


UNKNOWN = Interval(float("nan"), float("nan"))


@pytest.mark.parametrize(
    ("yours", "told"),
    [
        (score(0.42, events=3), "3 separate spike event(s) are too few"),
        (replace(score(0.61, events=7), interval=UNKNOWN, persistence=0.72), "7 separate spike event(s) are too few"),
        (replace(score(0.61), interval=UNKNOWN), "no conclusion about skill"),
        (replace(score(0.61), persistence=0.72), "not above that of the last minute's volatility alone (0.72)"),
        (replace(score(0.61), persistence=0.61), "not above that of the last minute's volatility alone (0.61)"),
        (replace(score(0.61), guessing=UNKNOWN), "what chance reaches (unknown): no skill is shown"),
    ],
    ids=["few events", "few blocks", "no interval", "one column is better", "one column is as good", "chance unknown"],
)
def test_skill_is_not_stated_without_evidence(yours: ProtocolScore, told: str) -> None:
    """Without enough events, an interval, or a score above that of one column, no skill is stated; NaN is not shown."""
    text = report(yours, 0.1, 0.12)
    assert told in text
    assert "it has skill" not in text
    assert "nan" not in text


def test_skill_needs_no_comparison_with_a_column_that_is_missing() -> None:
    """Without the last minute's volatility in the data the score is compared with chance alone."""
    text = report(replace(score(0.42), persistence=float("nan")), 0.1, 0.12)
    assert text.endswith("which is above what chance reaches (0.05 to 0.15): it has skill on days like these.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"model": "lgbm"}, "no model named lgbm"), ({"model": "all"}, "one model"), ({"rows": 100}, "at least 2000")],
)
def test_invalid_options_are_refused(changes: dict[str, Any], message: str) -> None:
    """An unknown model, several models and too few rows are refused before any file is read."""
    with pytest.raises(UsageError, match=message):
        replace(AuditRequest(features=FILE), **changes).check()


def test_too_few_rows_are_refused(make_dataset: MakeDataset) -> None:
    """Fewer than 500 rows are not scored."""
    with pytest.raises(NotEnoughData, match="training needs 500"):
        score_protocol(make_dataset(400, skill=1.0), AuditRequest(features=FILE).training_request("stratified"))


def test_score_of_tau_alone_is_no_skill() -> None:
    """A score above chance, but not above that of τ alone, shows nothing."""
    by_tau = replace(score(0.2), tau_alone=Interval(0.1, 0.2))
    assert not by_tau.beats_chance
    assert replace(by_tau, pr_auc=np.nextafter(0.2, 1.0)).beats_chance


def test_score_equal_to_chance_shows_nothing() -> None:
    """A score exactly at the upper end of chance does not beat it."""
    assert not score(0.15, high=0.15).beats_chance
    assert score(np.nextafter(0.15, 1.0), high=0.15).beats_chance
