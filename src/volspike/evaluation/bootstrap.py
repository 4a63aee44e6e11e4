"""Intervals that respect time: rows close together share their windows and their future.

A moving block bootstrap (Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", Annals
of Statistics 17, 1989): whole stretches of time are drawn with replacement until the data's length is reached.
Blocks are of time rather than of rows, because ticks come unevenly. The rows of all products within a block
go together, since markets move together.

What such an interval says: how far a figure could have come out otherwise on days like those recorded. It knows
nothing of days unlike them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, nan
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.compiled import compiled

RESAMPLES: Final = 1000
LEVEL: Final = 0.95
LEAST_BLOCKS: Final = 5
"""With fewer blocks in the data than this, their resampling says nothing and the interval is NaN."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Lower and upper end; NaN where there is too little data to tell."""

    low: float
    high: float


UNTOLD: Final = Interval(nan, nan)


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Which stretches of rows each of r resamples is made of.

    ``order`` (n) are the rows by time; block b of resample r is rows ``order[first[r, b]:beyond[r, b]]``.
    """

    order: NDArray[np.int64]
    first: NDArray[np.int32]
    beyond: NDArray[np.int32]

    @classmethod
    def of(cls, time: NDArray[np.int64], block_s: float, resamples: int = RESAMPLES, seed: int = 0) -> Self:
        """Blocks of ``block_s`` seconds of the rows at ``time`` (n, ns, any order); none for too little time.

        Blocks may begin up to one length before the first row, so that every row is as likely to be drawn as any
        other, however densely rows stand; a silence counts as one block at most. The seed alone decides what is
        drawn, so that figures of two models on the same rows can be subtracted resample by resample.
        """
        order = np.argsort(time, kind="stable")
        steps = np.minimum(np.diff(time[order], prepend=time[order][:1]) / 1e9, block_s)
        elapsed = np.cumsum(steps)
        span = float(elapsed[-1]) if len(elapsed) else 0.0
        if len(elapsed) == 0 or span < LEAST_BLOCKS * block_s:
            nothing = np.zeros((0, 0), np.int32)
            return cls(order, nothing, nothing)
        start = np.random.default_rng(seed).uniform(-block_s, span, (resamples, ceil(span / block_s) + 1))
        first = np.searchsorted(elapsed, start).astype(np.int32)
        return cls(order, first, np.searchsorted(elapsed, start + block_s).astype(np.int32))

    def __len__(self) -> int:
        return len(self.first)

    def weight(self, resample: int) -> NDArray[np.int16]:
        """How often this resample draws each row, in the rows' own order."""
        return drawn_times(self.order, self.first[resample], self.beyond[resample])

    def sums(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """(r, m) the sums of columns (n, m) over the rows that each resample draws."""
        reached = np.zeros((len(self.order) + 1, columns.shape[1]))
        np.cumsum(columns[self.order], axis=0, out=reached[1:])
        result = np.empty((len(self), columns.shape[1]))
        for resample, (first, beyond) in enumerate(zip(self.first, self.beyond, strict=True)):
            result[resample] = (reached[beyond] - reached[first]).sum(axis=0)
        return result


@compiled
def drawn_times(order: NDArray[np.int64], first: NDArray[np.int32], beyond: NDArray[np.int32]) -> NDArray[np.int16]:
    """How many of the stretches ``order[first:beyond]`` hold each row; a handful at most, so that 16 bits do."""
    opened = np.zeros(len(order) + 1, np.int16)
    for block in range(len(first)):
        opened[first[block]] += 1
        opened[beyond[block]] -= 1
    weight = np.empty(len(order), np.int16)
    standing = 0
    for place in range(len(order)):
        standing += opened[place]
        weight[order[place]] = standing
    return weight


def percentile_interval(values: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """The middle ``level`` of resampled values; NaN where under half of them are defined."""
    defined = values[~np.isnan(values)]
    if len(defined) == 0 or 2 * len(defined) < len(values):
        return UNTOLD
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
