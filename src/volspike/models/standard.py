"""Columns on one scale for models that add them up: outliers drawn in, logarithms taken, mean 0 and deviation 1.

The same arithmetic stands in NumPy for training and, folded into weights, in the ONNX graph; both in double. In float32
a column whose mean is many deviations from zero would lose its last digits when the mean is taken off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from volspike.models.columns import log_floors
from volspike.models.nodes import Nodes

_HARDLY_MOVES = 1e-12
"""A deviation of this share of the mean is rounding: the column is constant."""


@dataclass(frozen=True, slots=True, eq=False)
class Standard:
    """How ``columns`` (k positions in a row) are standardised; every array is of length k.

    ``low`` and ``high`` are the ends to which outliers are drawn in; ``floor`` is what is added before the logarithm,
    NaN where none is taken.
    """

    columns: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    floor: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        x: NDArray[np.float32],
        names: Sequence[str],
        weight: NDArray[np.float64],
        *,
        chosen: Sequence[str] | None = None,
        tail: float = 0.0,
    ) -> Self:
        """Learn from complete rows the scale of the ``chosen`` columns (all, unless told).

        What is beyond the weighted quantiles ``tail`` and 1 − ``tail`` counts as these; with a tail of 0 every finite
        value counts as it is. No value of a column whose logarithm is taken counts as less than 0.
        """
        wanted = list(names if chosen is None else chosen)
        columns = np.array([list(names).index(name) for name in wanted], np.int64)
        floor = np.array([np.nan if added is None else added for added in log_floors(wanted)])
        low, high = _ends(x[:, columns], weight, tail)
        low = np.where(np.isnan(floor), low, np.maximum(low, 0.0))
        raw = cls(columns, low, np.maximum(low, high), floor, np.zeros(len(wanted)), np.ones(len(wanted)))
        scale = raw.apply(x)
        mean = np.average(scale, axis=0, weights=weight)
        deviation = np.sqrt(np.average((scale - mean) ** 2, axis=0, weights=weight))
        moves = deviation > _HARDLY_MOVES * np.abs(mean)
        return cls(columns, raw.low, raw.high, floor, mean, np.where(moves, deviation, 1.0))

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The standardised columns of rows ``x`` (n, f): (n, k)."""
        clipped = np.clip(x[:, self.columns].astype(np.float64), self.low, self.high)
        logarithmic = self._is_logarithmic
        clipped[:, logarithmic] = np.log(clipped[:, logarithmic] + self.floor[logarithmic])
        standard: NDArray[np.float64] = (clipped - self.mean) / self.deviation
        return standard

    def weighted_sum(self, nodes: Nodes, coefficients: NDArray[np.float64], intercept: float) -> str:
        """Adds the sum of ``coefficients`` (k,) times the standardised columns, plus ``intercept``: float64 [N]."""
        slope = coefficients / self.deviation
        total = nodes.constant(np.array([intercept - float(slope @ self.mean)]))
        clipped = nodes.add("Min", nodes.add("Max", nodes.in_double(nodes.gathered(self.columns)), self.low), self.high)
        for part in (~self._is_logarithmic, self._is_logarithmic):
            if part.any():
                values = nodes.add("Gather", clipped, np.flatnonzero(part), axis=1)
                if self._is_logarithmic[part].all():
                    values = nodes.add("Log", nodes.add("Add", values, self.floor[part]))
                total = nodes.add("Add", nodes.add("MatMul", values, slope[part]), total)
        return total

    @property
    def _is_logarithmic(self) -> NDArray[np.bool_]:
        return np.logical_not(np.isnan(self.floor))


def _ends(
    x: NDArray[np.float32], weight: NDArray[np.float64], tail: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if tail <= 0.0:
        largest = np.full(x.shape[1], float(np.finfo(np.float32).max))
        return -largest, largest
    low, high = np.quantile(x, [tail, 1.0 - tail], axis=0, weights=weight, method="inverted_cdf")
    return low.astype(np.float64), high.astype(np.float64)
