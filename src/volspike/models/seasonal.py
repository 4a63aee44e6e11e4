"""The clock alone: some hours, and some minutes of the hour, are livelier than others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from volspike.errors import UsageError
from volspike.models.detector import Trial
from volspike.models.nodes import Nodes
from volspike.models.rows import score_complete, shares, training_rows
from volspike.models.sample import Sample
from volspike.models.settings import settings_over

_DAY: Final = ("time_of_day_sin", "time_of_day_cos")
_HOUR: Final = "seconds_to_full_60min"
_HOUR_WAVES: Final = 4
"""Down to the quarters of an hour, at which much is scheduled."""

_PENALTY: Final = 1e-3


class Seasonal:
    """Logistic regression on two harmonics of the day and four of the hour, as far as the columns are there."""

    name: ClassVar[str] = "seasonal"
    accepts_missing: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = True

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """Nothing here is drawn at random: ``seed`` is taken because every detector takes one."""
        self.seed = seed
        settings_over({}, settings, self.name)

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The phase of the day, where both its columns are there, and the place in the hour."""
        told = (*(_DAY if set(_DAY) <= set(offered) else ()), _HOUR)
        return tuple(name for name in offered if name in told)

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:  # noqa: ARG003
        """Nothing to search."""
        return {}

    def fit(self, sample: Sample) -> Self:
        """Learn from the complete rows."""
        chosen = self.columns(sample.names)
        if not chosen:
            raise UsageError(f"{self.name} needs the columns {' and '.join(_DAY)}, or {_HOUR}")
        rows = training_rows(sample, accepts_missing=False)
        self._width = len(sample.names)
        self._day = tuple(sample.names.index(name) for name in _DAY) if _DAY[0] in chosen else None
        self._hour = sample.names.index(_HOUR) if _HOUR in chosen else None
        regression = LogisticRegression(C=1.0 / (_PENALTY * float(rows.weight.sum())), max_iter=1000)
        regression.fit(self._waves(rows.x), rows.y, sample_weight=rows.weight)
        self._coefficients: NDArray[np.float64] = regression.coef_[0]
        self._intercept = float(regression.intercept_[0])
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike; NaN for a row that misses a value."""
        return score_complete(x, lambda rows: expit(self._waves(rows) @ self._coefficients + self._intercept))

    def importance(self) -> NDArray[np.float64]:
        """Shares of the absolute coefficients, those of the day shared by its two columns."""
        weight = np.zeros(self._width)
        size = np.abs(self._coefficients)
        if self._day is not None:
            weight[list(self._day)] = size[:4].sum() / 2
        if self._hour is not None:
            weight[self._hour] = size[-2 * _HOUR_WAVES :].sum()
        return shares(weight)

    def thresholds(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def to_onnx(self) -> Any:
        """The waves and their weights as one graph."""
        nodes = Nodes(self._width)
        told = nodes.constant(np.array([self._intercept]))
        for weighted in (*self._day_nodes(nodes), *self._hour_nodes(nodes)):
            told = nodes.add("Add", weighted, told)
        return nodes.served(told)

    def _waves(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Sine and cosine of each harmonic, for each complete row."""
        waves = []
        if self._day is not None:
            sine, cosine = np.clip(x[:, list(self._day)].astype(np.float64), -1.0, 1.0).T
            # The double angle, without going back to the angle itself.
            waves += [sine, cosine, 2 * sine * cosine, cosine**2 - sine**2]
        if self._hour is not None:
            phase = np.clip(x[:, self._hour].astype(np.float64), 0.0, 3600.0) * (2 * np.pi / 3600)
            waves += [wave(n * phase) for wave in (np.sin, np.cos) for n in range(1, _HOUR_WAVES + 1)]
        return np.column_stack(waves)

    def _day_nodes(self, nodes: Nodes) -> Iterator[str]:
        if self._day is None:
            return
        first, second = self._coefficients[:2], self._coefficients[2:4]
        day = nodes.add("Clip", nodes.in_double(nodes.gathered(np.array(self._day))), np.float64(-1), np.float64(1))
        yield nodes.add("MatMul", day, first)
        # The product of sine and cosine comes twice, and the cosine's square less the sine's.
        swapped = nodes.add("Gather", day, np.array([1, 0]), axis=1)
        yield nodes.add("MatMul", nodes.add("Mul", day, swapped), np.full(2, second[0]))
        yield nodes.add("MatMul", nodes.add("Mul", day, day), np.array([-second[1], second[1]]))

    def _hour_nodes(self, nodes: Nodes) -> Iterator[str]:
        if self._hour is None:
            return
        seconds = nodes.in_double(nodes.gathered(np.array([self._hour])))
        clipped = nodes.add("Clip", seconds, np.float64(0), np.float64(3600))
        phases = nodes.add("Mul", clipped, np.arange(1, _HOUR_WAVES + 1) * (2 * np.pi / 3600))
        sines, cosines = np.split(self._coefficients[-2 * _HOUR_WAVES :], 2)
        yield nodes.add("MatMul", nodes.add("Sin", phases), sines)
        yield nodes.add("MatMul", nodes.add("Cos", phases), cosines)
