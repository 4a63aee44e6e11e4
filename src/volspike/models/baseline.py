"""The z-score composite: the rule that stood before any model, kept as one to fall back to.

Each feature is standardised with its training mean and deviation; the composite is the mean of them,
standardised again. A spike is called at a composite of 2 or more.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from volspike.models.rows import score_complete, training_rows
from volspike.models.sklearn_graph import linear_graph

SPIKE_COMPOSITE: Final = 2.0
LEAST_SLOPE: Final = 0.01
"""The rule says that a higher composite is more alarming; where data say otherwise, the probability still rises."""


class Baseline:
    """The composite, told as a probability by a logistic curve that rises with it."""

    name: ClassVar[str] = "baseline"
    accepts_missing: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0) -> None:
        """Nothing here is drawn at random: ``seed`` is taken because every detector takes one."""
        self.seed = seed

    def fit(self, x: NDArray[np.float64], y: NDArray[np.int8]) -> Self:
        """Take means and deviations from ``x``, and fit the curve to ``y``."""
        single, y = training_rows(x, y, accepts_missing=False)
        self._scaler = StandardScaler().fit(single.astype(np.float64))
        raw = self._raw(single)
        self._centre = float(raw.mean())
        self._spread = float(raw.std()) or 1.0
        self._slope, self._intercept = platt(self.composite(single), y)
        return self

    def composite(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The composite of each complete row: mean 0 and deviation 1 over the training rows."""
        return (self._raw(x) - self._centre) / self._spread

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike, rising with the composite; NaN for a row that misses a value."""
        return score_complete(x, lambda rows: self._curve(self.composite(rows)))

    def importance(self) -> NDArray[np.float64]:
        """Equal shares: the composite is a plain mean."""
        width = len(self._scaler.mean_)
        return np.full(width, 1.0 / width)

    def thresholds(self) -> dict[str, float]:
        """``composite_2``: the probability at which the composite reaches 2, the rule's own call."""
        return {"composite_2": float(self._curve(np.array([SPIKE_COMPOSITE]))[0])}

    def to_onnx(self) -> Any:
        """The rule and its curve as the logistic regression of equal weights that they amount to."""
        width = len(self._scaler.mean_)
        regression = LogisticRegression()
        regression.classes_ = np.array([0, 1])
        regression.coef_ = np.full((1, width), self._slope / self._spread / width)
        regression.intercept_ = np.array([self._intercept - self._slope * self._centre / self._spread])
        return linear_graph(self._scaler, regression)

    def _raw(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        standard: NDArray[np.float64] = self._scaler.transform(x.astype(np.float64))
        mean: NDArray[np.float64] = standard.mean(axis=1)
        return mean

    def _curve(self, composite: NDArray[np.float64]) -> NDArray[np.float64]:
        probability: NDArray[np.float64] = expit(self._slope * composite + self._intercept)
        return probability


def platt(score: NDArray[np.float64], y: NDArray[np.int8]) -> tuple[float, float]:
    """Slope and intercept of the logistic curve of best fit, the slope at least ``LEAST_SLOPE``.

    With the softened targets of Platt, "Probabilistic Outputs for Support Vector Machines" (1999), so that
    classes that separate cleanly still give a finite slope.
    """
    spikes = int(np.count_nonzero(y))
    calm = len(y) - spikes
    target = np.where(y == 1, (spikes + 1) / (spikes + 2), 1 / (calm + 2))

    def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = parameters[0] * score + parameters[1]
        error = expit(margin) - target
        value = float(np.mean(np.logaddexp(0.0, margin) - target * margin))
        return value, np.array([np.mean(error * score), np.mean(error)])

    start = np.array([1.0, np.log((spikes + 1) / (calm + 1))])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(LEAST_SLOPE, None), (None, None)])
    return float(found.x[0]), float(found.x[1])
