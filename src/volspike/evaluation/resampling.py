"""A score's figures on every resample of its rows: the areas by ranking, the rest from sums over blocks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import nan
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import Draws
from volspike.evaluation.metrics import log_losses
from volspike.evaluation.ranking import Ranking

FIGURES: Final = ("base_rate", "pr_auc", "roc_auc", "brier", "log_loss", "precision", "recall", "f1")
"""The figures that have intervals."""

Resampled: TypeAlias = dict[str, NDArray[np.float64]]
"""Figure → its value on each of r resamples, NaN where undefined."""


@dataclass(frozen=True, slots=True, eq=False)
class Calls:
    """A score (n, no NaN) of outcomes ``y`` (n), called from its thresholds on (n)."""

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

    def judge(resample: int) -> None:
        weight = draws.weight(resample)
        values[resample] = [ranking.areas(weight) for ranking in rankings]

    # the compiled passes release the GIL
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        deque(threads.map(judge, range(len(draws))), maxlen=0)
    return [{"pr_auc": values[:, index, 0], "roc_auc": values[:, index, 1]} for index in range(len(rankings))]


def _additive(calls: Calls, draws: Draws) -> Resampled:
    called, spike = calls.score >= calls.threshold, calls.y == 1
    columns = [np.ones(len(spike)), spike, called, called & spike]
    if calls.is_probability:
        columns += [(calls.score - calls.y) ** 2, log_losses(calls.y, calls.score)]
    sums = draws.sums(np.column_stack(columns).astype(np.float64))
    rows, spikes, calls_made, hits = sums[:, :4].T
    untold = np.full(len(sums), nan)
    squares, losses = sums[:, 4:].T if calls.is_probability else (untold, untold)
    return {
        "base_rate": _ratio(spikes, rows),
        "brier": _ratio(squares, rows),
        "log_loss": _ratio(losses, rows),
        "precision": _ratio(hits, calls_made),
        "recall": _ratio(hits, spikes),
        "f1": _ratio(2 * hits, calls_made + spikes),
    }


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    told = np.full(len(whole), nan)
    np.divide(part, whole, out=told, where=whole > 0)
    return told
