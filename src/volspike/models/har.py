"""Heterogeneous autoregression: the next minute's volatility from those of several spans before it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.errors import UsageError
from volspike.models.detector import Trial
from volspike.models.linear import LinearModel
from volspike.models.rows import score_complete, shares, training_rows
from volspike.models.sample import Sample
from volspike.models.settings import settings_over
from volspike.models.standard import Standard

WINDOWS: Final = (30, 60, 300, 900, 3600)
_NAMES: Final = tuple(f"realized_volatility_{window}s" for window in WINDOWS)
_LAST_MINUTE: Final = "realized_volatility_60s"

_PENALTY: Final = 1e-6
"""Next to none: it only keeps the weights finite where the classes separate cleanly."""


class Har:
    """Logistic regression on the logarithms of realized volatilities of 30 s to an hour.

    Corsi, "A Simple Approximate Long-Memory Model of Realized Volatility" (2009), carried from days to minutes and
    from volatility to the probability that it passes τ.
    """

    name: ClassVar[str] = "har"
    accepts_missing: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = True

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """Nothing here is drawn at random: ``seed`` is taken because every detector takes one."""
        self.seed = seed
        settings_over({}, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The realized volatilities of its windows; none where the last minute's is not among them."""
        return tuple(name for name in offered if name in _NAMES) if _LAST_MINUTE in offered else ()

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:  # noqa: ARG003
        """Nothing to search."""
        return {}

    def fit(self, sample: Sample) -> Self:
        """Learn from the complete rows."""
        chosen = self.columns(sample.names)
        if not chosen:
            raise UsageError(f"{self.name} needs the column {_LAST_MINUTE}")
        rows = training_rows(sample, accepts_missing=False)
        self._width = len(sample.names)
        standard = Standard.fit(rows.x, sample.names, rows.weight, chosen=chosen)
        self._model = LinearModel.fit(standard, rows.x, rows.y, rows.weight, penalty=_PENALTY)
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike; NaN for a row that misses a value."""
        return score_complete(x, self._model.probability)

    def importance(self) -> NDArray[np.float64]:
        """Shares of the absolute coefficients, per standard deviation of each logarithm."""
        weight = np.zeros(self._width)
        weight[self._model.standard.columns] = np.abs(self._model.coefficients)
        return shares(weight)

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """Logarithms and weights as one graph."""
        return self._model.to_onnx(self._width)
