"""The logistic curve that turns a score into a probability and never changes the order of two scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

LEAST_SLOPE: Final = 0.01
"""Per standard deviation of the score. A higher score is more alarming by its meaning; where data say otherwise, the
probability still rises."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Probability 1 / (1 + exp(−(slope · score + intercept))), with a slope above 0."""

    slope: float
    intercept: float

    @classmethod
    def fit(cls, score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> Self:
        """The curve of least weighted log loss through scores (n,) and outcomes (n,).

        With the softened targets of Platt, "Probabilistic Outputs for Support Vector Machines" (1999), so that
        classes that separate cleanly still give a finite slope.
        """
        total = float(weight.sum())
        centre = float(weight @ score) / total
        spread = float(np.sqrt(weight @ (score - centre) ** 2 / total)) or 1.0
        slope, intercept = _fitted((score - centre) / spread, y, weight)
        return cls(slope / spread, intercept - slope * centre / spread)

    def __call__(self, score: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of each score."""
        probability: NDArray[np.float64] = expit(self.slope * score + self.intercept)
        return probability

    def log_loss(self, score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> float:
        """Weighted mean of −ln of the probability of what happened."""
        margin = self.slope * score + self.intercept
        return float(np.average(np.logaddexp(0.0, margin) - y * margin, weights=weight))


def _fitted(score: NDArray[np.float64], y: NDArray[np.int8], weight: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and intercept over a score of deviation 1."""
    spikes, calm = float(weight[y == 1].sum()), float(weight[y == 0].sum())
    target = np.where(y == 1, (spikes + 1) / (spikes + 2), 1 / (calm + 2))
    share = weight / weight.sum()

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = parameters[0] * score + parameters[1]
        error = share * (expit(margin) - target)
        value = float(share @ (np.logaddexp(0.0, margin) - target * margin))
        return value, np.array([error @ score, error.sum()])

    start = np.array([1.0, np.log((spikes + 1) / (calm + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(LEAST_SLOPE, None), (None, None)])
    return float(found.x[0]), float(found.x[1])
