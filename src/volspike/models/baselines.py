"""Baselines: the simple rules that a model must beat on the same rows.

- ``Persistence``: the next minute is like the last one.
- ``Ewma10`` to ``Ewma300``: exponentially weighted volatility; ``Ewma``: at the half-life that fits the training rows.
- ``Seasonal``: time of day and place in the hour only.
- ``Baseline``: the mean of z-scores, the rule of the earlier system, kept as a fallback.

``Har`` (``har``) and ``Garch`` (``garch``) are further ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from volspike.models.detector import TEN_FEATURES, Detector, TrainingRows, as_shares
from volspike.models.linear import fit_logistic
from volspike.models.onnx import GraphBuilder, LogisticCurve, convert_linear_classifier
from volspike.models.volatility_curve import VolatilityCurve, WeightedLogarithms, with_tau


class Persistence(Detector):
    """A logistic curve over the logarithm of the last minute's volatility, which ranks rows by that volatility.

    Relative to τ, if that differs from row to row.
    """

    name: ClassVar[str] = "persistence"
    is_baseline: ClassVar[bool] = True
    column: ClassVar[str] = "realized_volatility_60s"
    requirement: ClassVar[str] = f"the column {column}"

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """Its volatility, and τ."""
        return with_tau((cls.column,), offered)

    def learn(self, rows: TrainingRows) -> VolatilityCurve:
        """See ``Detector.learn``."""
        return VolatilityCurve.fit(rows, WeightedLogarithms.single(rows.names.index(self.column)))


class Ewma10(Persistence):
    """As ``Persistence``, of the exponentially weighted volatility with a half-life of 10 s.

    RiskMetrics technical document (1996).
    """

    name: ClassVar[str] = "ewma_10"
    column: ClassVar[str] = "ewma_volatility_10s"
    requirement: ClassVar[str] = f"the column {column}"


class Ewma30(Persistence):
    """The same with a half-life of 30 s."""

    name: ClassVar[str] = "ewma_30"
    column: ClassVar[str] = "ewma_volatility_30s"
    requirement: ClassVar[str] = f"the column {column}"


class Ewma60(Persistence):
    """The same with a half-life of 60 s."""

    name: ClassVar[str] = "ewma_60"
    column: ClassVar[str] = "ewma_volatility_60s"
    requirement: ClassVar[str] = f"the column {column}"


class Ewma300(Persistence):
    """The same with a half-life of 300 s."""

    name: ClassVar[str] = "ewma_300"
    column: ClassVar[str] = "ewma_volatility_300s"
    requirement: ClassVar[str] = f"the column {column}"


_EWMA: Final = re.compile(r"ewma_volatility_\d+s")


class Ewma(Detector):
    """The half-life with the least log loss on the training rows.

    On held-out days another one is often better. Each is a baseline of its own, so this one is trained on request only.
    """

    name: ClassVar[str] = "ewma"
    is_baseline: ClassVar[bool] = True
    is_always_compared: ClassVar[bool] = False
    requirement: ClassVar[str] = "a column ewma_volatility_*s"

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The exponentially weighted volatilities of all half-lives, and τ."""
        return with_tau(tuple(name for name in offered if _EWMA.fullmatch(name)), offered)

    def learn(self, rows: TrainingRows) -> VolatilityCurve:
        """See ``Detector.learn``."""
        half_lives = [rows.names.index(name) for name in rows.names if _EWMA.fullmatch(name)]
        curves = (VolatilityCurve.fit(rows, WeightedLogarithms.single(column)) for column in half_lives)
        return min(curves, key=lambda model: model.log_loss)


_DAY: Final = ("time_of_day_sin", "time_of_day_cos")
_HOUR: Final = "seconds_to_full_60min"
_HOUR_HARMONICS: Final = 4
"""Down to a quarter of an hour, a usual interval of scheduled events."""

_SEASONAL_PENALTY: Final = 1e-3


class Seasonal(Detector):
    """Logistic regression on two harmonics of the day and four of the hour, as far as their columns are offered."""

    name: ClassVar[str] = "seasonal"
    is_baseline: ClassVar[bool] = True
    requirement: ClassVar[str] = f"the columns {' and '.join(_DAY)}, or {_HOUR}"

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The phase of the day, if both its columns are offered, and the place in the hour."""
        usable = (*(_DAY if set(_DAY) <= set(offered) else ()), _HOUR)
        return tuple(name for name in offered if name in usable)

    def learn(self, rows: TrainingRows) -> SeasonalModel:
        """See ``Detector.learn``."""
        used = self.columns(rows.names)
        day = [rows.names.index(name) for name in _DAY] if _DAY[0] in used else []
        hour = [rows.names.index(_HOUR)] if _HOUR in used else []
        coefficients, intercept = fit_logistic(_harmonics(rows.x, day, hour), rows, _SEASONAL_PENALTY)
        return SeasonalModel(day, hour, coefficients, intercept, rows.x.shape[1])


@dataclass(frozen=True, slots=True)
class SeasonalModel:
    """Log odds of a spike as a weighted sum of harmonics.

    ``day`` and ``hour`` are the positions of their columns in a row of ``width`` values, [] without them.
    ``coefficients`` are those of the day's sines and cosines, then those of the hour's sines, then of its cosines.
    """

    day: list[int]
    hour: list[int]
    coefficients: NDArray[np.float64]
    intercept: float
    width: int

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The logistic function of the weighted sum."""
        log_odds = _harmonics(x, self.day, self.hour) @ self.coefficients + self.intercept
        probability: NDArray[np.float64] = expit(log_odds)
        return probability

    def importance(self) -> NDArray[np.float64]:
        """Shares of the absolute coefficients; those of the day are divided between its two columns."""
        weight = np.zeros(self.width)
        size = np.abs(self.coefficients)
        if self.day:
            weight[self.day] = size[:4].sum() / 2
        if self.hour:
            weight[self.hour] = size[-2 * _HOUR_HARMONICS :].sum()
        return as_shares(weight)

    def to_onnx(self) -> ModelProto:
        """The harmonics and their weights as one graph."""
        graph = GraphBuilder(self.width)
        total = graph.constant(np.array([self.intercept]))
        for weighted in (*self._add_day(graph), *self._add_hour(graph)):
            total = graph.add("Add", weighted, total)
        return graph.finish_log_odds(total)

    def _add_day(self, graph: GraphBuilder) -> Iterator[str]:
        if not self.day:
            return
        first, second = self.coefficients[:2], self.coefficients[2:4]
        day = graph.add("Clip", graph.to_double(graph.select(np.array(self.day))), np.float64(-1), np.float64(1))
        yield graph.add("MatMul", day, first)
        # twice the product of sine and cosine, as the sum of both orders, and the square of cosine minus that of sine
        swapped = graph.add("Gather", day, np.array([1, 0]), axis=1)
        yield graph.add("MatMul", graph.add("Mul", day, swapped), np.full(2, second[0]))
        yield graph.add("MatMul", graph.add("Mul", day, day), np.array([-second[1], second[1]]))

    def _add_hour(self, graph: GraphBuilder) -> Iterator[str]:
        if not self.hour:
            return
        seconds = graph.to_double(graph.select(np.array(self.hour)))
        clipped = graph.add("Clip", seconds, np.float64(0), np.float64(3600))
        phases = graph.add("Mul", clipped, np.arange(1, _HOUR_HARMONICS + 1) * (2 * np.pi / 3600))
        sines, cosines = np.split(self.coefficients[-2 * _HOUR_HARMONICS :], 2)
        yield graph.add("MatMul", graph.add("Sin", phases), sines)
        yield graph.add("MatMul", graph.add("Cos", phases), cosines)


def _harmonics(x: NDArray[np.float32], day: list[int], hour: list[int]) -> NDArray[np.float64]:
    """Sine and cosine of each harmonic for each complete row."""
    waves = []
    if day:
        sine, cosine = np.clip(x[:, day].astype(np.float64), -1.0, 1.0).T
        # sine and cosine of the double angle, without computing the angle
        waves += [sine, cosine, 2 * sine * cosine, cosine**2 - sine**2]
    if hour:
        phase = np.clip(x[:, hour[0]].astype(np.float64), 0.0, 3600.0) * (2 * np.pi / 3600)
        waves += [wave(n * phase) for wave in (np.sin, np.cos) for n in range(1, _HOUR_HARMONICS + 1)]
    return np.column_stack(waves)


SPIKE_COMPOSITE: Final = 2.0


class Baseline(Detector):
    """The z-score composite and a logistic curve that turns it into a probability.

    Each feature is standardized with its training mean and deviation; the composite is the mean of them, standardized
    again. The rule itself predicts a spike at a composite of 2 or more.
    """

    name: ClassVar[str] = "baseline"
    is_baseline: ClassVar[bool] = True

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The ten features of the rule, as far as they are offered; all columns if none is.

        More would drown them, as a plain mean cannot ignore a column.
        """
        return tuple(name for name in offered if name in TEN_FEATURES) or super().columns(offered)

    def learn(self, rows: TrainingRows) -> CompositeModel:
        """See ``Detector.learn``."""
        self._composite = CompositeModel.fit(rows)
        return self._composite

    def thresholds(self) -> dict[str, float]:
        """``composite_2``: the probability at a composite of 2, from which the rule predicts a spike."""
        return {"composite_2": float(self._composite.curve(np.array([SPIKE_COMPOSITE]))[0])}


@dataclass(frozen=True, slots=True)
class CompositeModel:
    """A logistic curve over the mean of z-scores, standardized with its training mean ``centre`` and ``deviation``."""

    scaler: StandardScaler
    centre: float
    deviation: float
    curve: LogisticCurve

    @classmethod
    def fit(cls, rows: TrainingRows) -> Self:
        """Means and deviations of complete rows, and the curve that fits their outcomes best."""
        scaler = StandardScaler().fit(rows.x.astype(np.float64), sample_weight=rows.weight)
        mean = _mean_z_score(scaler, rows.x)
        centre = float(np.average(mean, weights=rows.weight))
        deviation = float(np.sqrt(np.average((mean - centre) ** 2, weights=rows.weight))) or 1.0
        return cls(scaler, centre, deviation, LogisticCurve.fit((mean - centre) / deviation, rows.y, rows.weight))

    def composite(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The composite of each complete row: mean 0 and deviation 1 over the training rows."""
        return (_mean_z_score(self.scaler, x) - self.centre) / self.deviation

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The curve at each row's composite."""
        return self.curve(self.composite(x))

    def importance(self) -> NDArray[np.float64]:
        """Equal shares."""
        width = len(self.scaler.mean_)
        return np.full(width, 1.0 / width)

    def to_onnx(self) -> ModelProto:
        """The equivalent logistic regression with equal weights."""
        width = len(self.scaler.mean_)
        slope, intercept = self.curve.slope, self.curve.intercept
        regression = LogisticRegression()
        regression.classes_ = np.array([0, 1])
        regression.coef_ = np.full((1, width), slope / self.deviation / width)
        regression.intercept_ = np.array([intercept - slope * self.centre / self.deviation])
        return convert_linear_classifier(self.scaler, regression)


def _mean_z_score(scaler: StandardScaler, x: NDArray[np.float32]) -> NDArray[np.float64]:
    standard: NDArray[np.float64] = scaler.transform(x.astype(np.float64))
    mean: NDArray[np.float64] = standard.mean(axis=1)
    return mean
