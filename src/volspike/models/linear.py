"""Linear models of standardized columns: ``Logistic``, and ``Standardization``, which other models use as well.

The arithmetic is in NumPy for training and, folded into weights, in the ONNX graph; both in double. In float32 a column
whose mean is many deviations from zero would lose its last digits when the mean is subtracted.
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

from volspike.models.detector import Detector, TrainingRows, Trial, as_shares, log_offset
from volspike.models.onnx import GraphBuilder

TAIL: Final = 0.001
"""Values beyond this quantile count as the quantile: a ratio to a quiet hour may be a thousand deviations away."""

_MAX_STEPS: Final = 1000
_CONSTANT: Final = 1e-12
"""A deviation of this share of the mean is rounding: the column is constant."""


class Logistic(Detector):
    """Logistic regression on standardized features; classes are not reweighted, so the output is a probability.

    Columns that span orders of magnitude enter as logarithms (``log_offset``). The setting ``penalty`` weighs half the
    squared coefficients against the mean log loss of a row.
    """

    name: ClassVar[str] = "logistic"
    defaults: ClassVar[Mapping[str, Any]] = {"penalty": 1e-3}

    @classmethod
    def search_space(cls, trial: Trial) -> dict[str, Any]:
        """The penalty, over four orders of magnitude."""
        return {"penalty": trial.suggest_float("penalty", 1e-5, 1e-1, log=True)}

    def learn(self, rows: TrainingRows) -> LinearModel:
        """See ``Detector.learn``."""
        standard = Standardization.fit(rows.x, rows.names, rows.weight, tail=TAIL)
        return LinearModel.fit(standard, rows, penalty=self._settings["penalty"])


@dataclass(frozen=True, slots=True)
class LinearModel:
    """Log odds of a spike as a weighted sum of standardized columns of rows of ``width`` values."""

    standard: Standardization
    coefficients: NDArray[np.float64]
    intercept: float
    width: int

    @classmethod
    def fit(cls, standard: Standardization, rows: TrainingRows, *, penalty: float) -> Self:
        """Minimizes the weighted mean log loss plus ``penalty``/2 times the squared coefficients."""
        coefficients, intercept = fit_logistic(standard.apply(rows.x), rows, penalty)
        return cls(standard, coefficients, intercept, rows.x.shape[1])

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logistic function of the weighted sum."""
        probability: NDArray[np.float64] = expit(self.standard.apply(x) @ self.coefficients + self.intercept)
        return probability

    def importance(self) -> NDArray[np.float64]:
        """Shares of the absolute coefficients, per standard deviation of each column."""
        weight = np.zeros(self.width)
        weight[self.standard.columns] = np.abs(self.coefficients)
        return as_shares(weight)

    def to_onnx(self) -> ModelProto:
        """Outliers, logarithms, scale and weights as one graph."""
        graph = GraphBuilder(self.width)
        return graph.finish_log_odds(self.standard.add_weighted_sum(graph, self.coefficients, self.intercept))


def fit_logistic(x: NDArray[np.float64], rows: TrainingRows, penalty: float) -> tuple[NDArray[np.float64], float]:
    """Coefficients and intercept of a logistic regression of the rows' outcomes on ``x`` (n, k)."""
    regression = LogisticRegression(C=1.0 / (penalty * float(rows.weight.sum())), max_iter=_MAX_STEPS)
    regression.fit(x, rows.y, sample_weight=rows.weight)
    return regression.coef_[0], float(regression.intercept_[0])


@dataclass(frozen=True, slots=True, eq=False)
class Standardization:
    """Clips ``columns`` (k positions in a row), takes logarithms, and scales to mean 0 and deviation 1.

    All arrays are (k,). Values are clipped to ``low`` … ``high``; ``offset`` is added before the logarithm and is NaN
    for columns without one.
    """

    columns: NDArray[np.int64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    offset: NDArray[np.float64]
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]

    @classmethod
    def fit(
        cls,
        x: NDArray[np.float32],
        names: Sequence[str],
        weight: NDArray[np.float64],
        *,
        selected: Sequence[str] | None = None,
        tail: float = 0.0,
    ) -> Self:
        """Learns the scale of the ``selected`` columns, by default all, from complete rows.

        Values beyond the weighted quantiles ``tail`` and 1 − ``tail`` are clipped to them, with a tail of 0 none. In
        columns with a logarithm, values below 0 count as 0.
        """
        selected = list(names if selected is None else selected)
        columns = np.array([list(names).index(name) for name in selected], np.int64)
        offsets = [log_offset(name) for name in selected]
        offset = np.array([np.nan if added is None else added for added in offsets])
        low, high = _limits(x[:, columns], weight, tail)
        low = np.where(np.isnan(offset), low, np.maximum(low, 0.0))
        raw = cls(columns, low, np.maximum(low, high), offset, np.zeros(len(selected)), np.ones(len(selected)))
        scale = raw.apply(x)
        mean = np.average(scale, axis=0, weights=weight)
        deviation = np.sqrt(np.average((scale - mean) ** 2, axis=0, weights=weight))
        varies = deviation > _CONSTANT * np.abs(mean)
        return cls(columns, raw.low, raw.high, offset, mean, np.where(varies, deviation, 1.0))

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The standardized columns of rows ``x`` (n, f): (n, k)."""
        clipped = np.clip(x[:, self.columns].astype(np.float64), self.low, self.high)
        logarithmic = self._is_logarithmic
        clipped[:, logarithmic] = np.log(clipped[:, logarithmic] + self.offset[logarithmic])
        standard: NDArray[np.float64] = (clipped - self.mean) / self.deviation
        return standard

    def add_weighted_sum(self, graph: GraphBuilder, coefficients: NDArray[np.float64], intercept: float) -> str:
        """Adds the sum of ``coefficients`` (k,) times the standardized columns, plus ``intercept``: float64 [N]."""
        slope = coefficients / self.deviation
        total = graph.constant(np.array([intercept - float(slope @ self.mean)]))
        clipped = graph.add("Min", graph.add("Max", graph.to_double(graph.select(self.columns)), self.low), self.high)
        for part in (~self._is_logarithmic, self._is_logarithmic):
            if part.any():
                values = graph.add("Gather", clipped, np.flatnonzero(part), axis=1)
                if self._is_logarithmic[part].all():
                    values = graph.add("Log", graph.add("Add", values, self.offset[part]))
                total = graph.add("Add", graph.add("MatMul", values, slope[part]), total)
        return total

    @property
    def _is_logarithmic(self) -> NDArray[np.bool_]:
        return np.logical_not(np.isnan(self.offset))


def _limits(
    x: NDArray[np.float32], weight: NDArray[np.float64], tail: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if tail <= 0.0:
        largest = np.full(x.shape[1], float(np.finfo(np.float32).max))
        return -largest, largest
    low, high = np.quantile(x, [tail, 1.0 - tail], axis=0, weights=weight, method="inverted_cdf")
    return low.astype(np.float64), high.astype(np.float64)
