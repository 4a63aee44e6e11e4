"""``Garch``: the mean variance over the horizon according to a GARCH(1,1) of one-second returns."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from volspike.labels import HORIZON_S
from volspike.models.detector import VOLATILITY_OFFSET, Detector, TrainingRows
from volspike.models.onnx import GraphBuilder
from volspike.models.volatility_curve import VolatilityCurve, add_logarithm, add_volatility, log_volatility, with_tau

_EWMA: Final = re.compile(r"ewma_volatility_(\d+)s")


class Garch(Detector):
    """GARCH(1,1) of one-second returns with mean zero, and a logistic curve over its forecast relative to τ.

    Bollerslev, "Generalized Autoregressive Conditional Heteroskedasticity" (1986), with variance targeting (Engle and
    Mezrich, "GARCH for groups", 1996). With σ²(k+1) = ω + α r(k)² + β σ²(k), unconditional variance s² = ω / (1 − φ)
    and persistence φ = α + β, the mean variance of the next H seconds is

        (1 − w) s² + w E[r²],   w = α / (1 − β) · (1 − φ^H) / (H (1 − φ)),

    where E[r²] = (1 − β) Σ β^j r(k−j)² is exponentially weighted with half-life ln 2 / −ln β. Rows have that mean at a
    few half-lives, so β is one of those; s² is the mean of the training rows; α, by way of w, maximizes the Gaussian
    quasi-likelihood of the variance over the horizon, ln F + v²/F (Patton, "Volatility forecast comparison using
    imperfect volatility proxies", 2011). So it is fitted to the horizon that it forecasts, not second by second, and β
    is no finer than the half-lives.
    """

    name: ClassVar[str] = "garch"
    is_baseline: ClassVar[bool] = True
    requirement: ClassVar[str] = "a column ewma_volatility_*s"

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The exponentially weighted volatilities of all half-lives, and τ."""
        return with_tau(tuple(name for name in offered if _EWMA.fullmatch(name)), offered)

    def learn(self, rows: TrainingRows) -> VolatilityCurve:
        """See ``Detector.learn``."""
        return VolatilityCurve.fit(rows, GarchForecast.fit(rows))


@dataclass(frozen=True, slots=True)
class GarchForecast:
    """ln of the root of (1 − ``weight``) times ``variance`` plus ``weight`` times that of a column, squared."""

    column: int
    variance: float
    weight: float

    @classmethod
    def fit(cls, rows: TrainingRows) -> Self:
        """The half-life and the weight with the greatest quasi-likelihood on complete rows."""
        variance = float(np.average(rows.volatility**2, weights=rows.weight))
        columns = [rows.names.index(name) for name in rows.names if _EWMA.fullmatch(name)]
        fits = [_fit_weight(rows, column, variance) for column in columns]
        (weight, _), column = min(zip(fits, columns, strict=True), key=lambda found: found[0][1])
        return cls(column, variance, weight)

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The forecast for each row of ``x`` (n, f)."""
        recent = np.maximum(x[:, self.column].astype(np.float64), 0.0) ** 2
        return log_volatility(np.sqrt((1.0 - self.weight) * self.variance + self.weight * recent))

    def weights(self, width: int) -> NDArray[np.float64]:
        """(width,) 1 for the column, 0 for all others."""
        weights: NDArray[np.float64] = np.eye(width)[self.column]
        return weights

    def add_to(self, graph: GraphBuilder) -> str:
        """Adds the forecast to a graph: float64 [N]."""
        recent = add_volatility(graph, np.array([self.column]))
        weighted = graph.add("Mul", graph.add("Mul", recent, recent), np.array([self.weight]))
        total = graph.add("Add", weighted, np.array([(1.0 - self.weight) * self.variance]))
        return graph.add("Squeeze", add_logarithm(graph, graph.add("Sqrt", total)), np.array([1]))


def recent_weight(alpha: float, beta: float, horizon: int = HORIZON_S) -> float:
    """The weight of the exponentially weighted mean of squared returns in the mean variance of the next ``horizon`` s.

    >>> recent_weight(alpha=0.25, beta=0.5, horizon=1)
    0.5
    """
    persistence = alpha + beta
    return alpha / (1.0 - beta) * (1.0 - persistence**horizon) / (horizon * (1.0 - persistence))


def _fit_weight(rows: TrainingRows, column: int, variance: float) -> tuple[float, float]:
    """The weight in [0, 1] for one half-life, and its loss."""
    share = rows.weight / rows.weight.sum()
    recent, future = rows.x[:, column].astype(np.float64) ** 2, rows.volatility**2

    def loss(weight: float) -> float:
        forecast = (1.0 - weight) * variance + weight * recent + VOLATILITY_OFFSET**2
        return float(share @ (np.log(forecast) + future / forecast))

    found = minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded")
    return float(found.x), float(found.fun)
