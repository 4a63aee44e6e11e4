"""Logistic regression over standardised features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.models.columns import without_lags
from volspike.models.detector import Trial
from volspike.models.linear import LinearModel
from volspike.models.rows import score_complete, shares, training_rows
from volspike.models.sample import Sample
from volspike.models.settings import settings_over
from volspike.models.standard import Standard

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
