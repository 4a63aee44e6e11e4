"""The linear forecast starts from the last minute, and its errors say how sure a probability may be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import norm

from volspike.models.forecast import LinearForecast, curve_from_errors, log_target

NAMES = ("realized_volatility_300s", "ewma_volatility_60s", "realized_volatility_60s")


def volatilities(rows: int, seed: int) -> NDArray[np.float32]:
    """Three volatilities that move together around 1e-3."""
    random = np.random.default_rng(seed)
    together = random.normal(-7.0, 0.7, (rows, 1))
    return np.exp(together + random.normal(0.0, 0.3, (rows, 3))).astype(np.float32)


def forecast_of(x: NDArray[np.float32], volatility: NDArray[np.float64]) -> LinearForecast:
    return LinearForecast.fit(x, NAMES, NAMES, log_target(volatility, np.full(len(x), 1e-3)), np.ones(len(x)))


def test_a_market_three_times_as_wild_stays_so() -> None:
    """Volatilities times three raise the forecast by ln 3, whatever was learned."""
    x = volatilities(5000, 1)
    forecast = forecast_of(x, np.sqrt(x[:, 0].astype(np.float64) * x[:, 1]))
    louder = forecast(3.0 * x) - forecast(x)
    np.testing.assert_allclose(louder, np.log(3.0), atol=0.02)


def test_few_rows_leave_it_at_the_last_minute() -> None:
    """An hour is no evidence against persistence; two weeks show that the longer window predicts better."""
    for rows, share in ((3600, (0.5, 1.0)), (1_200_000, (0.0, 0.2))):
        x = volatilities(rows, 2)
        forecast = forecast_of(x, x[:, 0].astype(np.float64))
        slopes = forecast.coefficients / forecast.standard.deviation
        assert slopes.sum() == pytest.approx(1.0)
        assert share[0] < slopes[1] < share[1]


def test_without_a_volatility_it_is_the_mean() -> None:
    """Nothing chosen: every row is forecast the weighted mean of the target."""
    x = volatilities(100, 3)
    target = np.linspace(-1.0, 1.0, 100)
    forecast = LinearForecast.fit(x, NAMES, (), target, np.arange(100.0))
    np.testing.assert_allclose(forecast(x), np.average(target, weights=np.arange(100.0)))


def test_the_probability_is_that_of_normal_errors() -> None:
    """The curve is within 0.01 of the chance that forecast and a normal error together reach τ, one half at τ."""
    random = np.random.default_rng(4)
    curve = curve_from_errors(random.normal(0.0, 0.4, 200_000), np.ones(200_000))
    score = np.linspace(-3.0, 3.0, 200)
    at_tau = float(log_target(np.array([1e-3]), np.array([1e-3]))[0])
    np.testing.assert_allclose(curve(score), norm.cdf((score - at_tau) / 0.4), atol=0.011)
    assert curve(np.array([at_tau]))[0] == pytest.approx(0.5)


def test_errors_of_nothing_are_not_believed() -> None:
    """Where every forecast was right the curve is steep, and still a curve."""
    assert 10.0 < curve_from_errors(np.zeros(100), np.ones(100)).slope < 100.0
