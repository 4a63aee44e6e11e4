"""Exponentially weighted volatility, with the half-life that told most in the training rows."""

from __future__ import annotations

import re
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

_EWMA: Final = re.compile(r"ewma_volatility_\d+s")


class Ewma:
    """A logistic curve over the logarithm of one of the offered volatilities: that of least log loss.

    RiskMetrics technical document (1996), with the decay chosen by the data.
    """

    name: ClassVar[str] = "ewma"
    accepts_missing: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = True

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """Nothing here is drawn at random: ``seed`` is taken because every detector takes one."""
        self.seed = seed
        settings_over({}, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The exponentially weighted volatilities, of every half-life."""
        return tuple(name for name in offered if _EWMA.fullmatch(name))

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:  # noqa: ARG003
        """Nothing to search: fitting itself chooses the half-life."""
        return {}

    def fit(self, sample: Sample) -> Self:
        """Fit a curve to each half-life over the complete rows, and keep the best."""
        half_lives = [sample.names.index(name) for name in self.columns(sample.names)]
        if not half_lives:
            raise UsageError(f"{self.name} needs a column ewma_volatility_*s")
        rows = training_rows(sample, accepts_missing=False)
        fitted = (VolatilityCurve.fit(rows, column) for column in half_lives)
        self._model = min(fitted, key=lambda model: model.log_loss)
        self.chosen = sample.names[self._model.column]
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike, rising with the chosen volatility; NaN where a value is missing."""
        return score_complete(x, self._model.probability)

    def importance(self) -> NDArray[np.float64]:
        """All of it is that of the chosen half-life."""
        return self._model.importance()

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """The curve as a graph over all half-lives, of which it looks at one."""
        return self._model.to_onnx()
