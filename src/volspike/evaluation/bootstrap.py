"""Block-bootstrap confidence intervals of figures.

A moving block bootstrap (Künsch, "The Jackknife and the Bootstrap for General Stationary Observations", Annals
of Statistics 17, 1989): blocks of time are drawn with replacement until the length of the data is reached. Rows close
together share their windows and their future, so neighbours stay together. Blocks are of time rather than of rows,
because ticks are unevenly spaced, and include the rows of all products, because markets move together.

An interval shows how much a figure could differ on days like the recorded ones, not on other days.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from math import ceil, nan
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.metrics import log_losses


class Ranking:
    """Ranks rows by a score (n, no NaN), rows of equal score together, and computes areas under many weightings."""

    def __init__(self, y: NDArray[np.int8], score: NDArray[np.float64]) -> None:
        self._areas, _ = _compiled_passes()
        self._order = np.argsort(-score, kind="stable").astype(np.int32)
        ranked = score[self._order]
        self._spike = y[self._order] == 1
        self._is_last = np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), np.bool_))

    def areas(self, weight: NDArray[np.int16]) -> tuple[float, float]:
        """PR-AUC and ROC-AUC if row i counts ``weight[i]`` times; NaN if a class has no weight.

        Equal to ``average_precision`` and ``roc_auc`` of the repeated rows.
        """
        pr_auc, roc_auc = self._areas(self._order, self._spike, self._is_last, weight)
        return pr_auc, roc_auc


@cache
def _compiled_passes() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """``_weighted_areas`` and ``_draw_counts``, compiled; commands that draw no resamples do not import numba."""
    from volspike.compiled import compiled  # noqa: PLC0415

    return compiled(_weighted_areas), compiled(_draw_counts)


def _weighted_areas(
    order: NDArray[np.int32], spike: NDArray[np.bool_], is_last: NDArray[np.bool_], weight: NDArray[np.int16]
) -> tuple[float, float]:
    """``spike`` and ``is_last`` (of its score) are in rank order, ``weight`` in the rows' own."""
    hits = misses = tied_hits = tied = 0
    precision_sum = pairs = 0.0
    for rank in range(len(order)):
        drawn = int(weight[order[rank]])
        tied_hits += drawn * spike[rank]
        tied += drawn
        if is_last[rank]:
            if tied_hits > 0:
                precision_sum += tied_hits * ((hits + tied_hits) / (hits + misses + tied))
            pairs += (tied - tied_hits) * (hits + 0.5 * tied_hits)
            hits += tied_hits
            misses += tied - tied_hits
            tied_hits = tied = 0
    if hits == 0 or misses == 0:
        return nan, nan
    return precision_sum / hits, pairs / (float(hits) * misses)


RESAMPLES: Final = 1000
LEVEL: Final = 0.95
LEAST_BLOCKS: Final = 5
"""With fewer blocks than this in the data, resampling is meaningless and the interval is NaN."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Lower and upper end; NaN if there is too little data."""

    low: float
    high: float


UNDEFINED: Final = Interval(nan, nan)


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """The blocks of rows of each of r resamples.

    ``order`` (n) are the rows by time; block b of resample r is rows ``order[first[r, b]:beyond[r, b]]``.
    """

    order: NDArray[np.int64]
    first: NDArray[np.int32]
    beyond: NDArray[np.int32]

    @classmethod
    def of(cls, time: NDArray[np.int64], block_s: float, resamples: int = RESAMPLES, seed: int = 0) -> Self:
        """Blocks of ``block_s`` seconds of the rows at ``time`` (n, ns, any order); none if the time is too short.

        Blocks may begin up to one length before the first row, so that all rows are equally likely to be drawn,
        however dense they are; a silence counts as one block at most. The draws depend on the seed only, so that
        figures of two models on the same rows can be subtracted resample by resample.
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
        """(n,) how often this resample draws each row."""
        _, draw_counts = _compiled_passes()
        counts: NDArray[np.int16] = draw_counts(self.order, self.first[resample], self.beyond[resample])
        return counts

    def sums(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """(r, m) the sums of columns (n, m) over the rows that each resample draws."""
        reached = np.zeros((len(self.order) + 1, columns.shape[1]))
        np.cumsum(columns[self.order], axis=0, out=reached[1:])
        result = np.empty((len(self), columns.shape[1]))
        for resample, (first, beyond) in enumerate(zip(self.first, self.beyond, strict=True)):
            result[resample] = (reached[beyond] - reached[first]).sum(axis=0)
        return result


def _draw_counts(order: NDArray[np.int64], first: NDArray[np.int32], beyond: NDArray[np.int32]) -> NDArray[np.int16]:
    """(n,) how many of the blocks ``order[first:beyond]`` contain each row, which is a small number."""
    opened = np.zeros(len(order) + 1, np.int16)
    for block in range(len(first)):
        opened[first[block]] += 1
        opened[beyond[block]] -= 1
    weight = np.empty(len(order), np.int16)
    depth = 0
    for place in range(len(order)):
        depth += opened[place]
        weight[order[place]] = depth
    return weight


def percentile_interval(values: NDArray[np.float64], level: float = LEVEL) -> Interval:
    """The middle ``level`` of resampled values; NaN if fewer than half of them are defined."""
    defined = values[~np.isnan(values)]
    if len(defined) == 0 or 2 * len(defined) < len(values):
        return UNDEFINED
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


FIGURES: Final = ("base_rate", "pr_auc", "roc_auc", "brier", "log_loss", "precision", "recall", "f1")
"""Figures with intervals."""

Resampled: TypeAlias = dict[str, NDArray[np.float64]]
"""Figure → its value on each of r resamples, NaN where undefined."""


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """A score (n, no NaN) of outcomes ``y`` (n), and the thresholds (n) from which it predicts a spike."""

    y: NDArray[np.int8]
    score: NDArray[np.float64]
    threshold: NDArray[np.float64]
    is_probability: bool


def resampled_figures(all_calls: Sequence[Calls], draws: Draws) -> list[Resampled]:
    """``FIGURES`` of several scores of the same rows on the same resamples."""
    areas = resampled_areas([(calls.y, calls.score) for calls in all_calls], draws)
    return [_additive(calls, draws) | own for calls, own in zip(all_calls, areas, strict=True)]


def resampled_areas(scored: Sequence[tuple[NDArray[np.int8], NDArray[np.float64]]], draws: Draws) -> list[Resampled]:
    """PR-AUC and ROC-AUC of several (outcomes, scores) of the same rows on the same resamples."""
    rankings = [Ranking(y, score) for y, score in scored]
    values = np.full((len(draws), len(rankings), 2), nan)

    def compute(resample: int) -> None:
        weight = draws.weight(resample)
        values[resample] = [ranking.areas(weight) for ranking in rankings]

    # the compiled passes release the GIL
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        deque(threads.map(compute, range(len(draws))), maxlen=0)
    return [{"pr_auc": values[:, index, 0], "roc_auc": values[:, index, 1]} for index in range(len(rankings))]


def _additive(calls: Calls, draws: Draws) -> Resampled:
    called, spike = calls.score >= calls.threshold, calls.y == 1
    columns = [np.ones(len(spike)), spike, called, called & spike]
    if calls.is_probability:
        columns += [(calls.score - calls.y) ** 2, log_losses(calls.y, calls.score)]
    sums = draws.sums(np.column_stack(columns).astype(np.float64))
    rows, spikes, calls_made, hits = sums[:, :4].T
    undefined = np.full(len(sums), nan)
    squares, losses = sums[:, 4:].T if calls.is_probability else (undefined, undefined)
    return {
        "base_rate": _ratio(spikes, rows),
        "brier": _ratio(squares, rows),
        "log_loss": _ratio(losses, rows),
        "precision": _ratio(hits, calls_made),
        "recall": _ratio(hits, spikes),
        "f1": _ratio(2 * hits, calls_made + spikes),
    }


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.full(len(whole), nan)
    np.divide(part, whole, out=ratio, where=whole > 0)
    return ratio
