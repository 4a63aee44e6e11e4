"""QLIKE and R² of forecasts of volatility."""

from __future__ import annotations

from math import isnan, log

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import r2_score

from tests.evaluation.markets import SECOND, autoregressive
from volspike.evaluation import ForecastComparison, compare_forecasts
from volspike.evaluation.bootstrap import Draws
from volspike.evaluation.forecast_metrics import qlike_losses, r_squared

Floats = NDArray[np.float64]


def series(n: int = 20_000, seed: int = 0) -> tuple[Floats, Floats, Floats]:
    """Realized volatility, a forecast that knows more and one that knows less."""
    random = np.random.default_rng(seed)
    level, noise = autoregressive(random, n, 200.0), random.normal(size=n)
    volatility = 1e-4 * np.exp(0.5 * level + 0.2 * noise)
    return volatility, 1e-4 * np.exp(0.5 * level), 1e-4 * np.exp(0.2 * level)


def compared(volatility: Floats, model: Floats, baseline: Floats, resamples: int = 100) -> ForecastComparison:
    time = np.arange(len(volatility), dtype=np.int64) * SECOND
    return compare_forecasts(volatility, model, baseline, Draws.of(time, 600, resamples))


def test_qlike_by_hand() -> None:
    """0 for the truth; 1/4 + ln 4 − 1 for twice the volatility, 4 − ln 4 − 1 for half of it."""
    found = qlike_losses(np.full(3, 2e-4), np.array([2e-4, 4e-4, 1e-4]))
    assert found.tolist() == pytest.approx([0.0, 0.25 + log(4) - 1.0, 4.0 - log(4) - 1.0])


def test_qlike_is_least_at_the_root_of_the_expected_variance() -> None:
    """Of constant forecasts of a noisy volatility the root mean square is best, as Patton (2011) derives."""
    volatility = 1e-4 * np.exp(np.random.default_rng(0).normal(size=5000))
    best = float(np.sqrt(np.mean(volatility**2)))
    losses = [qlike_losses(volatility, np.full(5000, best * factor)).mean() for factor in (0.9, 0.99, 1.0, 1.01, 1.1)]
    assert min(losses) == losses[2]


def test_r_squared_is_that_of_the_logarithm() -> None:
    """The same as scikit-learn's; 0 for the mean, NaN where nothing varies."""
    volatility, model, _ = series(1000)
    assert r_squared(np.log(volatility), np.log(model)) == pytest.approx(r2_score(np.log(volatility), np.log(model)))
    assert r_squared(np.log(volatility), np.full(1000, np.log(volatility).mean())) == pytest.approx(0.0)
    assert isnan(r_squared(np.zeros(5), np.ones(5)))


def test_a_better_forecast_is_shown_to_be_better() -> None:
    """Its R² is higher and its QLIKE lower, with intervals of the difference that exclude 0."""
    volatility, model, baseline = series()
    found = compared(volatility, model, baseline)
    assert found.rows == len(volatility)
    assert found.qlike.model == pytest.approx(qlike_losses(volatility, model).mean())
    assert found.r_squared.baseline == pytest.approx(r2_score(np.log(volatility), np.log(baseline)))
    assert found.qlike.gain_interval.high < 0.0 < found.r_squared.gain_interval.low
    for figure in (found.qlike, found.r_squared):
        assert figure.model_interval.low < figure.model < figure.model_interval.high
        assert figure.gain_interval.low < figure.gain < figure.gain_interval.high


def test_resamples_equal_figures_of_the_drawn_rows() -> None:
    """The interval of R² is that of the figure computed again on the rows of each resample."""
    volatility, model, baseline = series(5000)
    draws = Draws.of(np.arange(5000, dtype=np.int64) * SECOND, 600, 40)
    expected = []
    for resample in range(40):
        drawn = np.repeat(np.arange(5000), draws.weight(resample))
        expected.append(r2_score(np.log(volatility[drawn]), np.log(model[drawn])))
    found = compare_forecasts(volatility, model, baseline, draws).r_squared.model_interval
    assert [found.low, found.high] == pytest.approx(np.quantile(expected, [0.025, 0.975]).tolist())


def test_minutes_without_a_change_are_left_out() -> None:
    """A volatility or forecast of 0, or an unknown one, has no logarithm; its row counts for neither forecast."""
    volatility, model, baseline = series(3000)
    kept = compared(volatility[100:], model[100:], baseline[100:]).figures()
    volatility[:50], model[50:80], baseline[80:100] = 0.0, np.nan, 0.0
    found = compared(volatility, model, baseline)
    assert found.rows == 2900
    assert found.figures()["qlike_model"] == pytest.approx(kept["qlike_model"])
    nothing = compared(np.zeros(10), np.ones(10), np.ones(10))
    assert (nothing.rows, nothing.figures()["r_squared_model"], nothing.figures()["qlike_gain"]) == (0, None, None)


def test_scale_does_not_matter() -> None:
    """Volatility in another unit gives the same figures."""
    volatility, model, baseline = series(5000)
    first = compared(volatility, model, baseline).figures()
    assert compared(1e4 * volatility, 1e4 * model, 1e4 * baseline).figures() == pytest.approx(first)
