"""Drift is found where there is some, and not in a market that is as it always was."""

from __future__ import annotations

from dataclasses import replace
from math import nan

import numpy as np
import pytest
from scipy.stats import ks_2samp
from tests.monitoring.markets import NAMES, SECOND, halves, stochastic_volatility, wandering

from volspike.errors import NotEnoughData
from volspike.monitoring.block_permutation import (
    BlockShares,
    DriftSample,
    adjust_p_values,
    autocorrelation_time,
    integrated_time,
    permutation_test,
    thin,
)
from volspike.monitoring.drift import DriftSeverity, check_drift, dataset_severity, drifted_share, feature_severity

PERMUTATIONS = 299
LOW, MEDIUM, HIGH = DriftSeverity.LOW, DriftSeverity.MEDIUM, DriftSeverity.HIGH


def test_two_halves_of_one_market_are_no_drift() -> None:
    """Hardly any of 60 stationary markets with long memory drifts; a naive test flags nearly all."""
    alarms = naive = 0
    for seed in range(60):
        early, late = halves(stochastic_volatility(12, 600.0, seed))
        found = check_drift(early, late, permutations=PERMUTATIONS)
        alarms += found.is_drifted
        p_values = [ks_2samp(early.x[:, column], late.x[:, column]).pvalue for column in range(len(NAMES))]
        naive += float(np.mean(np.array(p_values) <= 0.05)) > 0.5
    assert alarms <= 6  # 5 % of 60 is 3; more than 6 has a chance of 4 % at that rate
    assert naive >= 30


def test_market_of_twice_the_volatility_has_drifted() -> None:
    """A real change is detected in nearly every market, for each feature that changed."""
    found = [
        check_drift(*halves(stochastic_volatility(48, 600.0, seed), scale=2.0), permutations=PERMUTATIONS)
        for seed in range(10)
    ]
    assert sum(one.is_drifted for one in found) >= 8
    worst = {feature.name: feature.severity for feature in found[0].features}
    assert worst["volatility_60s"] is DriftSeverity.HIGH


def test_memory_too_long_for_the_samples_is_not_judged() -> None:
    """A feature with an autocorrelation time as long as the samples has no test, and a note has the reason."""
    early, late = halves(stochastic_volatility(3, 7200.0, 1))
    found = check_drift(early, late, permutations=PERMUTATIONS)
    told = {feature.name: feature for feature in found.features}
    assert told["volatility_300s"].adjusted_p is None
    assert "too long" in told["volatility_300s"].note
    assert not told["volatility_300s"].severity.is_drift
    assert found.counts()["none"] == len(NAMES) - found.tested


def test_severity_is_unknown_if_most_features_have_no_test() -> None:
    """If most features have no test, the severity of the data set is unknown."""
    market = stochastic_volatility(3, 7200.0, 1)
    slow = market.columns(("volatility_60s", "volatility_300s", "spread"))
    found = check_drift(*(slow.rows(part) for part in (slow.time < 5400 * SECOND, slow.time >= 5400 * SECOND)))
    assert found.severity is None
    assert not found.is_drifted
    assert any("the drift of the data set is unknown" in note for note in found.notes)


def test_short_sample_is_refused() -> None:
    """Less than an hour of data is refused with the required amount."""
    early, late = halves(stochastic_volatility(1.5, 60.0, 0))
    with pytest.raises(NotEnoughData, match="60 min of data needed"):
        check_drift(early, late)


def test_scale_of_a_product_is_no_drift() -> None:
    """Two stationary products with very different prices do not drift together either."""
    one, two = stochastic_volatility(12, 300.0, 5), stochastic_volatility(12, 300.0, 6)
    both = DriftSample(
        NAMES,
        ("BTC-USD", "ETH-USD"),
        np.repeat(one.time, 2),
        np.tile(np.array([0, 1], np.int32), len(one)),
        np.stack([one.x * 1000.0, two.x], axis=1).reshape(-1, len(NAMES)),
    )
    assert not check_drift(*halves(both), permutations=PERMUTATIONS).is_drifted


def test_product_of_one_sample_is_excluded() -> None:
    """A product without older rows is excluded and named in a note."""
    early, late = halves(stochastic_volatility(6, 60.0, 0))
    renamed = replace(
        late, products=("BTC-USD", "ETH-USD"), product=(late.product + np.arange(len(late)) % 2).astype(np.int32)
    )
    found = check_drift(early, renamed, permutations=PERMUTATIONS)
    assert any("ETH-USD excluded" in note for note in found.notes)
    with pytest.raises(NotEnoughData, match="no product in common"):
        check_drift(early, replace(late, products=("SOL-USD",)))


def test_missing_values_are_named() -> None:
    """Features with more missing values than before are named, and the present values are compared."""
    early, late = halves(stochastic_volatility(6, 60.0, 0))
    x = late.x.copy()
    x[::2, 4] = np.nan
    found = check_drift(early, replace(late, x=x), permutations=PERMUTATIONS)
    assert any("spread" in note and "missing" in note for note in found.notes)
    assert found.features[4].missing_current == pytest.approx(0.5, abs=0.01)


def test_feature_without_values_is_not_judged() -> None:
    """A column without values, or with a constant, has no test."""
    early, late = halves(stochastic_volatility(6, 60.0, 0))
    parts = []
    for sample in (early, late):
        x = sample.x.copy()
        x[:, 0], x[:, 1] = np.nan, 3.0
        parts.append(replace(sample, x=x))
    found = check_drift(*parts, permutations=PERMUTATIONS)
    assert [feature.is_tested for feature in found.features[:3]] == [False, False, True]


def test_memory_of_a_known_series() -> None:
    """An AR(1) with coefficient a has an autocorrelation time of (1 + a) / (1 − a) steps, white noise one of 1."""
    rng = np.random.default_rng(0)
    kept = np.exp(-1.0 / 50.0)
    assert integrated_time(wandering(200_000, 50.0, rng)) == pytest.approx((1 + kept) / (1 - kept), rel=0.1)
    assert integrated_time(rng.normal(size=20_000)) == pytest.approx(1.0, abs=0.1)
    assert integrated_time(np.ones(100)) == 1.0


def test_memory_sees_that_sizes_last() -> None:
    """Returns with random signs and persistent sizes have the autocorrelation time of their sizes."""
    rng = np.random.default_rng(0)
    returns = np.exp(wandering(50_000, 200.0, rng)) * rng.normal(size=50_000)
    assert integrated_time(returns) < 20
    assert autocorrelation_time(returns) > 50


def test_permutation_p_value_is_uniform_under_exchange() -> None:
    """Blocks of one distribution are significant at 5 % in 5 % of cases."""
    rng = np.random.default_rng(0)
    side = np.repeat([False, True], 8)
    called = 0
    for seed in range(300):
        share = rng.uniform(size=(16, 1, 3))
        called += permutation_test(BlockShares(share, side), 199, seed)[1][0] <= 0.05
    assert 5 <= called <= 27


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    """An example computed by hand; NaN is neither counted nor changed."""
    found = adjust_p_values(np.array([0.01, np.nan, 0.04, 0.03]))
    assert found[[0, 2, 3]] == pytest.approx([0.03, 0.04, 0.04])
    assert np.isnan(found[1])


def test_thin_keeps_the_last_row_of_each_step() -> None:
    """Rows are thinned evenly in time, for each product."""
    time = np.repeat(np.arange(1000, dtype=np.int64) * SECOND, 3)
    product = np.tile(np.array([0, 0, 1], np.int32), 1000)
    kept = thin(time, product, most=100)
    assert 190 <= len(kept) <= 210
    assert np.all(np.diff(kept) > 0)
    assert not np.any(kept % 3 == 0)  # the first of two rows of one product in one second


@pytest.mark.parametrize(
    ("p_value", "severity"), [(0.0501, LOW), (0.05, MEDIUM), (0.0101, MEDIUM), (0.01, HIGH), (0.0, HIGH), (nan, LOW)]
)
def test_severity_of_a_feature(p_value: float, severity: DriftSeverity) -> None:
    """Low above 0.05, high up to 0.01; a feature without a test has not drifted."""
    assert feature_severity(p_value) is severity


@pytest.mark.parametrize(("share", "severity"), [(0.0, LOW), (0.5, LOW), (0.51, MEDIUM), (0.75, MEDIUM), (0.76, HIGH)])
def test_severity_of_a_data_set(share: float, severity: DriftSeverity) -> None:
    """Medium above one half of the features, high above three quarters."""
    assert dataset_severity(share) is severity


def test_share_counts_medium_and_high() -> None:
    """Features of medium and high severity have drifted; without features the share is 0."""
    assert drifted_share([LOW, MEDIUM, HIGH, LOW]) == 0.5
    assert drifted_share([]) == 0.0
