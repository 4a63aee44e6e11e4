"""A detector's settings: its defaults, with those put over them that were asked for.

Which columns a model takes, and what a linear one makes of each.

What a detector learns from: rows, what followed each of them, and how much each of them counts.

Which values a detector is given, and which rows it can use: one rule for training and for scoring.

What every detector of volatility spikes can do; one file per detector beside this one.

Which detectors there are, by name; each is imported when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar, Final, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from volspike.errors import NotEnoughData, UsageError
from volspike.features.schema import CATALOGUE


def settings_over(defaults: Mapping[str, Any], asked: Mapping[str, Any] | None, detector: str) -> dict[str, Any]:
    """``defaults`` with the ``asked`` values in place.

    Raises:
        UsageError: a setting that the detector does not have.
    """
    unknown = sorted(set(asked or ()) - set(defaults))
    if unknown:
        there_are = ", ".join(defaults) or "none"
        raise UsageError(f"{detector} has no setting {', '.join(unknown)}; there are {there_are}")
    return {**defaults, **(asked or {})}


TEN_FEATURES: Final = (
    "log_return_300s",
    "spread_mean_300s",
    "trade_intensity_300s",
    "order_book_imbalance_300s",
    "spread_mean_60s",
    "order_book_imbalance_60s",
    "price_velocity_300s",
    "realized_volatility_300s",
    "order_book_imbalance_30s",
    "realized_volatility_60s",
)
"""The ten features that the earlier system's models were trained on, in its order."""

STILL_VOLATILITY: Final = 1e-6
"""Added to a volatility before its logarithm is taken: a minute in which no price moved has volatility 0.

A hundredth of a basis point a second: too little to matter to any minute in which prices did move."""

_STILL_RATIO: Final = 1e-2
"""The same for ratios, rates a second and basis points, of which a hundredth is next to nothing."""

_ONE_TICK: Final = 1.0

_VOLATILITY: Final = re.compile(r"[a-z]+_volatility_\d+s")
_LOG_VOLATILITY: Final = re.compile(r"(realized|ewma)_volatility_\d+s")
_LAG: Final = re.compile(r"lag_(return|ticks)_\d+s")


_OF_ITS_PRODUCT: Final = re.compile(r"(price_velocity|spread_mean|volume_velocity)_\d+s")
"""In the quote or base currency: a model of several products, or of years, would learn what is one product's price."""


def default_columns(names: Sequence[str]) -> tuple[str, ...]:
    """What is learned from unless columns are asked for: of a full or deep feature set whatever is free of the
    product's scale, else ``TEN_FEATURES``, whether ``names`` holds them or not.
    """
    if not any(name in CATALOGUE for name in names):
        return TEN_FEATURES
    return tuple(name for name in names if not _OF_ITS_PRODUCT.fullmatch(name))


def log_floor(name: str) -> float | None:
    """What is added to a column before a linear model takes its logarithm; None for one that it takes as it is.

    Logarithms are taken of what spreads over orders of magnitude and has a scale of its own: volatilities, ratios,
    rates, counts of ticks. Quantities in the quote or base currency have none that holds for every product.
    """
    if _VOLATILITY.fullmatch(name):
        return STILL_VOLATILITY
    if name.startswith("trade_intensity_"):
        return _ONE_TICK
    known = CATALOGUE.get(name)
    return _STILL_RATIO if known is not None and known.is_logarithmic else None


def log_floors(names: Sequence[str]) -> tuple[float | None, ...]:
    """``log_floor`` of each column."""
    return tuple(map(log_floor, names))


def without_lags(offered: Sequence[str]) -> tuple[str, ...]:
    """All but the second-by-second columns, which are for models that read a sequence."""
    return tuple(name for name in offered if not _LAG.fullmatch(name))


def plain_volatilities(names: Sequence[str]) -> tuple[str, ...]:
    """The realized and the exponentially weighted volatilities among ``names``."""
    return tuple(name for name in names if _LOG_VOLATILITY.fullmatch(name))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows in time order; ``names`` are the columns of ``x`` (n, f), in which NaN stands for what was not told.

    ``volatility`` (n,) is the future volatility of each row, ``y`` (n,) is 1 where it reached ``tau``. ``weight`` (n,)
    is above 0 and 1 on average: rows that share their future with others count less.

    Raises:
        UsageError: lengths that do not fit together, a ``tau`` or a weight that is not above 0.
    """

    names: tuple[str, ...]
    x: NDArray[np.float64]
    y: NDArray[np.int8]
    volatility: NDArray[np.float64]
    tau: float
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        rows = len(self.y)
        shapes = {"x": (rows, len(self.names)), "volatility": (rows,), "weight": (rows,)}
        for what, shape in shapes.items():
            if getattr(self, what).shape != shape:
                raise UsageError(f"{what} of a sample must be {shape}, was {getattr(self, what).shape}")
        if not self.tau > 0.0 or not (self.weight > 0.0).all():
            raise UsageError("tau and the weights of a sample must be above 0")

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, kept: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """The rows of these numbers, or those where ``kept`` is true, with the weights that they had."""
        return type(self)(self.names, self.x[kept], self.y[kept], self.volatility[kept], self.tau, self.weight[kept])


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """The rows of a sample that can be learned from, in the precision that the ONNX form is given."""

    x: NDArray[np.float32]
    y: NDArray[np.int8]
    volatility: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.y)


def as_single(x: NDArray[np.float64]) -> NDArray[np.float32]:
    """``x`` as float32, the precision of every model's ONNX form; what is not finite in it is missing (NaN).

    A value beyond float32's reach is as little a measurement as an infinite one.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.asarray(x, np.float64).astype(np.float32)
    single[~np.isfinite(single)] = np.nan
    return single


def is_complete(x: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each row of ``x`` has all its values."""
    return np.logical_not(np.isnan(x).any(axis=1))


def training_rows(sample: Sample, *, accepts_missing: bool, needed: list[int] | None = None) -> TrainingRows:
    """The rows to learn from: without those that miss a value unless ``accepts_missing``, or one of the ``needed``.

    Raises:
        NotEnoughData: what remains is not of both classes.
    """
    single = as_single(sample.x)
    kept = is_complete(single[:, needed or []] if accepts_missing else single)
    rows = TrainingRows(single[kept], sample.y[kept], sample.volatility[kept], sample.weight[kept])
    spikes = int(np.count_nonzero(rows.y))
    if spikes in (0, len(rows)):
        raise NotEnoughData(
            f"{len(rows):,} of {len(sample):,} training rows can be used and {spikes:,} of them are spikes: "
            "learning takes both kinds; record for longer, or leave out the columns that miss values"
        )
    return rows


def score_complete(
    x: NDArray[np.float64],
    score: Callable[[NDArray[np.float32]], NDArray[np.float64]],
    needed: list[int] | None = None,
) -> NDArray[np.float64]:
    """``score`` of the rows that have all their values, or all of the ``needed`` columns; NaN for the others."""
    single = as_single(x)
    complete = is_complete(single if needed is None else single[:, needed])
    probability = np.full(len(single), np.nan)
    if complete.any():
        probability[complete] = score(single[complete])
    return probability


def shares(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative weights as shares of sum 1; equal shares where nothing has any weight."""
    total = float(weight.sum())
    if total <= 0.0:
        return np.full(len(weight), 1.0 / len(weight))
    return weight / total


class Trial(Protocol):
    """One try of a search, which is asked for each setting by name: an Optuna trial is one."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number from ``low`` to ``high``."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number from ``low`` to ``high``."""
        ...


class Detector(Protocol):
    """Learns from rows of features how likely each is to be followed by a spike.

    All detectors learn from values rounded to float32, since that is what their ONNX form is given. Missing
    values are never made up: a detector either takes them as they are (``accepts_missing``; NaN is then its answer
    only where it says so) or leaves their rows out of its training and answers NaN for them.

    ``is_baseline`` marks the rules that a trader has without any learning worth the name: what a model must beat.
    """

    name: ClassVar[str]
    accepts_missing: ClassVar[bool]
    is_baseline: ClassVar[bool]

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        """A detector that has learned nothing; the same ``seed``, ``settings`` and rows give the same detector.

        Raises:
            UsageError: a setting that it does not have.
        """

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """Those of the ``offered`` columns that it takes, in their order; () where it cannot do with them."""
        ...

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        """Settings that ``trial`` proposes; {} where there is nothing to search."""
        ...

    def fit(self, sample: Sample) -> Self:
        """Learn from a sample of the columns that ``columns`` chose.

        Raises:
            NotEnoughData: the rows that can be used are of one class only.
            UsageError: a column that it needs is not among them, or a library that it needs is not installed.
        """
        ...

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike for each row of ``x`` (n, f); NaN where a row cannot be scored."""
        ...

    def importance(self) -> NDArray[np.float64]:
        """How much each feature counts: f shares, none negative, of sum 1."""
        ...

    def thresholds(self) -> dict[str, float]:
        """Thresholds of probability that belong to the detector itself, by name; mostly none."""
        ...

    def to_onnx(self) -> Any:
        """An ``onnx.ModelProto``: input ``features`` float32 [N, f], output ``probability`` float32 [N]."""
        ...


class _Detectors(Mapping[str, type[Detector]]):
    """Name → class. Looking at the names imports nothing; taking a class imports its library."""

    def __init__(self, places: Mapping[str, str]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> type[Detector]:
        module, _, kind = self._places[name].partition(":")
        return cast("type[Detector]", getattr(import_module(module), kind))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


DETECTORS: Final[Mapping[str, type[Detector]]] = _Detectors(
    {
        "baseline": "volspike.models.baselines:Baseline",
        "persistence": "volspike.models.baselines:Persistence",
        "ewma": "volspike.models.baselines:Ewma",
        "har": "volspike.models.baselines:Har",
        "seasonal": "volspike.models.baselines:Seasonal",
        "logistic": "volspike.models.linear:Logistic",
        "random_forest": "volspike.models.trees:RandomForest",
        "xgboost": "volspike.models.trees:XGBoost",
        "lightgbm": "volspike.models.trees:LightGBM",
        "lstm": "volspike.models.lstm:Lstm",
    }
)
