"""A model beside the persistence baseline, on the same rows: does it know more than the last minute's volatility?"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import BLOCK_S, LEAST_BLOCKS, Interval, percentile_interval, resampled_pr_auc
from volspike.evaluation.metrics import Metrics, judge


@dataclass(frozen=True, slots=True)
class Comparison:
    """Figures of both, with 95 % intervals of their PR-AUC and of the model's less persistence's."""

    model: Metrics
    persistence: Metrics
    model_pr_auc: Interval
    persistence_pr_auc: Interval
    gain_pr_auc: Interval
    spike_events: int = 0
    """Stretches of spikes more than a block of time apart: what the intervals rest on, whatever the number of rows."""

    @property
    def is_judgeable(self) -> bool:
        """Whether there are events enough for an interval to mean anything."""
        return self.spike_events >= LEAST_BLOCKS

    @property
    def gain(self) -> float:
        """PR-AUC of the model less that of persistence; NaN where either is undefined."""
        return self.model.pr_auc - self.persistence.pr_auc

    def figures(self) -> dict[str, dict[str, int | float | None]]:
        """The figures of ``model`` and ``persistence`` by name, None where undefined."""
        return {
            "model": self.model.figures()
            | _ends("pr_auc", self.model_pr_auc)
            | {"pr_auc_gain": _known(self.gain), "spike_events": self.spike_events}
            | _ends("pr_auc_gain", self.gain_pr_auc),
            "persistence": self.persistence.figures() | _ends("pr_auc", self.persistence_pr_auc),
        }


def compare(
    y: NDArray[np.int8],
    probability: NDArray[np.float64],
    persistence: NDArray[np.float64],
    time: NDArray[np.int64],
    *,
    threshold: float | NDArray[np.float64],
    persistence_threshold: float | NDArray[np.float64],
    seed: int = 0,
) -> Comparison:
    """Judge a model's ``probability`` and the score ``persistence`` on n rows; none of them NaN.

    Thresholds are one for all rows or one per row. ``time`` is in nanoseconds.
    """
    resampled = resampled_pr_auc(y, [probability, persistence], time, seed=seed)
    return Comparison(
        model=judge(y, probability, threshold),
        persistence=judge(y, persistence, persistence_threshold, is_probability=False),
        model_pr_auc=percentile_interval(resampled[:, 0]),
        persistence_pr_auc=percentile_interval(resampled[:, 1]),
        gain_pr_auc=percentile_interval(resampled[:, 0] - resampled[:, 1]),
        spike_events=spike_events(time[y == 1]),
    )


def spike_events(time: NDArray[np.int64]) -> int:
    """How many stretches the times of spike rows (ns, any order) form, when those a block apart or less are one."""
    if len(time) == 0:
        return 0
    return 1 + int(np.count_nonzero(np.diff(np.sort(time)) > round(BLOCK_S * 1e9)))


def _ends(name: str, interval: Interval) -> dict[str, int | float | None]:
    return {f"{name}_low": _known(interval.low), f"{name}_high": _known(interval.high)}


def _known(value: float) -> float | None:
    return None if isnan(value) else value
