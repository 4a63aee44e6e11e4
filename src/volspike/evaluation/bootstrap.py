"""Block-bootstrap confidence intervals of figures, and of their difference to those of a baseline (``Contrast``).

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
from math import nan
from typing import Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.metrics import known, log_losses
from volspike.market import SECOND_NS


class Ranking:
    """Ranks rows by a score (n, no NaN), rows of equal score together, and computes areas under many weightings.

    ``cell`` (n) is the index of each row's weight; without it every row has its own.
    """

    def __init__(self, y: NDArray[np.int8], score: NDArray[np.float64], cell: NDArray[np.int32] | None = None) -> None:
        order = np.argsort(-score, kind="stable").astype(np.int32)
        ranked = score[order]
        self._cell = order if cell is None else cell[order]
        self._spike = y[order] == 1
        self._is_last = np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), np.bool_))

    def areas(self, weights: NDArray[np.int16]) -> NDArray[np.float64]:
        """(k, 2) PR-AUC and ROC-AUC under each column of ``weights`` (cells, k): how often the rows of a cell count.

        Equal to ``average_precision`` and ``roc_auc`` of the repeated rows; NaN if a class has no weight.
        """
        areas: NDArray[np.float64] = _compiled_areas()(self._cell, self._spike, self._is_last, weights)
        return areas


@cache
def _compiled_areas() -> Callable[..., NDArray[np.float64]]:
    """``_weighted_areas``, compiled; commands that draw no resamples do not import numba."""
    from volspike.compiled import compiled  # noqa: PLC0415

    return compiled(_weighted_areas)


def _weighted_areas(
    cell: NDArray[np.int32], spike: NDArray[np.bool_], is_last: NDArray[np.bool_], weights: NDArray[np.int16]
) -> NDArray[np.float64]:
    """``cell``, ``spike`` and ``is_last`` (of its score) are in rank order; sums are kept for all columns at once."""
    columns = weights.shape[1]
    hits, misses, tied_hits, tied_misses = np.zeros((4, columns))
    precision_sum, pairs = np.zeros((2, columns))
    has_spike = False
    for rank in range(len(cell)):
        weight = weights[cell[rank]]
        tied = tied_hits if spike[rank] else tied_misses
        has_spike |= spike[rank]
        for column in range(columns):
            tied[column] += weight[column]
        if not is_last[rank]:
            continue
        # array expressions would allocate memory for every row
        for column in range(columns):
            pairs[column] += tied_misses[column] * (hits[column] + 0.5 * tied_hits[column])
            misses[column] += tied_misses[column]
            tied_misses[column] = 0.0
        if has_spike:
            for column in range(columns):
                hits[column] += tied_hits[column]
                precision_sum[column] += tied_hits[column] * (hits[column] / max(hits[column] + misses[column], 1.0))
                tied_hits[column] = 0.0
            has_spike = False
    is_defined = (hits > 0.0) & (misses > 0.0)
    pr_auc = np.where(is_defined, precision_sum / hits, nan)
    return np.column_stack((pr_auc, np.where(is_defined, pairs / (hits * misses), nan)))


RESAMPLES: Final = 1000
LEVEL: Final = 0.95
CELLS_PER_BLOCK: Final = 20
"""Blocks begin at multiples of a twentieth of their length, so that a resample has one weight per cell, not per row."""

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

    Time is divided into ``cells`` of a twentieth of a block; ``cell`` (n) is the cell of each row. Block b of resample
    r consists of cells ``first[r, b]`` to ``beyond[r, b]``, the latter excluded.
    """

    cell: NDArray[np.int32]
    cells: int
    first: NDArray[np.int32]
    beyond: NDArray[np.int32]

    @classmethod
    def of(cls, time: NDArray[np.int64], block_s: float, resamples: int = RESAMPLES, seed: int = 0) -> Self:
        """Blocks of ``block_s`` seconds of the rows at ``time`` (n, ns, any order); none if the time is too short.

        Blocks may begin up to one length before the first row, so that all rows are equally likely to be drawn,
        however dense they are; a silence counts as one block at most. The draws depend on the seed only, so that
        figures of two models on the same rows can be subtracted resample by resample.
        """
        block_ns = round(block_s * SECOND_NS)
        order = np.argsort(time, kind="stable")
        elapsed = np.cumsum(np.minimum(np.diff(time[order], prepend=time[order][:1]), block_ns))
        cell = np.empty(len(time), np.int32)
        cell[order] = elapsed // max(1, block_ns // CELLS_PER_BLOCK)
        cells = int(cell.max()) + 1 if len(cell) else 0
        span = int(elapsed[-1]) if len(elapsed) else 0
        if len(elapsed) == 0 or span < LEAST_BLOCKS * block_ns:
            nothing = np.zeros((0, 0), np.int32)
            return cls(cell, cells, nothing, nothing)
        blocks = -(-span // block_ns) + 1
        start = np.random.default_rng(seed).integers(1 - CELLS_PER_BLOCK, cells, (resamples, blocks), np.int32)
        return cls(cell, cells, np.maximum(start, 0), np.minimum(start + CELLS_PER_BLOCK, cells).astype(np.int32))

    def __len__(self) -> int:
        return len(self.first)

    def cell_weights(self, resamples: range) -> NDArray[np.int16]:
        """(cells, k) how many blocks of each of these resamples contain each cell."""
        steps = np.zeros((self.cells + 1, len(resamples)), np.int16)
        for column, resample in enumerate(resamples):
            steps[:, column] = np.bincount(self.first[resample], minlength=self.cells + 1)
            steps[:, column] -= np.bincount(self.beyond[resample], minlength=self.cells + 1).astype(np.int16)
        return np.cumsum(steps[:-1], axis=0, dtype=np.int16)

    def weight(self, resample: int) -> NDArray[np.int16]:
        """(n,) how often this resample draws each row."""
        weight: NDArray[np.int16] = self.cell_weights(range(resample, resample + 1))[self.cell, 0]
        return weight

    def sums(self, columns: NDArray[np.float64]) -> NDArray[np.float64]:
        """(r, m) the sums of columns (n, m) over the rows that each resample draws."""
        reached = np.zeros((self.cells + 1, columns.shape[1]))
        for column, values in enumerate(columns.T):
            np.cumsum(np.bincount(self.cell, values, self.cells), out=reached[1:, column])
        result = np.empty((len(self), columns.shape[1]))
        for resample, (first, beyond) in enumerate(zip(self.first, self.beyond, strict=True)):
            result[resample] = (reached[beyond] - reached[first]).sum(axis=0)
        return result


def percentile_interval(values: NDArray[np.float64]) -> Interval:
    """The middle ``LEVEL`` of resampled values; NaN if fewer than half of them are defined."""
    defined = values[~np.isnan(values)]
    if len(defined) == 0 or 2 * len(defined) < len(values):
        return UNDEFINED
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
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


_AT_ONCE: Final = 16
"""Resamples per pass over the rows: their weights of a row are next to each other in memory."""


def resampled_areas(
    scored: Sequence[tuple[NDArray[np.int8], NDArray[np.float64]]],
    draws: Draws,
    rows: NDArray[np.integer] | None = None,
) -> list[Resampled]:
    """PR-AUC and ROC-AUC of several (outcomes, scores) of the same rows on the same resamples.

    The scored rows are all rows of ``draws``, or those with the numbers ``rows``.
    """
    cell = draws.cell if rows is None else draws.cell[rows]
    rankings = [Ranking(y, score, cell) for y, score in scored]
    values = np.full((len(draws), len(rankings), 2), nan)

    def compute(resamples: range) -> None:
        weights = draws.cell_weights(resamples)
        for index, ranking in enumerate(rankings):
            values[resamples.start : resamples.stop, index] = ranking.areas(weights)

    chunks = [range(start, min(start + _AT_ONCE, len(draws))) for start in range(0, len(draws), _AT_ONCE)]
    # the compiled pass releases the GIL
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        deque(threads.map(compute, chunks), maxlen=0)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """A figure of model and baseline, with 95 % intervals of both, of the difference and of the ratio; or NaN.

    The difference and the ratio are taken resample by resample, so that what moves both alike widens neither.
    """

    model: float
    baseline: float
    model_interval: Interval
    baseline_interval: Interval
    gain_interval: Interval
    ratio_interval: Interval

    @property
    def gain(self) -> float:
        """The model's figure minus the baseline's."""
        return self.model - self.baseline

    @property
    def ratio(self) -> float:
        """The model's figure over the baseline's; NaN for a baseline of 0."""
        return self.model / self.baseline if self.baseline else nan

    def figures(self) -> dict[str, int | float | None]:
        """The figures by name, None where undefined; an interval's ends as ``<figure>_low`` and ``_high``."""
        figures: dict[str, int | float | None] = {}
        for name, value, interval in (
            ("model", self.model, self.model_interval),
            ("baseline", self.baseline, self.baseline_interval),
            ("gain", self.gain, self.gain_interval),
            ("ratio", self.ratio, self.ratio_interval),
        ):
            figures |= {name: known(value), f"{name}_low": known(interval.low), f"{name}_high": known(interval.high)}
        return figures


def contrast(
    model: float, baseline: float, model_drawn: NDArray[np.float64], baseline_drawn: NDArray[np.float64]
) -> Contrast:
    """The contrast of two figures, whose values on the same r resamples are (r,), NaN where undefined."""
    ratio = np.full(len(model_drawn), nan)
    np.divide(model_drawn, baseline_drawn, out=ratio, where=baseline_drawn > 0.0)
    return Contrast(
        model=model,
        baseline=baseline,
        model_interval=percentile_interval(model_drawn),
        baseline_interval=percentile_interval(baseline_drawn),
        gain_interval=percentile_interval(model_drawn - baseline_drawn),
        ratio_interval=percentile_interval(ratio),
    )
