"""A linear forecast of log volatility, on which ``lightgbm`` and ``lstm`` build, and its curve to a probability.

Whether a minute reaches τ depends on the level of the market, and that level shifts from day to day. A model that
learns spike or no spike also learns the level of its training days. A model of log volatility learns how the next
minute compares with those before it, and τ is applied afterwards.

Training days are few, and the mean reversion they show holds for their own level more than for that of the next day.
So the linear part is shrunk towards a forecast that needs no training: the next minute is like the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from volspike.labels import HORIZON_S, TAU
from volspike.models.detector import plain_volatilities
from volspike.models.linear import Standardization
from volspike.models.onnx import GraphBuilder, LogisticCurve

TAU_SHARE: Final = 0.05
"""The share of τ that is added to volatility before its logarithm, so that all very calm minutes are alike."""

LEVELS: Final = ("ewma_volatility_60s", "realized_volatility_60s")
"""The volatility that counts as the last minute's: the first available of these, otherwise the first of all."""

PRIOR_MINUTES: Final = 200.0
"""The weight of the prior "as the last minute", in minutes of training rows. Overlapping labels describe one minute
together, so rows count by minutes. Half an hour instead, or a day, changes little."""

LOGISTIC_SLOPE: Final = 1.702
"""The logistic curve of this slope differs nowhere by more than 0.01 from the normal distribution function: Camilli,
"Origin of the Scaling Constant d = 1.7 in Item Response Theory" (1994)."""

_MIN_ERROR: Final = 0.05
_MOSTLY_AVAILABLE: Final = 0.99


def log_target(volatility: NDArray[np.float64], tau: NDArray[np.float64]) -> NDArray[np.float64]:
    """ln((volatility + 0.05 τ) / τ): near 0 where volatility is near τ, never below −3."""
    target: NDArray[np.float64] = np.log(volatility / tau + TAU_SHARE)
    return target


def curve_from_errors(error: NDArray[np.float64], weight: NDArray[np.float64]) -> LogisticCurve:
    """The probability that volatility reaches τ, given a forecast of ``log_target`` with normal errors.

    ``error`` (n,) are the forecast's errors on held-out rows. The probability is one half where the forecast is τ;
    fitting that to outcomes would learn the spike rate of the training days.
    """
    deviation = max(_MIN_ERROR, float(np.sqrt(np.average(error**2, weights=weight))))
    slope = LOGISTIC_SLOPE / deviation
    return LogisticCurve(slope, -slope * float(np.log1p(TAU_SHARE)))


def available_volatilities(x: NDArray[np.float32], names: Sequence[str]) -> tuple[str, ...]:
    """The volatilities in ``names`` that have nearly as many values as the one with the most.

    At the start of a session all of them are missing. One that is missing for longer than the others would exclude
    all those rows.
    """
    offered = plain_volatilities(names)
    counts = np.array([np.isfinite(x[:, names.index(name)]).sum() for name in offered])
    return tuple(name for name, count in zip(offered, counts, strict=True) if count >= _MOSTLY_AVAILABLE * counts.max())


@dataclass(frozen=True, slots=True, eq=False)
class LinearForecast:
    """The logarithm of volatility over τ as a weighted sum of the logarithms of past volatilities.

    Corsi's HAR (2009) with exponentially weighted volatilities next to the realized ones. The weights of the
    logarithms sum to 1, so a market twice as volatile is forecast to stay so, and an L2 penalty shrinks all but that
    of the last minute towards 0. Without any volatility the forecast is the mean.
    """

    standard: Standardization
    coefficients: NDArray[np.float64]
    intercept: float

    @classmethod
    def fit(
        cls,
        x: NDArray[np.float32],
        names: Sequence[str],
        selected: Sequence[str],
        target: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> Self:
        """Ridge regression on the ``selected`` columns of rows ``x``, which are complete in these.

        If τ is a column, its logarithm has the coefficient −1, as the target is relative to it.
        """
        is_scaled = bool(selected) and TAU in names
        standard = Standardization.fit(x, names, weight, selected=[*selected, TAU] if is_scaled else selected)
        if not selected:
            return cls(standard, np.zeros(0), float(np.average(target, weights=weight)))
        logarithm = standard.apply(x) * standard.deviation + standard.mean
        last_minute = next((selected.index(name) for name in LEVELS if name in selected), 0)
        level = logarithm[:, [last_minute]]
        scale = logarithm[:, -1] if is_scaled else 0.0
        past = logarithm[:, : len(selected)]
        slope, constant = _fit_ridge(past - level, target - (level[:, 0] - scale), weight)
        slope[last_minute] += 1.0 - slope.sum()
        slope = np.append(slope, -1.0) if is_scaled else slope
        return cls(standard, slope * standard.deviation, constant + float(slope @ standard.mean))

    @property
    def columns(self) -> list[int]:
        """The positions of its columns in a row."""
        columns: list[int] = self.standard.columns.tolist()
        return columns

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The forecast for each row of ``x`` (n, f)."""
        forecast: NDArray[np.float64] = self.standard.apply(x) @ self.coefficients + self.intercept
        return forecast

    def add_to(self, graph: GraphBuilder) -> str:
        """Adds the forecast to a graph: float64 [N], or [1] if it is the mean."""
        return self.standard.add_weighted_sum(graph, self.coefficients, self.intercept)


def _fit_ridge(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Slopes and constant; the penalty is on slopes per standard deviation of a column."""
    mean = np.average(x, axis=0, weights=weight)
    deviation = np.sqrt(np.average((x - mean) ** 2, axis=0, weights=weight))
    deviation[deviation == 0.0] = 1.0
    fitted = Ridge(alpha=PRIOR_MINUTES).fit((x - mean) / deviation, y, sample_weight=weight / HORIZON_S)
    slope = np.asarray(fitted.coef_, np.float64) / deviation
    return slope, float(fitted.intercept_) - float(slope @ mean)
