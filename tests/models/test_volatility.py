"""Expected volatility: its scale, its band, what it learns from outcomes, and the state of the market."""

from __future__ import annotations

import math

import numpy as np
import pytest

from volspike.features import FeatureSet, Scope
from volspike.models.volatility import (
    BASIS_POINTS,
    CORE_WEIGHTS,
    DEFAULT_BAND,
    LEAST_SECONDS,
    WEIGHTS,
    MarketState,
    VolatilityTracker,
    expected_volatility,
    forecast_inputs,
    forecast_log_volatility,
)

START = 1_700_000_040


def test_the_weights_are_shares_of_columns_of_the_feature_sets() -> None:
    """Non-negative with sum 1, so the forecast scales with the market; a core row has the inputs of the second set."""
    for weights in (WEIGHTS, CORE_WEIGHTS):
        assert sum(weights.values()) == pytest.approx(1.0)
        assert min(weights.values()) >= 0.0
    assert forecast_inputs(FeatureSet(scope=Scope.FULL).names) == WEIGHTS
    assert forecast_inputs(FeatureSet().names) == CORE_WEIGHTS
    assert forecast_inputs(("realized_volatility_60s",)) == {}


@pytest.mark.parametrize("values", [[], [0.0, 1e-4], [math.nan, 1e-4], [-1e-4, 1e-4]])
def test_a_forecast_needs_volatilities_above_zero(values: list[float]) -> None:
    """Without inputs, a price change or a value there is no forecast."""
    assert math.isnan(forecast_log_volatility(values, [0.5] * len(values)))
    assert expected_volatility(math.nan, DEFAULT_BAND, 60) is None


def test_basis_points_are_over_the_horizon() -> None:
    """The volatility of a second times the root of the horizon; a market twice as volatile has twice the figures."""
    one, two = (expected_volatility(math.log(scale * 1e-4), (-0.5, 0.0, 0.5), 400) for scale in (1, 2))
    assert one is not None
    assert two is not None
    assert one.expected_bp == pytest.approx(1e-4 * 20 * BASIS_POINTS)
    assert one.low_bp < one.expected_bp < one.high_bp
    assert two.high_bp == pytest.approx(2 * one.high_bp)


def test_the_band_learns_from_the_errors_of_the_product() -> None:
    """After hours of outcomes with other errors, four in five of the later outcomes lie in the band."""
    random = np.random.default_rng(1)
    tracker, inside = VolatilityTracker(60), []
    for second in range(START, START + 25_000):
        level = math.log(1e-4) + 0.5 * math.sin(second / 900)
        band = tracker.update(second, level)
        assert band is not None
        future = math.exp(level + random.normal(0.7, 0.2))
        tracker.outcome(second, future)
        if second >= START + 20_000:
            scaled = future * math.sqrt(60) * BASIS_POINTS
            inside.append(band.low_bp <= scaled <= band.high_bp)
    assert 0.75 < np.mean(inside) < 0.87


def test_the_state_is_relative_to_the_trailing_day() -> None:
    """Unknown for half an hour; then calm, elevated and high by the product's own distribution."""
    tracker = VolatilityTracker(60)
    states = []
    for second in range(START, START + 2 * LEAST_SECONDS):
        expected = tracker.update(second, math.log(1e-4 * (1 + second % 100)))
        assert expected is not None
        states.append(expected.state)
    assert set(states[:LEAST_SECONDS]) == {None}
    late = states[LEAST_SECONDS + 60 :]
    share = {state: late.count(state) / len(late) for state in MarketState}
    assert share[MarketState.CALM] == pytest.approx(0.75, abs=0.03)
    assert share[MarketState.HIGH] == pytest.approx(0.05, abs=0.02)


def test_later_rows_of_a_second_count_once() -> None:
    """At any tick rate a second is one observation, and the outcomes that never come are forgotten."""
    often, once = VolatilityTracker(60), VolatilityTracker(60)
    for second in range(START, START + 3000):
        for _ in range(3):
            a = often.update(second, math.log(1e-4 * (1 + second % 7)))
        b = once.update(second, math.log(1e-4 * (1 + second % 7)))
        assert a == b
    assert len(often._pending) <= 180
