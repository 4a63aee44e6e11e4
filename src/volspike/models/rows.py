"""Which values a detector is given, and which rows it can use: one rule for training and for scoring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volspike.errors import NotEnoughData
from volspike.models.sample import Sample


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
