"""Persistence: the next minute will be as the last one was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.errors import UsageError
from volspike.models.detector import Trial
from volspike.models.rows import score_complete, training_rows
from volspike.models.sample import Sample
from volspike.models.settings import settings_over
from volspike.models.volatility_curve import VolatilityCurve

LAST_MINUTE: Final = "realized_volatility_60s"


class Persistence:
    """A logistic curve over the logarithm of the last minute's volatility: it ranks rows as that does."""

    name: ClassVar[str] = "persistence"
    accepts_missing: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = True

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """Nothing here is drawn at random: ``seed`` is taken because every detector takes one."""
        self.seed = seed
        settings_over({}, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The volatility of the last minute alone."""
        return tuple(name for name in offered if name == LAST_MINUTE)

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:  # noqa: ARG003
        """Nothing to search."""
        return {}

    def fit(self, sample: Sample) -> Self:
        """Fit the curve to the complete rows."""
        if LAST_MINUTE not in sample.names:
            raise UsageError(f"{self.name} needs the column {LAST_MINUTE}")
        rows = training_rows(sample, accepts_missing=False)
        self._model = VolatilityCurve.fit(rows, sample.names.index(LAST_MINUTE))
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike, rising with the last minute's volatility; NaN where a value is missing."""
        return score_complete(x, self._model.probability)

    def importance(self) -> NDArray[np.float64]:
        """All of it is the volatility's."""
        return self._model.importance()

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """The curve as a graph."""
        return self._model.to_onnx()
