"""The expected volatility of the horizon with its 10-90 % band, and the state of the market: calm, elevated or high.

The expectation is a HAR forecast (Corsi, "A Simple Approximate Long-Memory Model of Realized Volatility", 2009): a
weighted mean of the logarithms of five past volatilities. The weights are non-negative and sum to one, so the forecast
is the same for a market of any scale. They are the rounded means of the weights that fit eleven recordings of crypto,
currencies, gold and equities best (2013 to 2025). It needs no training, so every model is served with it.

The band comes from the forecast's own errors: ln(volatility / expectation) on the outcomes of the product so far. Until
there are some, it is that of the recordings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from math import exp, isfinite, log, nan, sqrt
from typing import Final, TypedDict

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.labels import DAY_S, HORIZON_S, MINUTE_S

WEIGHTS: Final[Mapping[str, float]] = {
    "ewma_volatility_10s": 0.10,
    "ewma_volatility_60s": 0.35,
    "ewma_volatility_300s": 0.20,
    "realized_volatility_900s": 0.13,
    "realized_volatility_3600s": 0.22,
}
"""The weight of each volatility of the full feature set."""

CORE_WEIGHTS: Final[Mapping[str, float]] = {"realized_volatility_60s": 0.5, "realized_volatility_300s": 0.5}
"""The same for rows of the core set."""

ERRORS: Final = (
    *(-1.04, -0.79, -0.65, -0.55, -0.46, -0.39, -0.32, -0.26, -0.20, -0.12),
    *(-0.07, -0.02, 0.05, 0.11, 0.18, 0.27, 0.36, 0.48, 0.66),
)
"""Quantiles 5 %, 10 %, … 95 % of the error of the logarithm: medians over nine recordings, horizon of 60 s."""

BAND: Final = (0.1, 0.5, 0.9)
ELEVATED, HIGH = 0.75, 0.95
"""Quantiles of the expected volatility of the product's trailing day from which the state is elevated or high."""

LEAST_SECONDS: Final = 1800
"""Seconds of expected volatilities that a state needs."""

PRIOR_OUTCOMES: Final = 1200.0
"""The weight of ``ERRORS`` in seconds of outcomes: twenty minutes."""

BASIS_POINTS: Final = 1e4


class MarketState(StrEnum):
    """The expected volatility relative to that of the product's trailing day."""

    CALM = "calm"
    ELEVATED = "elevated"
    HIGH = "high"


class ExpectedVolatility(msgspec.Struct, frozen=True, gc=False):
    """The expected volatility over the horizon and its 10-90 % band, in basis points.

    It is the standard deviation of the price change over the horizon: that of one-second returns times the root
    of the horizon. ``state`` is None until half an hour of the product is known.
    """

    expected_bp: float
    low_bp: float
    high_bp: float
    state: MarketState | None = None


class VolatilityFields(TypedDict):
    """The expected volatility and its band as fields of a response, None if they are unknown."""

    expected_volatility_bp: float | None
    volatility_low_bp: float | None
    volatility_high_bp: float | None


def volatility_fields(expected: ExpectedVolatility | None) -> VolatilityFields:
    """The expected volatility as fields of a response."""
    if expected is None:
        return {"expected_volatility_bp": None, "volatility_low_bp": None, "volatility_high_bp": None}
    return {
        "expected_volatility_bp": expected.expected_bp,
        "volatility_low_bp": expected.low_bp,
        "volatility_high_bp": expected.high_bp,
    }


def forecast_inputs(names: Sequence[str]) -> dict[str, float]:
    """The weight of each column that the forecast uses, given the columns of a row; {} if it has too few."""
    for weights in (WEIGHTS, CORE_WEIGHTS):
        if set(weights) <= set(names):
            return dict(weights)
    return {}


def forecast_log_volatility(values: Sequence[float], weights: Sequence[float]) -> float:
    """The forecast of ln v from past volatilities and their weights; NaN without any, or unless all are above 0.

    >>> round(exp(forecast_log_volatility([1e-4, 4e-4], [0.5, 0.5])), 6)
    0.0002
    """
    total = 0.0 if values else nan
    for value, weight in zip(values, weights, strict=True):
        if not value > 0.0:
            return nan
        total += weight * log(value)
    return total


def expected_volatility(
    log_volatility: float, errors: Sequence[float], horizon: int, state: MarketState | None = None
) -> ExpectedVolatility | None:
    """The forecast with the 10, 50 and 90 % quantiles of its error; None if it is NaN."""
    if not isfinite(log_volatility):
        return None
    scale = BASIS_POINTS * sqrt(horizon)
    low, middle, high = (scale * exp(log_volatility + error) for error in errors)
    return ExpectedVolatility(middle, low, high, state)


DEFAULT_BAND: Final = (ERRORS[1], ERRORS[9], ERRORS[17])
"""The 10, 50 and 90 % quantiles of ``ERRORS``."""


class _Histogram:
    """Quantiles of a stream of numbers that forgets: a value counts half after ``half_life`` further values."""

    def __init__(self, low: float, high: float, bins: int, half_life: float) -> None:
        self._edges = np.linspace(low, high, bins + 1)
        self._low, self._per_unit = low, bins / (high - low)
        self._counts: NDArray[np.float64] = np.zeros(bins)
        self._growth = 2.0 ** (1.0 / half_life)
        self._increment = 1.0

    def add(self, value: float, weight: float = 1.0) -> None:
        """Counts a value; one beyond the ends counts at the end."""
        place = int((value - self._low) * self._per_unit)
        self._counts[min(max(place, 0), len(self._counts) - 1)] += weight * self._increment
        self._increment *= self._growth
        if self._increment > 1e100:
            self._counts /= self._increment
            self._increment = 1.0

    @property
    def size(self) -> float:
        """The sum of the weights of all values, those long ago counting less."""
        return float(self._counts.sum()) / self._increment

    def quantiles(self, shares: Sequence[float]) -> list[float]:
        """The quantiles, linear within a bin; there must be a value."""
        reached = np.concatenate([[0.0], np.cumsum(self._counts)])
        found: list[float] = np.interp(np.array(shares) * reached[-1], reached, self._edges).tolist()
        return found


class VolatilityTracker:
    """Expected volatilities of one product's rows, which learn from its outcomes.

    Rows and outcomes arrive in time order. Quantiles are computed once a minute, so the work per row is constant.

    Args:
        horizon: in seconds.
    """

    def __init__(self, horizon: int = HORIZON_S) -> None:
        self._horizon = horizon
        self._errors = _Histogram(-6.0, 6.0, 600, DAY_S / 4)
        for error in ERRORS:
            self._errors.add(error, PRIOR_OUTCOMES / len(ERRORS))
        self._levels = _Histogram(-25.0, 0.0, 500, DAY_S / 2)
        self._pending: dict[int, float] = {}
        self._second = self._minute = -1
        self._band: Sequence[float] = DEFAULT_BAND
        self._limits: Sequence[float] = (nan, nan)

    def update(self, second: int, log_volatility: float) -> ExpectedVolatility | None:
        """The forecast of a row in ``second``, given ``forecast_log_volatility``; None if that is NaN."""
        if not isfinite(log_volatility):
            return None
        if second // MINUTE_S != self._minute:
            self._minute = second // MINUTE_S
            self._band = self._errors.quantiles(BAND)
            if self._levels.size >= LEAST_SECONDS:
                self._limits = self._levels.quantiles((ELEVATED, HIGH))
        if second != self._second:
            self._second = second
            self._levels.add(log_volatility)
            self._pending[second] = log_volatility
            if len(self._pending) > 2 * self._horizon + MINUTE_S:
                del self._pending[next(iter(self._pending))]
        return expected_volatility(log_volatility, self._band, self._horizon, self._state(log_volatility))

    def outcome(self, second: int, future_volatility: float) -> None:
        """Learns from the outcome of a second; one without a forecast, or without a price change, is ignored."""
        forecast = self._pending.pop(second, nan)
        if isfinite(forecast) and future_volatility > 0.0:
            self._errors.add(log(future_volatility) - forecast)

    def _state(self, log_volatility: float) -> MarketState | None:
        elevated, high = self._limits
        if not isfinite(elevated):
            return None
        if log_volatility >= high:
            return MarketState.HIGH
        return MarketState.ELEVATED if log_volatility >= elevated else MarketState.CALM
