"""One column of volatility, told as a probability by a logistic curve over its logarithm.

The curve rises and nothing is drawn in, so that it ranks rows as the volatility does.

Persistence: the next minute will be as the last one was.

Exponentially weighted volatility, with the half-life that told most in the training rows.

Heterogeneous autoregression: the next minute's volatility from those of several spans before it.

The clock alone: some hours, and some minutes of the hour, are livelier than others.

The z-score composite: the rule that stood before any model, kept as one to fall back to.

Each feature is standardised with its training mean and deviation; the composite is the mean of them,
standardised again. A spike is called at a composite of 2 or more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from volspike.errors import UsageError
from volspike.models.detector import (
    STILL_VOLATILITY,
    TEN_FEATURES,
    Sample,
    TrainingRows,
    Trial,
    score_complete,
    settings_over,
    shares,
    training_rows,
    without_lags,
)
from volspike.models.linear import LinearModel, Standard
from volspike.models.onnx import Curve, Nodes, linear_graph


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


_DAY: Final = ("time_of_day_sin", "time_of_day_cos")
_HOUR: Final = "seconds_to_full_60min"
_HOUR_WAVES: Final = 4
"""Down to the quarters of an hour, at which much is scheduled."""

_PENALTY_SEASONAL: Final = 1e-3


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
        regression = LogisticRegression(C=1.0 / (_PENALTY_SEASONAL * float(rows.weight.sum())), max_iter=1000)
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
