"""Forecasts of volatility itself, which ``lightgbm`` and ``lstm`` start from and a curve turns into a probability.

Whether a minute reaches τ depends on the level of the market, and that level shifts from day to day. A model that
learns spike or no spike learns the level of its training days with it; one that learns the logarithm of volatility
learns how the next minute compares with those before it, and τ comes in afterwards.

Days of training are few, and what they say of the way back to a mean holds for their own level more than for that of
the next day. So the linear part is shrunk towards what needs no days at all: the next minute is as the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from volspike.labels import HORIZON_S
from volspike.models.detector import plain_volatilities
from volspike.models.linear import Standard
from volspike.models.onnx import Curve, Nodes

STILL_SHARE: Final = 0.05
"""Of τ: what is added to volatility before its logarithm is taken. A still minute and a nearly still one are alike."""

LEVELS: Final = ("ewma_volatility_60s", "realized_volatility_60s")
"""What the last minute's volatility is taken from, the first that is there; else the first volatility of all."""

PRIOR_MINUTES: Final = 200.0
"""How many minutes that say nothing but "as the last one" the training rows are joined by. Labels that overlap tell of
one minute together, so that rows count by minutes; half an hour of them, or a day, change little."""

LOGISTIC_SLOPE: Final = 1.702
"""The logistic curve of this slope is nowhere further than 0.01 from the normal distribution function: Camilli,
"Origin of the Scaling Constant d = 1.7 in Item Response Theory" (1994)."""

_LEAST_ERROR: Final = 0.05
_MOSTLY_FILLED: Final = 0.99


def log_target(volatility: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    """ln((volatility + 0.05 τ) / τ): near 0 where volatility is near τ, never below −3."""
    target: NDArray[np.float64] = np.log(volatility / tau + STILL_SHARE)
    return target


def reaching(error: NDArray[np.float64], weight: NDArray[np.float64]) -> Curve:
    """The probability that volatility reaches τ, given a forecast of ``log_target`` with normal errors.

    ``error`` (n,) is what forecasts of rows that the forecaster had not seen were wrong by. That the curve crosses one
    half where the forecast is τ is known beforehand; a curve fitted to outcomes would learn how many spikes its own
    days had.
    """
    deviation = max(_LEAST_ERROR, float(np.sqrt(np.average(error**2, weights=weight))))
    slope = LOGISTIC_SLOPE / deviation
    return Curve(slope, -slope * float(np.log1p(STILL_SHARE)))


def filled_volatilities(x: NDArray[np.float32], names: Sequence[str]) -> tuple[str, ...]:
    """Those of the volatilities in ``names`` that hold nearly as many values as the one that holds most.

    At the start of a session all of them are missing together, which says nothing against any of them; one that goes
    on missing when the others do not would take every such row with it.
    """
    offered = plain_volatilities(names)
    counts = np.array([np.isfinite(x[:, names.index(name)]).sum() for name in offered])
    return tuple(name for name, count in zip(offered, counts, strict=True) if count >= _MOSTLY_FILLED * counts.max())


@dataclass(frozen=True, slots=True, eq=False)
class LinearForecast:
    """The logarithm of volatility over τ as a weighted sum of the logarithms of volatilities past.

    Corsi's HAR (2009) with exponentially weighted volatilities beside the realized ones. The weights of the logarithms
    sum to 1, so that a market twice as wild is forecast to stay twice as wild, and an L2 penalty draws all but that of
    the last minute to 0. Without any volatility it is the mean.
    """

    standard: Standard
    coefficients: NDArray[np.float64]
    intercept: float

    @classmethod
    def fit(
        cls,
        x: NDArray[np.float32],
        names: Sequence[str],
        chosen: Sequence[str],
        target: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> Self:
        """Ridge regression on the ``chosen`` columns of rows ``x``, which are complete in these."""
        standard = Standard.fit(x, names, weight, chosen=chosen)
        if not chosen:
            return cls(standard, np.zeros(0), float(np.average(target, weights=weight)))
        logarithm = standard.apply(x) * standard.deviation + standard.mean
        level = logarithm[:, [_level(chosen)]]
        slope, constant = _ridge(logarithm - level, target - level[:, 0], weight)
        slope[_level(chosen)] += 1.0 - slope.sum()
        return cls(standard, slope * standard.deviation, constant + float(slope @ standard.mean))

    @property
    def needed(self) -> list[int]:
        """The columns without which a row cannot be scored."""
        columns: list[int] = self.standard.columns.tolist()
        return columns

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The forecast for each row of ``x`` (n, f)."""
        forecast: NDArray[np.float64] = self.standard.apply(x) @ self.coefficients + self.intercept
        return forecast

    def to_nodes(self, nodes: Nodes) -> str:
        """Adds the forecast: float64 [N], or [1] where it is the mean."""
        return self.standard.weighted_sum(nodes, self.coefficients, self.intercept)


def _level(chosen: Sequence[str]) -> int:
    """Which of the chosen volatilities is the last minute's."""
    return next((chosen.index(name) for name in LEVELS if name in chosen), 0)


def _ridge(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Slopes and constant; the penalty is on slopes per standard deviation of a column."""
    mean = np.average(x, axis=0, weights=weight)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    deviation[deviation == 0.0] = 1.0
    fitted = Ridge(alpha=PRIOR_MINUTES).fit((x - mean) / deviation, y, sample_weight=weight / HORIZON_S)
    slope = np.asarray(fitted.coef_, np.float64) / deviation
    return slope, float(fitted.intercept_) - float(slope @ mean)
