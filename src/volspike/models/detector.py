"""``Detector``: what every model of volatility spikes can do, the registry ``DETECTORS``, and the rows they learn from.

A detector class is its name, its columns, its settings and ``learn``, which returns a ``FittedModel``. The checks of
columns, settings and missing values are here, the same for all.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from inspect import isabstract
from math import inf
from typing import Any, ClassVar, Final, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

from volspike.errors import NotEnoughData, PluginFailed, UsageError, VolspikeError
from volspike.features.catalogue import CATALOGUE
from volspike.features.extra import is_extra
from volspike.labels import TAU
from volspike.plugins import MODELS, describe_names, find_plugin, installed


class FittedModel(Protocol):
    """A model that a detector has fitted."""

    def score(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The probability of a spike for each row that can be scored (n, f)."""
        ...

    def importance(self) -> NDArray[np.float64]:
        """The importance of each feature: f shares, none negative, with sum 1."""
        ...

    def to_onnx(self) -> Any:
        """An ``onnx.ModelProto`` with input ``features`` float32 [N, f] and output ``probability`` float32 [N]."""
        ...


class Trial(Protocol):
    """One trial of a settings search, such as an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number from ``low`` to ``high``."""
        ...

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """An integer from ``low`` to ``high``."""
        ...


class Detector(ABC):
    """Learns from feature rows how likely each is to be followed by a spike.

    All detectors learn from values rounded to float32, the precision of their ONNX form. Missing values are never
    imputed: rows that miss a value the detector requires are excluded from training, and their probability is NaN.

    The same ``seed``, ``settings`` and rows give the same detector.

    Raises:
        UsageError: a setting that the detector does not have.
    """

    name: ClassVar[str]
    accepts_missing: ClassVar[bool] = False
    """Whether rows may miss values other than those of ``required_columns``."""
    is_baseline: ClassVar[bool] = False
    """Whether it is one of the simple rules that a model must beat."""
    is_always_compared: ClassVar[bool] = True
    """Whether every training run includes it, if it is a baseline."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """The settings and their default values."""
    requirement: ClassVar[str] = "a column"
    """The columns it cannot work without, for the error message."""
    origin: ClassVar[str] = ""
    """The distribution and version that adds it; "" if it is built in."""

    _model: FittedModel
    _required: list[int] | None

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        settings = settings or {}
        unknown = sorted(set(settings) - set(self.defaults))
        if unknown:
            known = ", ".join(self.defaults) or "none"
            raise UsageError(f"{self.name} has no setting {', '.join(unknown)}; there are {known}")
        self._seed = seed
        self._settings = {**self.defaults, **settings}

    @property
    def seed(self) -> int:
        """The seed of every random choice in training."""
        return self._seed

    @property
    def settings(self) -> Mapping[str, Any]:
        """The value of every setting."""
        return self._settings

    @property
    def title(self) -> str:
        """The name and, of a plug-in, its distribution, for messages."""
        return f"{self.name} of {self.origin}" if self.origin else self.name

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The ``offered`` columns that it uses, in their order; () if it cannot work with them.

        By default all except τ and the second-by-second ones.
        """
        return tuple(name for name in without_lags(offered) if name != TAU)

    @classmethod
    def search_space(cls, trial: Trial) -> dict[str, Any]:  # noqa: ARG003
        """Settings suggested by ``trial``; {} if there is nothing to search."""
        return {}

    def fit(self, sample: Sample) -> Self:
        """Learns from a sample whose columns ``columns`` selected.

        Raises:
            NotEnoughData: the usable rows are of one class only.
            UsageError: a required column is missing, or a required library is not installed.
            PluginFailed: the code of a plug-in raised.
        """
        if not self.columns(sample.names):
            raise UsageError(f"{self.name} needs {self.requirement}")
        self._required = self.required_columns(sample)
        rows = training_rows(sample, self._required)
        with self._own_code("learn"):
            self._model = self.learn(rows)
        return self

    @contextmanager
    def _own_code(self, method: str) -> Iterator[None]:
        """Errors of a plug-in's code name its distribution; those of volspike, and of built-in models, pass."""
        try:
            yield
        except VolspikeError:
            raise
        except Exception as error:  # other people's code may raise anything
            if not self.origin:
                raise
            raise PluginFailed(f"the model {self.title} failed in {method}: {type(error).__name__}: {error}") from error

    def required_columns(self, sample: Sample) -> list[int] | None:  # noqa: ARG002
        """The columns of which a row must not miss a value, None for all."""
        return [] if self.accepts_missing else None

    @abstractmethod
    def learn(self, rows: TrainingRows) -> FittedModel:
        """A model fitted to rows that have all required values and are of both classes."""

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of a spike for each row of ``x`` (n, f); NaN for a row that cannot be scored.

        Raises:
            PluginFailed: the code of a plug-in raised, or returned something else than a probability for each row.
        """
        single = as_float32(x)
        complete = is_complete(single if self._required is None else single[:, self._required])
        probability = np.full(len(single), np.nan)
        if complete.any():
            rows = single[complete]
            with self._own_code("score"):
                scores = self._model.score(rows)
            if self.origin:
                self._check_numbers("score", scores, len(rows), most=1.0)
            probability[complete] = scores
        return probability

    def importance(self) -> NDArray[np.float64]:
        """The importance of each feature: f shares, none negative, with sum 1."""
        return self._model.importance()

    def feature_importance(self, names: Sequence[str]) -> dict[str, float]:
        """The importance of each of the features that it was fitted on, by name.

        Raises:
            PluginFailed: the code of a plug-in raised, or returned something else than a share for each feature.
        """
        with self._own_code("importance"):
            shares = self.importance()
        if self.origin:
            self._check_numbers("importance", shares, len(names))
        return dict(zip(names, shares.tolist(), strict=True))

    def _check_numbers(self, method: str, values: Any, length: int, most: float = inf) -> None:
        """Raises PluginFailed if a plug-in returned something else than ``length`` numbers from 0 to ``most``."""
        shape = getattr(values, "shape", type(values).__name__)
        if shape != (length,):
            raise PluginFailed(f"the model {self.title} returned {shape} from {method} instead of {(length,)}")
        wrong = np.flatnonzero(~((values >= 0.0) & (values <= most) & np.isfinite(values)))
        if len(wrong):
            limits = "in [0, 1]" if most == 1.0 else "of at least 0"
            raise PluginFailed(
                f"the model {self.title} returned {values[wrong[0]]} from {method}, at {wrong[0]} of {length:,}; it "
                f"must be a number {limits}"
            )

    def thresholds(self) -> dict[str, float]:
        """The detector's own thresholds of probability by name, if it has any."""
        return {}

    def to_onnx(self) -> Any:
        """An ``onnx.ModelProto`` with input ``features`` float32 [N, f] and output ``probability`` float32 [N].

        Raises:
            PluginFailed: the code of a plug-in raised.
        """
        with self._own_code("to_onnx"):
            return self._model.to_onnx()


class _Registry(Mapping[str, type[Detector]]):
    """Name → class. Reading the names imports nothing; getting a class imports its library.

    ``built_in`` are the names in this package; the others are those of plug-ins.
    """

    def __init__(self, locations: Mapping[str, str]) -> None:
        self._locations = dict(locations)
        self.built_in = tuple(locations)

    def __getitem__(self, name: str) -> type[Detector]:
        location = self._locations.get(name)
        if location is None:
            return _load_plugin(name)
        module, _, kind = location.partition(":")
        return cast("type[Detector]", getattr(import_module(module), kind))

    def __iter__(self) -> Iterator[str]:
        added = (plugin.name for plugin in installed(MODELS) if plugin.name not in self._locations)
        return iter(dict.fromkeys((*self._locations, *added)))

    def __len__(self) -> int:
        return len(tuple(iter(self)))

    def describe(self) -> str:
        """All names, those of plug-ins with their distributions, for messages."""
        return ", ".join(describe_names(MODELS, self.built_in))


@cache
def _load_plugin(name: str) -> type[Detector]:
    """The model that an installed distribution adds.

    Raises:
        KeyError: none does.
        UsageError: it cannot be used; the message names the distribution.
    """
    plugin = find_plugin(MODELS, name)
    if plugin is None:
        raise KeyError(name)
    loaded = plugin.load()
    if not (isinstance(loaded, type) and issubclass(loaded, Detector)) or isabstract(loaded):
        kind = loaded.__name__ if isinstance(loaded, type) else type(loaded).__name__
        raise UsageError(f"{plugin.place} must name a subclass of Detector that defines learn, got {kind}")
    if getattr(loaded, "name", None) != name or loaded.is_baseline:
        raise UsageError(f"{plugin.place} must name a Detector with the name {name} that is no baseline")
    loaded.origin = plugin.origin
    return loaded


DETECTORS: Final = _Registry(
    {
        "baseline": "volspike.models.baselines:Baseline",
        "persistence": "volspike.models.baselines:Persistence",
        "ewma_10": "volspike.models.baselines:Ewma10",
        "ewma_30": "volspike.models.baselines:Ewma30",
        "ewma_60": "volspike.models.baselines:Ewma60",
        "ewma_300": "volspike.models.baselines:Ewma300",
        "ewma": "volspike.models.baselines:Ewma",
        "har": "volspike.models.har:Har",
        "garch": "volspike.models.garch:Garch",
        "seasonal": "volspike.models.baselines:Seasonal",
        "logistic": "volspike.models.linear:Logistic",
        "random_forest": "volspike.models.trees:RandomForest",
        "xgboost": "volspike.models.trees:XGBoost",
        "lightgbm": "volspike.models.combined:LightGBM",
        "lstm": "volspike.models.lstm:Lstm",
    }
)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows in time order; ``names`` are the columns of ``x`` (n, f), in which NaN is a missing value.

    ``x`` is in double precision, or in that of the ONNX form (``as_float32``), which takes half the memory.
    ``volatility`` (n,) is the future volatility of each row, ``y`` (n,) is 1 where it is at least ``tau`` (n,). If that
    differs from row to row, it is also the last column of ``x``, named ``TAU``. ``weight``
    (n,) is above 0 and 1 on average; rows whose futures overlap count less.

    Raises:
        UsageError: lengths that do not match, or a ``tau`` or weight that is not above 0.
    """

    names: tuple[str, ...]
    x: NDArray[Any]
    y: NDArray[np.int8]
    volatility: NDArray[np.float64]
    tau: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        rows = len(self.y)
        shapes = {"x": (rows, len(self.names)), "volatility": (rows,), "tau": (rows,), "weight": (rows,)}
        for field, shape in shapes.items():
            if getattr(self, field).shape != shape:
                raise UsageError(f"{field} of a sample must be {shape}, was {getattr(self, field).shape}")
        if not (self.tau > 0.0).all() or not (self.weight > 0.0).all():
            raise UsageError("tau and the weights of a sample must be above 0")

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, selected: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """The rows of an index or a mask, with unchanged weights."""
        return type(self)(
            self.names,
            self.x[selected],
            self.y[selected],
            self.volatility[selected],
            self.tau[selected],
            self.weight[selected],
        )


@dataclass(frozen=True, slots=True, eq=False)
class TrainingRows:
    """The rows of a sample that a detector learns from, in the precision of its ONNX form."""

    names: tuple[str, ...]
    x: NDArray[np.float32]
    y: NDArray[np.int8]
    volatility: NDArray[np.float64]
    tau: NDArray[np.float64]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.y)


def training_rows(sample: Sample, required: list[int] | None = None) -> TrainingRows:
    """The rows that miss no value of the ``required`` columns, by default of any column.

    Raises:
        NotEnoughData: the remaining rows are not of both classes.
    """
    single = as_float32(sample.x)
    kept = is_complete(single if required is None else single[:, required])
    rows = TrainingRows(
        sample.names,
        # in one memory order, on which the last bit of a sum depends
        np.ascontiguousarray(single) if kept.all() else single[kept],
        sample.y[kept],
        sample.volatility[kept],
        sample.tau[kept],
        sample.weight[kept],
    )
    spikes = int(np.count_nonzero(rows.y))
    if spikes in (0, len(rows)):
        raise NotEnoughData(
            f"{len(rows):,} of {len(sample):,} training rows can be used and {spikes:,} of them are spikes: "
            "training needs spikes and calm rows; record for longer, or leave out the columns that miss values"
        )
    return rows


def as_float32(x: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float32]:
    """``x`` in the precision of every model's ONNX form; values that are not finite in it are missing (NaN).

    An array that is in this form already is returned as it is.
    """
    if x.dtype == np.float32 and not np.isinf(x).any():
        return np.asarray(x, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.asarray(x, np.float64).astype(np.float32)
    single[~np.isfinite(single)] = np.nan
    return single


def is_complete(x: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each row of ``x`` has all its values."""
    return np.logical_not(np.isnan(x).any(axis=1))


def as_shares(weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Non-negative weights divided by their sum; equal shares if all weights are 0."""
    total = float(weight.sum())
    if total <= 0.0:
        return np.full(len(weight), 1.0 / len(weight))
    return weight / total


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
"""The ten features of the earlier system's models, in its order."""

VOLATILITY_OFFSET: Final = 1e-6
"""Added to a volatility before its logarithm: a minute without a price change has volatility 0.

It is a hundredth of a basis point per second, too little to matter in any minute with price changes."""

_RATIO_OFFSET: Final = 1e-2
"""The same for ratios, rates per second and basis points."""

_COUNT_OFFSET: Final = 1.0

_VOLATILITY: Final = re.compile(r"[a-z]+_volatility_\d+s")
_PLAIN_VOLATILITY: Final = re.compile(r"(realized|ewma)_volatility_\d+s")
_LAG: Final = re.compile(r"lag_(return|ticks)_\d+s")
_PRICE_SCALED: Final = re.compile(r"(price_velocity|spread_mean|volume_velocity)_\d+s")
"""In the quote or base currency: a model of several products, or of years, would learn the price of one product."""


def default_columns(names: Sequence[str]) -> tuple[str, ...]:
    """The columns to learn from by default.

    Of a full or deep feature set all that do not scale with the product's price; otherwise ``TEN_FEATURES``, whether
    or not ``names`` holds them, and all extra features.
    """
    if not any(name in CATALOGUE for name in names):
        return (*TEN_FEATURES, *(name for name in names if is_extra(name)))
    return tuple(name for name in names if not _PRICE_SCALED.fullmatch(name))


def without_lags(offered: Sequence[str]) -> tuple[str, ...]:
    """All except the second-by-second columns, which are for models of sequences."""
    return tuple(name for name in offered if not _LAG.fullmatch(name))


def plain_volatilities(names: Sequence[str]) -> tuple[str, ...]:
    """The realized and the exponentially weighted volatilities in ``names``."""
    return tuple(name for name in names if _PLAIN_VOLATILITY.fullmatch(name))


def log_offset(name: str) -> float | None:
    """The number that a linear model adds to a column before taking its logarithm; None: it takes no logarithm.

    Logarithms are for values that span orders of magnitude and mean the same for every product: volatilities, ratios,
    rates and counts of ticks, not amounts in the quote or base currency.
    """
    if name == TAU or _VOLATILITY.fullmatch(name):
        return VOLATILITY_OFFSET
    if name.startswith("trade_intensity_"):
        return _COUNT_OFFSET
    known = CATALOGUE.get(name)
    return _RATIO_OFFSET if known is not None and known.is_logarithmic else None
