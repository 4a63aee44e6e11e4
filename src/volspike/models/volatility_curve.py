"""One column of volatility, told as a probability by a logistic curve over its logarithm.

The curve rises and nothing is drawn in, so that it ranks rows as the volatility does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from volspike.models.columns import STILL_VOLATILITY
from volspike.models.curve import Curve
from volspike.models.nodes import Nodes
from volspike.models.rows import TrainingRows


@dataclass(frozen=True, slots=True)
class VolatilityCurve:
    """``column`` is the volatility's position in a row of ``width`` values; ``log_loss`` is that of its fit."""

    column: int
    width: int
    curve: Curve
    log_loss: float

    @classmethod
    def fit(cls, rows: TrainingRows, column: int) -> Self:
        """The curve of best fit to complete rows."""
        score = _log_volatility(rows.x[:, column])
        curve = Curve.fit(score, rows.y, rows.weight)
        return cls(column, rows.x.shape[1], curve, curve.log_loss(score, rows.y, rows.weight))

    def probability(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probability of each complete row."""
        return self.curve(_log_volatility(x[:, self.column]))

    def importance(self) -> NDArray[np.float64]:
        """All of it is the one column's."""
        share: NDArray[np.float64] = np.eye(self.width)[self.column]
        return share

    def to_onnx(self) -> ModelProto:
        """The served graph."""
        nodes = Nodes(self.width)
        volatility = nodes.in_double(nodes.gathered(np.array([self.column])))
        still = nodes.add("Add", nodes.add("Max", volatility, np.array([0.0])), np.array([STILL_VOLATILITY]))
        score = nodes.add("Squeeze", nodes.add("Log", still), np.array([1]))
        return nodes.served_curve(score, self.curve)


def _log_volatility(volatility: NDArray[np.float32]) -> NDArray[np.float64]:
    """ln(v + 1e-6): a minute in which no price moved has volatility 0, which has no logarithm."""
    logarithm: NDArray[np.float64] = np.log(np.maximum(volatility.astype(np.float64), 0.0) + STILL_VOLATILITY)
    return logarithm
