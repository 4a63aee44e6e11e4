"""``VolatilityCurve``: a logistic curve over the logarithm of a forecast volatility relative to τ.

Persistence, exponentially weighted volatilities, HAR and GARCH are such forecasts; they differ in the ``LogForecast``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from volspike.labels import TAU
from volspike.models.detector import VOLATILITY_OFFSET, TrainingRows, as_shares
from volspike.models.onnx import GraphBuilder, LogisticCurve

_AXIS: Final = np.array([1])


class LogForecast(Protocol):
    """A forecast of ln(volatility + ``VOLATILITY_OFFSET``) over the horizon."""

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The forecast for each row of ``x`` (n, f)."""
        ...

    def weights(self, width: int) -> NDArray[np.float64]:
        """(width,) how much each column of a row contributes; none is negative."""
        ...

    def add_to(self, graph: GraphBuilder) -> str:
        """Adds the forecast to a graph: float64 [N]."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class WeightedLogarithms:
    """The sum of the logarithms of volatilities, times their weights, plus a constant.

    ``columns`` (k,) are their positions in a row; ``shares`` (k,) are the weights, none negative, with sum 1.
    """

    columns: NDArray[np.int64]
    shares: NDArray[np.float64]
    constant: float = 0.0

    @classmethod
    def single(cls, column: int) -> Self:
        """The logarithm of one volatility."""
        return cls(np.array([column]), np.ones(1))

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The forecast for each row of ``x`` (n, f)."""
        forecast: NDArray[np.float64] = log_volatility(x[:, self.columns]) @ self.shares + self.constant
        return forecast

    def weights(self, width: int) -> NDArray[np.float64]:
        """(width,) the share of each column."""
        weights = np.zeros(width)
        weights[self.columns] = self.shares
        return weights

    def add_to(self, graph: GraphBuilder) -> str:
        """Adds the forecast to a graph: float64 [N]."""
        logarithms = add_logarithm(graph, add_volatility(graph, self.columns))
        return graph.add("Add", graph.add("MatMul", logarithms, self.shares), np.array([self.constant]))


@dataclass(frozen=True, slots=True)
class VolatilityCurve:
    """A logistic curve over a forecast, less the logarithm of τ if that differs from row to row.

    ``tau`` is its position in a row of ``width`` values; ``log_loss`` is that of the training rows.
    """

    forecast: LogForecast
    tau: int | None
    width: int
    curve: LogisticCurve
    log_loss: float

    @classmethod
    def fit(cls, rows: TrainingRows, forecast: LogForecast) -> Self:
        """The curve that fits complete rows best."""
        tau = rows.names.index(TAU) if TAU in rows.names else None
        score = _log_ratio(rows.x, forecast, tau)
        curve = LogisticCurve.fit(score, rows.y, rows.weight)
        return cls(forecast, tau, rows.x.shape[1], curve, curve.log_loss(score, rows.y, rows.weight))

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The curve at the forecast of each row, relative to τ."""
        return self.curve(_log_ratio(x, self.forecast, self.tau))

    def importance(self) -> NDArray[np.float64]:
        """The shares of the forecast; 0 for τ."""
        return as_shares(self.forecast.weights(self.width))

    def to_onnx(self) -> ModelProto:
        """The forecast and the curve as one graph."""
        graph = GraphBuilder(self.width)
        score = self.forecast.add_to(graph)
        if self.tau is not None:
            tau = add_logarithm(graph, add_volatility(graph, np.array([self.tau])))
            score = graph.add("Sub", score, graph.add("Squeeze", tau, _AXIS))
        return graph.finish_curve(score, self.curve)


def _log_ratio(x: NDArray[np.float32], forecast: LogForecast, tau: int | None) -> NDArray[np.float64]:
    score = forecast(x)
    return score if tau is None else score - log_volatility(x[:, tau])


def log_volatility(volatility: NDArray[np.float32] | NDArray[np.float64]) -> NDArray[np.float64]:
    """ln(volatility + ``VOLATILITY_OFFSET``); below 0 counts as 0."""
    logarithm: NDArray[np.float64] = np.log(np.maximum(volatility.astype(np.float64), 0.0) + VOLATILITY_OFFSET)
    return logarithm


def add_volatility(graph: GraphBuilder, columns: NDArray[np.int64]) -> str:
    """Adds the selection of volatilities, at least 0: float64 [N, number of columns]."""
    return graph.add("Max", graph.to_double(graph.select(columns)), np.array([0.0]))


def add_logarithm(graph: GraphBuilder, volatility: str) -> str:
    """Adds ln(volatility + ``VOLATILITY_OFFSET``) of an output of the graph."""
    return graph.add("Log", graph.add("Add", volatility, np.array([VOLATILITY_OFFSET])))


def with_tau(wanted: Sequence[str], offered: Sequence[str]) -> tuple[str, ...]:
    """The ``wanted`` columns that are offered, and τ if it is; () if none of the wanted ones is."""
    found = tuple(name for name in offered if name in wanted)
    return (*found, TAU) if found and TAU in offered else found
