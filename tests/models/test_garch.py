"""GARCH(1,1): forecasts and estimates equal those of the ``arch`` package.

The reference numbers are from arch 8.0.0 (``arch_model(returns, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)``)
on the series that each test generates.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.models.samples import chosen, fitted, full_sample
from volspike.models.detector import Sample, TrainingRows, training_rows
from volspike.models.garch import GarchForecast, recent_weight

HALF_LIVES = (10, 30, 60, 300)


def weighted_squares(returns: NDArray[np.float64], half_life: int) -> NDArray[np.float64]:
    """(1 − β) Σ β^j r² up to each second, starting from 1."""
    beta, mean = 2.0 ** (-1.0 / half_life), 1.0
    means = np.empty(len(returns))
    for second, squared in enumerate((returns**2).tolist()):
        mean = beta * mean + (1.0 - beta) * squared
        means[second] = mean
    return means


def rows_of(names: tuple[str, ...], x: NDArray[np.float64], volatility: NDArray[np.float64]) -> TrainingRows:
    tau = np.full(len(x), float(np.median(volatility)))
    y = (volatility >= tau).astype(np.int8)
    return training_rows(Sample(names, x, y, volatility, tau, np.ones(len(x))))


@pytest.mark.parametrize(("second", "reference"), [(2499, 0.3776434866461208), (3999, 0.9924113878248146)])
def test_mean_variance_over_the_horizon_is_that_of_arch(second: int, reference: float) -> None:
    """With α 0.008, a half-life of 60 s and an unconditional variance of 0.5, arch's mean of 60 steps is the same."""
    k = np.arange(4000)
    returns = (1 + 0.8 * np.sin(k / 150)) * np.sin(k * k * 0.7)
    recent = weighted_squares(returns, 60)[second]
    weight = recent_weight(0.008, 2.0 ** (-1 / 60))
    forecast = GarchForecast(0, 0.5, weight)(np.array([[np.sqrt(recent)]], np.float32))
    assert float(np.exp(2 * forecast[0])) == pytest.approx(reference, rel=1e-5)


def test_estimates_are_close_to_those_of_arch() -> None:
    """On 60 000 s of a GARCH(1,1) with a half-life of 30 s, half-life and weight are those of arch's estimates.

    Its α of 0.020448 and β of 0.976768 (standard errors 0.0009 and 0.0011) are a half-life of 29.5 s.
    """
    normal = np.random.default_rng(7).standard_normal(60_000)
    alpha, beta, variance = 0.02, 2.0 ** (-1 / 30), 1.0
    returns = np.empty(len(normal))
    for second, shock in enumerate(normal.tolist()):
        returns[second] = np.sqrt(variance) * shock
        variance = 1.0 - alpha - beta + alpha * returns[second] ** 2 + beta * variance
    now = np.arange(2000, len(returns) - 61, 5)
    volatility = np.lib.stride_tricks.sliding_window_view(returns, 60).std(axis=1)[now + 1]
    x = np.column_stack([np.sqrt(weighted_squares(returns, half_life))[now] for half_life in HALF_LIVES])
    found = GarchForecast.fit(rows_of(tuple(f"ewma_volatility_{h}s" for h in HALF_LIVES), x, volatility))
    assert HALF_LIVES[found.column] == 30
    assert found.weight == pytest.approx(recent_weight(0.0204478, 0.9767683), abs=0.02)
    assert found.variance == pytest.approx(float(np.mean(volatility**2)))


def test_weight_is_one_for_an_integrated_process() -> None:
    """As persistence approaches 1, the forecast becomes the exponentially weighted mean; without α it is constant."""
    assert recent_weight(0.05, 0.95 - 1e-9) == pytest.approx(1.0, abs=1e-5)
    assert recent_weight(0.0, 0.9) == 0.0


def test_calm_rows_revert_to_the_mean() -> None:
    """A forecast lies between the recent volatility and that of the training rows."""
    sample = chosen("garch", full_sample(1500, 4))
    rows = training_rows(sample)
    found = GarchForecast.fit(rows)
    forecast, recent = np.exp(found(rows.x)), rows.x[:, found.column].astype(np.float64)
    low, high = np.minimum(recent, np.sqrt(found.variance)), np.maximum(recent, np.sqrt(found.variance))
    assert 0.0 < found.weight <= 1.0
    assert (forecast >= low).all()
    assert (forecast <= high + 2e-6).all()
    probability = fitted("garch", sample).probability(sample.x)
    assert np.all(np.diff(probability[np.argsort(recent)]) >= 0)
