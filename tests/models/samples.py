"""Rows to learn from, made up."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from volspike.models import DETECTORS, Detector, Sample
from volspike.models.scorer import Scorer

QUICK: Final[dict[str, dict[str, Any]]] = {
    "random_forest": {"trees": 30},
    "xgboost": {"rounds": 60, "learning_rate": 0.1},
    "lightgbm": {"rounds": 60, "learning_rate": 0.1},
    "lstm": {"hidden": 4, "epochs": 1},
}
"""Settings with which a detector learns enough within a second."""

ALL: Final = tuple(DETECTORS)
ANY_COLUMNS: Final = ("baseline", "logistic", "random_forest", "xgboost", "lightgbm")
"""Those that take columns of any name."""


def sample_of(
    x: NDArray[np.float64], y: NDArray[np.int8], names: Sequence[str] = (), weight: NDArray[np.float64] | None = None
) -> Sample:
    """A sample where only spike or no spike is known: twice τ for one, a third of τ for the other."""
    return Sample(
        names=tuple(names) or tuple(f"column_{number}" for number in range(x.shape[1])),
        x=x,
        y=y,
        volatility=np.where(y == 1, 2.0, 1 / 3) * 1e-4,
        tau=np.full(len(y), 1e-4),
        weight=np.ones(len(y)) if weight is None else weight,
    )


def market_sample(rows: int, seed: int, width: int = 10) -> Sample:
    """Rows with columns on a market's scales; the first column predicts spikes."""
    random = np.random.default_rng(seed)
    scale = 10.0 ** random.integers(-5, 4, width)
    signal = random.normal(size=rows)
    x = random.normal(size=(rows, width)) * scale + 3 * scale
    x[:, 0] = (signal + 3) * 1e-5
    excess = signal + 0.3 * random.normal(size=rows) - 1.3
    return dataclasses.replace(sample_of(x, (excess > 0).astype(np.int8)), volatility=1e-4 * np.exp(excess))


def full_sample(rows: int, seed: int, *, deep: bool = False) -> Sample:
    """Rows with the columns that every detector takes, of a market whose volatility moves slowly.

    Each second's log return is drawn with a volatility that wanders: what is measured of the past is in the columns,
    that of the minute to come is to be predicted.
    """
    random = np.random.default_rng(seed)
    seconds = rows + 700
    level = np.cumsum(random.normal(size=seconds)) * 0.03
    level = 1e-4 * np.exp(level - np.linspace(0, level[-1], seconds))
    returns = random.normal(size=seconds) * level
    ticks = random.poisson(3e4 * level).astype(np.float64)
    now = np.arange(600, 600 + rows)

    def deviation(window: int, end: NDArray[np.int64]) -> NDArray[np.float64]:
        steps = np.lib.stride_tricks.sliding_window_view(returns, window)
        spread: NDArray[np.float64] = steps.std(axis=1)[end - window]
        return spread

    columns: dict[str, NDArray[Any]] = {f"realized_volatility_{w}s": deviation(w, now) for w in (30, 60, 300)}
    columns |= {f"ewma_volatility_{h}s": deviation(min(3 * h, 600), now) for h in (10, 30, 60, 300)}
    day, hour = 2 * np.pi * now / 86_400, now % 3600
    columns |= {"time_of_day_sin": np.sin(day), "time_of_day_cos": np.cos(day)}
    columns |= {"seconds_to_full_60min": 3600.0 - hour, "trend_60s": random.normal(size=rows)}
    if deep:
        columns |= {f"lag_return_{lag}s": returns[now - lag] for lag in range(1, 61)}
        columns |= {f"lag_ticks_{lag}s": ticks[now - lag] for lag in range(1, 61)}
    volatility = deviation(60, now + 60)
    tau = float(np.quantile(volatility, 0.8))
    return Sample(
        names=tuple(columns),
        x=np.column_stack(list(columns.values())),
        y=(volatility >= tau).astype(np.int8),
        volatility=volatility,
        tau=np.full(rows, tau),
        weight=np.ones(rows),
    )


def chosen(name: str, sample: Sample) -> Sample:
    """The columns of a sample that a detector takes."""
    names = DETECTORS[name].columns(sample.names)
    return dataclasses.replace(sample, names=names, x=sample.x[:, [sample.names.index(column) for column in names]])


def fitted(name: str, sample: Sample, *, seed: int = 0, **settings: Any) -> Detector:
    """A detector that has learned from its columns of a sample, with quick settings."""
    return DETECTORS[name](seed=seed, settings={**QUICK.get(name, {}), **settings}).fit(chosen(name, sample))


def exported(detector: Detector, width: int) -> Scorer:
    """What is served of a detector."""
    return Scorer(detector.to_onnx().SerializeToString(), width=width, accepts_missing=detector.accepts_missing)


@cache
def learned(name: str) -> tuple[Sample, Detector]:
    """A detector, and the market that it learned from; both are shared, so leave them as they are."""
    sample = chosen(name, full_sample(700, 21, deep=True))
    return sample, fitted(name, sample)
