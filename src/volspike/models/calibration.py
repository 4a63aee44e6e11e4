"""Calibrations: what turns a model's probabilities into those that came true in a later block of rows.

None changes the order of two probabilities, so that ranking figures stay what they were; NaN stays NaN.
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

# Probabilities come in float32, whose largest below 1 is 6e-8 away from it.
_LEAST: Final = 1e-12
_MOST: Final = 1.0 - 1e-8

IDENTITY: Final = np.array([1.0, 0.0])
PRIOR_DEVIATION: Final = 0.3
"""Of Platt's slope and intercept around the identity: a factor of 1.35 of the odds, before any row is seen."""

_LEAST_SLOPE: Final = 0.05

MOST_KNOTS: Final = 50
TILT: Final = 1e-3
"""How much of an isotonic calibration is the identity: its flat parts would make ties of what was ranked."""


class Calibration(Protocol):
    """A rising function from probability to probability, fitted to what happened."""

    @classmethod
    def fit(
        cls, probability: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64] | None = None
    ) -> Self:
        """Learn from probabilities (n,) of rows that the model was not fitted to, and their outcomes (n,)."""
        ...

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated probabilities."""
        ...

    def append_to(self, model: ModelProto) -> ModelProto:
        """The served graph ``model`` with the calibration at its end; ``model`` stays as it is."""
        ...


@dataclass(frozen=True, slots=True)
class Uncalibrated:
    """Leaves probabilities as they are."""

    @classmethod
    def fit(
        cls,
        probability: NDArray[np.float64],  # noqa: ARG003
        y: NDArray[np.int8],  # noqa: ARG003
        weight: NDArray[np.float64] | None = None,  # noqa: ARG003
    ) -> Self:
        """Nothing to learn."""
        return cls()

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same."""
        return probability

    def append_to(self, model: ModelProto) -> ModelProto:
        """The same."""
        return model


@dataclass(frozen=True, slots=True)
class Platt:
    """A logistic curve over the log odds: Platt, "Probabilistic Outputs for Support Vector Machines" (1999).

    Slope and intercept have a normal prior around 1 and 0, which leave probabilities as they are: the newest hours
    before a cut are one stretch of one market, and its share of spikes is not that of the next day. Where rows are
    weighted, a weight of 1 is one independent observation.
    """

    curve: LogisticCurve

    @classmethod
    def fit(
        cls, probability: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64] | None = None
    ) -> Self:
        """The curve of greatest posterior density; rows of NaN are left out."""
        known, y, weight = _known(probability, y, weight)
        return cls(_most_likely(_log_odds(known), y, weight))

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated probabilities."""
        return self.curve(_log_odds(probability))

    def append_to(self, model: ModelProto) -> ModelProto:
        """The graph with the log odds taken, stretched and shifted."""
        return append_calibration(model, self._nodes)

    def _nodes(self, nodes: GraphBuilder, probability: str) -> str:
        within = nodes.add("Clip", nodes.to_double(probability), np.float64(_LEAST), np.float64(_MOST))
        odds = nodes.add("Div", within, nodes.add("Sub", np.float64(1.0), within))
        scaled = nodes.add("Mul", nodes.add("Log", odds), np.float64(self.curve.slope))
        return nodes.add("Sigmoid", nodes.add("Add", scaled, np.float64(self.curve.intercept)))


@dataclass(frozen=True, slots=True, eq=False)
class Isotonic:
    """The rising steps of best fit, joined by straight lines through at most fifty ``knots`` from 0 to 1.

    Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates" (2002).
    ``levels`` are the calibrated probabilities of the knots, each above the one before it.
    """

    knots: NDArray[np.float64]
    levels: NDArray[np.float64]

    @classmethod
    def fit(
        cls, probability: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64] | None = None
    ) -> Self:
        """Pool adjacent violators; no level reaches 0 or 1, which no number of rows can show."""
        known, y, weight = _known(probability, y, weight)
        edge = 1.0 / (len(known) + 2)
        steps = IsotonicRegression(y_min=edge, y_max=1.0 - edge, out_of_bounds="clip")
        steps.fit(known, y, sample_weight=weight)
        knots = _thinned(np.asarray(steps.X_thresholds_, np.float64))
        levels = np.maximum.accumulate(np.asarray(steps.predict(knots), np.float64))
        return cls(knots, (1.0 - TILT) * levels + TILT * knots)

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        """The calibrated probabilities."""
        return np.where(np.isnan(probability), np.nan, np.interp(probability, self.knots, self.levels))

    def append_to(self, model: ModelProto) -> ModelProto:
        """The graph with, for each stretch between knots, how much of it lies below the probability."""
        return append_calibration(model, self._nodes)

    def _nodes(self, nodes: GraphBuilder, probability: str) -> str:
        column = nodes.add("Unsqueeze", nodes.to_double(probability), np.array([1]))
        passed = nodes.add("Div", nodes.add("Sub", column, self.knots[:-1]), np.diff(self.knots))
        shares = nodes.add("Clip", passed, np.float64(0.0), np.float64(1.0))
        return nodes.add("Add", nodes.add("MatMul", shares, np.diff(self.levels)), self.levels[:1])


CALIBRATIONS: Final[Mapping[str, type[Calibration]]] = {"none": Uncalibrated, "platt": Platt, "isotonic": Isotonic}
"""By the name that a user asks for."""


def _known(
    probability: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
    known = np.isfinite(probability)
    return probability[known], y[known], np.ones(int(known.sum())) if weight is None else weight[known]


def _most_likely(score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> LogisticCurve:
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


def _thinned(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most fifty of the ends of steps, evenly along their order, between 0 and 1 and with these."""
    kept = ends[np.unique(np.linspace(0, len(ends) - 1, MOST_KNOTS - 2).round().astype(int))]
    return np.unique(np.concatenate([[0.0], kept, [1.0]]))
