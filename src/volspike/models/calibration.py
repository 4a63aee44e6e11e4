"""Calibrations: functions from a model's probabilities to those observed in a later block of rows.

None changes the order of two probabilities, so ranking figures stay the same; NaN stays NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from volspike.models.onnx import GraphBuilder, LogisticCurve, append_calibration

# The largest float32 below 1, in which probabilities arrive, is 6e-8 away from it.
_LEAST: Final = 1e-12
_MOST: Final = 1.0 - 1e-8

IDENTITY: Final = np.array([1.0, 0.0])
PRIOR_DEVIATION: Final = 0.3
"""Prior standard deviation of Platt's slope and intercept around the identity: a factor of 1.35 of the odds."""

_LEAST_SLOPE: Final = 0.05

MOST_KNOTS: Final = 50
TILT: Final = 1e-3
"""The share of the identity in an isotonic calibration, whose flat parts would otherwise create ties."""


class Calibration(Protocol):
    """A rising function from probability to probability, fitted to outcomes."""

    @classmethod
    def fit(
        cls, probability: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64] | None = None
    ) -> Self:
        """Learns from the probabilities (n,) of rows that the model was not fitted to, and their outcomes (n,)."""
        ...

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated probabilities."""
        ...

    def append_to(self, model: ModelProto) -> ModelProto:
        """A copy of the served graph ``model`` with the calibration at its end."""
        ...


@dataclass(frozen=True, slots=True)
class Uncalibrated:
    """The identity."""

    @classmethod
    def fit(
        cls,
        probability: NDArray[np.float64],  # noqa: ARG003
        y: NDArray[np.int8],  # noqa: ARG003
        weight: NDArray[np.float64] | None = None,  # noqa: ARG003
    ) -> Self:
        """Learns nothing."""
        return cls()

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same probabilities."""
        return probability

    def append_to(self, model: ModelProto) -> ModelProto:
        """The same graph."""
        return model


@dataclass(frozen=True, slots=True)
class Platt:
    """A logistic curve over the log odds: Platt, "Probabilistic Outputs for Support Vector Machines" (1999).

    Slope and intercept have a normal prior around 1 and 0, the identity: the newest hours before a cut are one market
    regime, whose share of spikes is not that of the next day. With weights, a weight of 1 is one independent
    observation.
    """

    curve: LogisticCurve

    @classmethod
    def fit(
        cls, probability: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64] | None = None
    ) -> Self:
        """The curve of greatest posterior density; rows of NaN are ignored."""
        known, y, weight = _known(probability, y, weight)
        return cls(_fit_with_prior(_log_odds(known), y, weight))

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated probabilities."""
        return self.curve(_log_odds(probability))

    def append_to(self, model: ModelProto) -> ModelProto:
        """The graph with scaled and shifted log odds at its end."""
        return append_calibration(model, self._add_to)

    def _add_to(self, graph: GraphBuilder, probability: str) -> str:
        within = graph.add("Clip", graph.to_double(probability), np.float64(_LEAST), np.float64(_MOST))
        odds = graph.add("Div", within, graph.add("Sub", np.float64(1.0), within))
        scaled = graph.add("Mul", graph.add("Log", odds), np.float64(self.curve.slope))
        return graph.add("Sigmoid", graph.add("Add", scaled, np.float64(self.curve.intercept)))


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic:
    """The rising step function that fits best, interpolated linearly between at most fifty ``knots`` from 0 to 1.

    Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates" (2002).
    ``levels`` are the calibrated probabilities of the knots, each above the one before it.
    """

    knots: NDArray[np.float64]
    levels: NDArray[np.float64]

    @classmethod
    def fit(
        cls, probability: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64] | None = None
    ) -> Self:
        """Pools adjacent violators; no level reaches 0 or 1, which no number of rows can prove."""
        known, y, weight = _known(probability, y, weight)
        edge = 1.0 / (len(known) + 2)
        steps = IsotonicRegression(y_min=edge, y_max=1.0 - edge, out_of_bounds="clip")
        steps.fit(known, y, sample_weight=weight)
        knots = _select_knots(np.asarray(steps.X_thresholds_, np.float64))
        levels = np.maximum.accumulate(np.asarray(steps.predict(knots), np.float64))
        return cls(knots, (1.0 - TILT) * levels + TILT * knots)

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated probabilities."""
        return np.where(np.isnan(probability), np.nan, np.interp(probability, self.knots, self.levels))

    def append_to(self, model: ModelProto) -> ModelProto:
        """The graph with the interpolation at its end: the share of each interval below the probability."""
        return append_calibration(model, self._add_to)

    def _add_to(self, graph: GraphBuilder, probability: str) -> str:
        column = graph.add("Unsqueeze", graph.to_double(probability), np.array([1]))
        passed = graph.add("Div", graph.add("Sub", column, self.knots[:-1]), np.diff(self.knots))
        shares = graph.add("Clip", passed, np.float64(0.0), np.float64(1.0))
        return graph.add("Add", graph.add("MatMul", shares, np.diff(self.levels)), self.levels[:1])


CALIBRATIONS: Final[Mapping[str, type[Calibration]]] = {"none": Uncalibrated, "platt": Platt, "isotonic": Isotonic}
"""By the names that the command line uses."""


def _known(
    probability: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
    known = np.isfinite(probability)
    return probability[known], y[known], np.ones(int(known.sum())) if weight is None else weight[known]


def _fit_with_prior(score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> LogisticCurve:
    def loss(curve: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = curve[0] * score + curve[1]
        error = weight * (expit(margin) - y)
        away = (curve - IDENTITY) / PRIOR_DEVIATION
        value = float(weight @ (np.logaddexp(0.0, margin) - y * margin) + 0.5 * away @ away)
        return value, np.array([error @ score, error.sum()]) + away / PRIOR_DEVIATION

    found = minimize(loss, IDENTITY, jac=True, method="L-BFGS-B", bounds=[(_LEAST_SLOPE, None), (None, None)])
    return LogisticCurve(float(found.x[0]), float(found.x[1]))


def _log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    odds: NDArray[np.float64] = logit(np.clip(probability, _LEAST, _MOST))
    return odds


def _select_knots(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """0, 1 and at most 48 ends of steps, evenly selected."""
    kept = ends[np.unique(np.linspace(0, len(ends) - 1, MOST_KNOTS - 2).round().astype(int))]
    return np.unique(np.concatenate([[0.0], kept, [1.0]]))
