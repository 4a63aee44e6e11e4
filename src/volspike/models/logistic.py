"""Logistic regression over standardised features."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from volspike.models.rows import score_complete, shares, training_rows
from volspike.models.sklearn_graph import linear_graph


class Logistic:
    """A weighted sum of standardised features; classes are not reweighted, so that the output is a probability."""

    name: ClassVar[str] = "logistic"
    accepts_missing: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0) -> None:
        """Nothing here is drawn at random: ``seed`` is taken because every detector takes one."""
        self._regression = LogisticRegression(max_iter=1000, random_state=seed)

    def fit(self, x: NDArray[np.float64], y: NDArray[np.int8]) -> Self:
        """Learn from the rows of ``x`` that have all their values."""
        single, y = training_rows(x, y, accepts_missing=False)
        # Back in double: the values are those that float32 holds, the arithmetic is that of the ONNX graph.
        rows = single.astype(np.float64)
        self._scaler = StandardScaler().fit(rows)
        self._regression.fit(self._scaler.transform(rows), y)
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike; NaN for a row that misses a value."""
        return score_complete(x, self._score)

    def importance(self) -> NDArray[np.float64]:
        """Shares of the absolute coefficients, per standard deviation of each feature."""
        return shares(np.abs(self._regression.coef_[0]))

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """Scaler and regression as one graph."""
        return linear_graph(self._scaler, self._regression)

    def _score(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        standard = self._scaler.transform(rows.astype(np.float64))
        probability: NDArray[np.float64] = self._regression.predict_proba(standard)[:, 1]
        return probability
