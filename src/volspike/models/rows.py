"""Which values a detector is given, and which rows it can use: one rule for training and for scoring."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from volspike.errors import NotEnoughData


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


def training_rows(
    x: NDArray[np.float64], y: NDArray[np.int8], *, accepts_missing: bool
) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The rows to learn from: in float32, without those that miss a value unless ``accepts_missing``.

    Raises:
        NotEnoughData: what remains is not of both classes.
    """
    single = as_single(x)
    if not accepts_missing:
        kept = is_complete(single)
        single, y = single[kept], y[kept]
    spikes = int(np.count_nonzero(y))
    if spikes in (0, len(y)):
        raise NotEnoughData(
            f"{len(y):,} of {len(x):,} training rows can be used and {spikes:,} of them are spikes: "
            "learning takes both kinds; record for longer, or leave out the columns that miss values"
        )
    return single, y


def score_complete(
    x: NDArray[np.float64], score: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """``score`` of the rows that have all their values; NaN for the others."""
    single = as_single(x)
    complete = is_complete(single)
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
