"""Intervals for PR-AUC that respect time: rows close together share their windows and their future.

A moving block bootstrap (Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", Annals
of Statistics 17, 1989): whole stretches of time are drawn with replacement until the data's length is reached.
Blocks are of time rather than of rows, because ticks come unevenly. The rows of all products within a block
go together, since markets move together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, nan
from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCK_S: Final = 300.0
"""As long as the longest default window; a session ends at a silence of this length, so none is ever joined."""

RESAMPLES: Final = 1000
LEVEL: Final = 0.95
LEAST_BLOCKS: Final = 5
"""With fewer blocks in the data than this, their resampling says nothing and the interval is NaN."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Lower and upper end; NaN where there is too little data to tell."""

    low: float
    high: float


def resampled_pr_auc(
    y: NDArray[np.int8],
    scores: Sequence[NDArray[np.float64]],
    time: NDArray[np.int64],
    *,
    block_s: float = BLOCK_S,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """PR-AUC of each of k scores (n each) on the same resamples of the rows: float64 (resamples, k).

    ``time`` (n) is nanoseconds, in any order. A resample that drew one class only is NaN; all are where there
    are fewer than ``LEAST_BLOCKS`` blocks of time.
    """
    order = np.argsort(time, kind="stable")
    ranked = [_Ranked(y[order], score[order]) for score in scores]
    result = np.full((resamples, len(scores)), nan)
    for row, weight in enumerate(block_weights(time[order], block_s, resamples, seed)):
        result[row] = [score.average_precision(weight) for score in ranked]
    return result


def percentile_interval(values: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """The middle ``level`` of resampled values; NaN where under half of them are defined."""
    defined = values[~np.isnan(values)]
    if len(defined) == 0 or 2 * len(defined) < len(values):
        return Interval(nan, nan)
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def block_weights(time: NDArray[np.int64], block_s: float, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """How often each row (``time`` ascending, ns) is drawn, once per resample; nothing for too little time.

    Blocks may begin up to one length before the first row, so that every row is as likely to be drawn as any
    other, however densely rows stand; a silence counts as one block at most.
    """
    if len(time) == 0:
        return
    steps = np.minimum(np.diff(time, prepend=time[0]) / 1e9, block_s)
    elapsed = np.cumsum(steps)
    span = float(elapsed[-1])
    if span < LEAST_BLOCKS * block_s:
        return
    random = np.random.default_rng(seed)
    blocks = ceil(span / block_s) + 1
    for _ in range(resamples):
        start = random.uniform(-block_s, span, blocks)
        first, beyond = np.searchsorted(elapsed, start), np.searchsorted(elapsed, start + block_s)
        opened = np.bincount(first, minlength=len(time) + 1)
        closed = np.bincount(beyond, minlength=len(time) + 1)
        yield np.cumsum(opened - closed)[:-1]


class _Ranked:
    """Outcomes sorted once by a score, for many weighted PR-AUCs: one pass over the rows each."""

    def __init__(self, y: NDArray[np.int8], score: NDArray[np.float64]) -> None:
        self._order = np.argsort(-score, kind="stable")
        ranked = score[self._order]
        spikes = np.flatnonzero(y[self._order])
        # Of each spike: the last row of its score, and the last spike of its score.
        self._last_row = np.searchsorted(-ranked, -ranked[spikes], side="right") - 1
        self._last_spike = np.searchsorted(-ranked[spikes], -ranked[spikes], side="right") - 1
        self._spikes = spikes

    def average_precision(self, weight: NDArray[np.int64]) -> float:
        """Each spike's precision at its own score, weighted: the same sum as Σ (Rₙ − Rₙ₋₁) Pₙ."""
        drawn = weight[self._order]
        called = np.cumsum(drawn)
        of_spikes = drawn[self._spikes]
        hits = np.cumsum(of_spikes)
        if len(hits) == 0 or hits[-1] in (0, called[-1]):
            return nan
        precision = hits[self._last_spike] / np.maximum(called[self._last_row], 1)
        return float(np.sum(of_spikes * precision) / hits[-1])
