"""Drift is found where there is some, and not in a market that is as it always was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ks_2samp
from tests.monitoring.markets import NAMES, SECOND, halves, stochastic_volatility, wandering

from volspike.errors import NotEnoughData
from volspike.monitoring.block_permutation import (
    BlockShares,
    DriftSample,
    discoveries,
    distances,
    integrated_time,
    memory,
    spread_out,
)
from volspike.monitoring.drift import Severity, look_for_drift

PERMUTATIONS = 299


def test_two_halves_of_one_market_are_no_drift() -> None:
    """Of 60 stationary markets with a memory of ten minutes hardly any is called; a naive test calls nearly all."""
    alarms = naive = 0
    for seed in range(60):
        early, late = halves(stochastic_volatility(12, 600.0, seed))
        found = look_for_drift(early, late, permutations=PERMUTATIONS)
        alarms += found.is_drifted
        p_values = [ks_2samp(early.x[:, column], late.x[:, column]).pvalue for column in range(len(NAMES))]
        naive += float(np.mean(np.array(p_values) <= 0.05)) > 0.5
    assert alarms <= 6  # 5 % of 60 is 3; more than 6 has a chance of 4 % at that rate
    assert naive >= 30


def test_market_of_twice_the_volatility_has_drifted() -> None:
    """A real change is found in nearly every market, and named feature by feature."""
    found = [
        look_for_drift(*halves(stochastic_volatility(48, 600.0, seed), scale=2.0), permutations=PERMUTATIONS)
        for seed in range(10)
    ]
    assert sum(one.is_drifted for one in found) >= 8
    worst = {feature.name: feature.severity for feature in found[0].features}
    assert worst["volatility_60s"] is Severity.HIGH


def test_memory_too_long_for_the_samples_is_not_judged() -> None:
    """Where a feature remembers for as long as the samples last, nothing is claimed, and it is said why."""
    early, late = halves(stochastic_volatility(3, 7200.0, 1))
    found = look_for_drift(early, late, permutations=PERMUTATIONS)
    told = {feature.name: feature for feature in found.features}
    assert told["volatility_300s"].adjusted_p is None
    assert "too long" in told["volatility_300s"].note
    assert not told["volatility_300s"].severity.is_drift
    assert found.counts()["none"] == len(NAMES) - found.judged


def test_under_half_judged_tells_nothing_of_the_data_set() -> None:
    """Of a data set most of whose features cannot be judged no severity is given."""
    market = stochastic_volatility(3, 7200.0, 1)
    slow = market.columns(("volatility_60s", "volatility_300s", "spread"))
    found = look_for_drift(*(slow.rows(part) for part in (slow.time < 5400 * SECOND, slow.time >= 5400 * SECOND)))
    assert found.severity is None
    assert not found.is_drifted
    assert any("cannot be told" in note for note in found.notes)


def test_short_sample_is_refused() -> None:
    """Under an hour of market says nothing, and the refusal tells how much it takes."""
    early, late = halves(stochastic_volatility(1.5, 60.0, 0))
    with pytest.raises(NotEnoughData, match="60 of each"):
        look_for_drift(early, late)


def test_scale_of_a_product_is_no_drift() -> None:
    """Two products of very different prices, both as they were, drift no more for standing in one sample."""
    one, two = stochastic_volatility(12, 300.0, 5), stochastic_volatility(12, 300.0, 6)
    both = DriftSample(
        NAMES,
        ("BTC-USD", "ETH-USD"),
        np.repeat(one.time, 2),
        np.tile(np.array([0, 1], np.int32), len(one)),
        np.stack([one.x * 1000.0, two.x], axis=1).reshape(-1, len(NAMES)),
    )
    assert not look_for_drift(*halves(both), permutations=PERMUTATIONS).is_drifted


def test_product_of_one_sample_alone_is_left_out_and_told() -> None:
    """A product without older rows has nothing to be held against."""
    early, late = halves(stochastic_volatility(6, 60.0, 0))
    renamed = replace(
        late, products=("BTC-USD", "ETH-USD"), product=(late.product + np.arange(len(late)) % 2).astype(np.int32)
    )
    found = look_for_drift(early, renamed, permutations=PERMUTATIONS)
    assert any("ETH-USD left out" in note for note in found.notes)
    with pytest.raises(NotEnoughData, match="no product in common"):
        look_for_drift(early, replace(late, products=("SOL-USD",)))


def test_missing_values_are_told() -> None:
    """More holes than before point at the feed: they are named, and compared are the values that there are."""
    early, late = halves(stochastic_volatility(6, 60.0, 0))
    x = late.x.copy()
    x[::2, 4] = np.nan
    found = look_for_drift(early, replace(late, x=x), permutations=PERMUTATIONS)
    assert any("spread" in note and "missing" in note for note in found.notes)
    assert found.features[4].missing_current == pytest.approx(0.5, abs=0.01)


def test_feature_without_values_is_not_judged() -> None:
    """A column that holds nothing, or one number throughout, cannot drift."""
    early, late = halves(stochastic_volatility(6, 60.0, 0))
    parts = []
    for sample in (early, late):
        x = sample.x.copy()
        x[:, 0], x[:, 1] = np.nan, 3.0
        parts.append(replace(sample, x=x))
    found = look_for_drift(*parts, permutations=PERMUTATIONS)
    assert [feature.is_judged for feature in found.features[:3]] == [False, False, True]


def test_memory_of_a_known_series() -> None:
    """An AR(1) of coefficient a remembers for (1 + a) / (1 − a) steps; noise for one."""
    rng = np.random.default_rng(0)
    kept = np.exp(-1.0 / 50.0)
    assert integrated_time(wandering(200_000, 50.0, rng)) == pytest.approx((1 + kept) / (1 - kept), rel=0.1)
    assert integrated_time(rng.normal(size=20_000)) == pytest.approx(1.0, abs=0.1)
    assert integrated_time(np.ones(100)) == 1.0


def test_memory_sees_that_sizes_last() -> None:
    """Returns whose sign is chance and whose size lasts remember for as long as the size does."""
    rng = np.random.default_rng(0)
    returns = np.exp(wandering(50_000, 200.0, rng)) * rng.normal(size=50_000)
    assert integrated_time(returns) < 20
    assert memory(returns) > 50


def test_permutation_p_value_is_uniform_under_exchange() -> None:
    """Blocks that are alike are called at 5 % in 5 % of cases."""
    rng = np.random.default_rng(0)
    side = np.repeat([False, True], 8)
    called = 0
    for seed in range(300):
        share = rng.uniform(size=(16, 1, 3))
        called += distances(BlockShares(share, side), 199, seed)[1][0] <= 0.05
    assert 5 <= called <= 27


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    """The example of their rule by hand; what is NaN is neither counted nor changed."""
    found = discoveries(np.array([0.01, np.nan, 0.04, 0.03]))
    assert found[[0, 2, 3]] == pytest.approx([0.03, 0.04, 0.04])
    assert np.isnan(found[1])


def test_spread_out_keeps_the_last_row_of_each_step() -> None:
    """Rows are thinned evenly in time, product by product."""
    time = np.repeat(np.arange(1000, dtype=np.int64) * SECOND, 3)
    product = np.tile(np.array([0, 0, 1], np.int32), 1000)
    kept = spread_out(time, product, most=100)
    assert 190 <= len(kept) <= 210
    assert np.all(np.diff(kept) > 0)
    assert not np.any(kept % 3 == 0)  # the first of two rows of one product in one second
