"""The z-score composite: the rule that stood before any model, kept as one to fall back to.

Each feature is standardised with its training mean and deviation; the composite is the mean of them,
standardised again. A spike is called at a composite of 2 or more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from volspike.models.columns import TEN_FEATURES, without_lags
from volspike.models.curve import Curve
from volspike.models.detector import Trial
from volspike.models.rows import score_complete, training_rows
from volspike.models.sample import Sample
from volspike.models.settings import settings_over
from volspike.models.sklearn_graph import linear_graph

SPIKE_COMPOSITE: Final = 2.0


class Baseline:
    """The composite, told as a probability by a logistic curve that rises with it."""

    name: ClassVar[str] = "baseline"
    accepts_missing: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = True

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """Nothing here is drawn at random: ``seed`` is taken because every detector takes one."""
        self.seed = seed
        settings_over({}, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The ten features that the rule was made of, as far as they are there; all columns where none is.

        More of them would drown it: a plain mean has no way to leave a column out.
        """
        return tuple(name for name in offered if name in TEN_FEATURES) or without_lags(offered)

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:  # noqa: ARG003
        """Nothing to search."""
        return {}

    def fit(self, sample: Sample) -> Self:
        """Take means and deviations from the complete rows, and fit the curve to what followed them."""
        rows = training_rows(sample, accepts_missing=False)
        self._scaler = StandardScaler().fit(rows.x.astype(np.float64), sample_weight=rows.weight)
        raw = self._raw(rows.x)
        self._centre = float(np.average(raw, weights=rows.weight))
        self._spread = float(np.sqrt(np.average((raw - self._centre) ** 2, weights=rows.weight))) or 1.0
        self._curve = Curve.fit(self.composite(rows.x), rows.y, rows.weight)
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
        slope, intercept = self._curve.slope, self._curve.intercept
        regression = LogisticRegression()
        regression.classes_ = np.array([0, 1])
        regression.coef_ = np.full((1, width), slope / self._spread / width)
        regression.intercept_ = np.array([intercept - slope * self._centre / self._spread])
        return linear_graph(self._scaler, regression)

    def _raw(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        standard: NDArray[np.float64] = self._scaler.transform(x.astype(np.float64))
        mean: NDArray[np.float64] = standard.mean(axis=1)
        return mean
