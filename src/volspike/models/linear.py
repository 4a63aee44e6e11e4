"""Columns on one scale for models that add them up: outliers drawn in, logarithms taken, mean 0 and deviation 1.

The same arithmetic stands in NumPy for training and, folded into weights, in the ONNX graph; both in double. In float32
a column whose mean is many deviations from zero would lose its last digits when the mean is taken off.

Logistic regression over standardised columns: what the models that add up their evidence share.

Logistic regression over standardised features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from volspike.models.detector import (
    Sample,
    Trial,
    log_floors,
    score_complete,
    settings_over,
    shares,
    training_rows,
    without_lags,
)
from volspike.models.onnx import Nodes

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


TAIL: Final = 0.001
"""A ratio to a quiet hour may be a thousand deviations out: beyond this quantile it counts as the quantile."""

_DEFAULTS: Final = {"penalty": 1e-3}


class Logistic:
    """A weighted sum of standardised features; classes are not reweighted, so that the output is a probability.

    It is given the logarithm of what spreads over orders of magnitude (``columns.log_floor``). The one setting,
    ``penalty``, weighs half the squared coefficients against the mean log loss of a row.
    """

    name: ClassVar[str] = "logistic"
    accepts_missing: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """Nothing here is drawn at random: ``seed`` is taken because every detector takes one."""
        self.seed = seed
        self._settings = settings_over(_DEFAULTS, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """All but the second-by-second ones."""
        return without_lags(offered)

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        """The penalty, over four orders of magnitude."""
        return {"penalty": trial.suggest_float("penalty", 1e-5, 1e-1, log=True)}

    def fit(self, sample: Sample) -> Self:
        """Learn from the rows that have all their values."""
        rows = training_rows(sample, accepts_missing=False)
        standard = Standard.fit(rows.x, sample.names, rows.weight, tail=TAIL)
        self._model = LinearModel.fit(standard, rows.x, rows.y, rows.weight, penalty=self._settings["penalty"])
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike; NaN for a row that misses a value."""
        return score_complete(x, self._model.probability)

    def importance(self) -> NDArray[np.float64]:
        """Shares of the absolute coefficients, per standard deviation of each feature."""
        return shares(np.abs(self._model.coefficients))

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """Outliers, logarithms, scale and weights as one graph."""
        return self._model.to_onnx(len(self._model.coefficients))
