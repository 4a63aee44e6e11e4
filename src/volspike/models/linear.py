"""Logistic regression over standardised columns: what the models that add up their evidence share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from volspike.models.nodes import Nodes
from volspike.models.standard import Standard

_STEPS: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class LinearModel:
    """Log odds of a spike as a weighted sum of standardised columns."""

    standard: Standard
    coefficients: NDArray[np.float64]
    intercept: float

    @classmethod
    def fit(
        cls,
        standard: Standard,
        x: NDArray[np.float32],
        y: NDArray[np.int8],
        weight: NDArray[np.float64],
        *,
        penalty: float,
    ) -> Self:
        """Least weighted mean log loss plus ``penalty``/2 times the squared coefficients."""
        strength = 1.0 / (penalty * float(weight.sum()))
        regression = LogisticRegression(C=strength, max_iter=_STEPS)
        regression.fit(standard.apply(x), y, sample_weight=weight)
        return cls(standard, regression.coef_[0], float(regression.intercept_[0]))

    def probability(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probability of each complete row."""
        probability: NDArray[np.float64] = expit(self.standard.apply(x) @ self.coefficients + self.intercept)
        return probability

    def to_onnx(self, width: int) -> ModelProto:
        """The served graph, for rows of ``width`` values."""
        nodes = Nodes(width)
        return nodes.served(self.standard.weighted_sum(nodes, self.coefficients, self.intercept))
