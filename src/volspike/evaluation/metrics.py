"""Figures of a score at a threshold. Undefined figures are NaN, never 0 or 0.5."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isnan, nan
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

MOST_FLAGGED: Final = 0.5
"""A threshold that flags a greater share of rows is useless as an alarm, whatever its figures."""


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """Every possible threshold: each distinct score, descending, with its hits and false alarms.

    Rows of equal score are flagged together, so that their order in the data cannot favour a model.
    """

    score: NDArray[np.float64]
    hits: NDArray[np.int64]
    false_alarms: NDArray[np.int64]

    @classmethod
    def of(cls, y: NDArray[np.int8], score: NDArray[np.float64]) -> Self:
        """The cuts of ``score`` (n, no NaN) against outcomes ``y`` (n, 1 is a spike)."""
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        last_of_score = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), np.bool_)))
        hits = np.cumsum(y[order], dtype=np.int64)[last_of_score]
        return cls(ranked[last_of_score], hits, last_of_score + 1 - hits)

    @property
    def spikes(self) -> int:
        """The number of spike rows."""
        return int(self.hits[-1]) if len(self.hits) else 0

    @property
    def calm(self) -> int:
        """The number of calm rows."""
        return int(self.false_alarms[-1]) if len(self.false_alarms) else 0

    def threshold(self, at: int) -> float:
        """The threshold of a cut: halfway between its score and the next; for the lowest score, the score itself."""
        return float(self.score[at : at + 2].mean())

    def spread(self, count: int, most_share: float) -> list[int]:
        """At most ``count`` cuts, evenly spaced in the logarithm of flagged rows, up to ``most_share`` of all rows."""
        flagged = self.hits + self.false_alarms
        wanted = np.geomspace(1.0, max(1.0, most_share * (self.spikes + self.calm)), count)
        reached = np.searchsorted(flagged, wanted, side="right") - 1
        cuts: list[int] = np.unique(reached[reached >= 0]).tolist()
        return cuts

    def precision(self) -> NDArray[np.float64]:
        """Share of spikes among the flagged rows, at each cut."""
        return self.hits / (self.hits + self.false_alarms)

    def recall(self) -> NDArray[np.float64]:
        """Share of the spikes that are flagged, at each cut; there must be a spike."""
        return self.hits / self.spikes

    def false_alarm_rate(self) -> NDArray[np.float64]:
        """Share of the calm rows that are flagged, at each cut; there must be a calm row."""
        return self.false_alarms / self.calm


PROBABILITY_CLIP: Final = 1e-15


@dataclass(frozen=True, slots=True)
class ScoreMetrics:
    """Figures over ``rows`` rows, ``tp + fn`` of them spikes.

    ``pr_auc`` and ``roc_auc`` need rows of both kinds. ``threshold`` is NaN if rows had several.
    ``brier`` and ``log_loss`` are NaN for a score that is no probability.
    """

    rows: int
    base_rate: float
    pr_auc: float
    roc_auc: float
    threshold: float
    precision: float
    recall: float
    f1: float
    brier: float
    log_loss: float
    tp: int
    fp: int
    tn: int
    fn: int

    def figures(self) -> dict[str, int | float | None]:
        """The figures by name, None where undefined."""
        return {name: known(value) for name, value in asdict(self).items()}


def evaluate_scores(
    y: NDArray[np.int8],
    score: NDArray[np.float64],
    threshold: float | NDArray[np.float64],
    *,
    is_probability: bool = True,
) -> ScoreMetrics:
    """The figures of predicting a spike where ``score`` (n) is at least ``threshold`` (one, or one per row).

    ``y`` (n) is 1 where there was a spike. Scores must not be NaN.
    """
    called, spike = score >= threshold, y == 1
    tp, fp = int(np.sum(called & spike)), int(np.sum(called & ~spike))
    fn, tn = int(np.sum(spike)) - tp, int(np.sum(~spike)) - fp
    thresholds = np.unique(threshold)
    return ScoreMetrics(
        rows=len(y),
        base_rate=ratio(tp + fn, len(y)),
        pr_auc=average_precision(y, score),
        roc_auc=roc_auc(y, score),
        threshold=float(thresholds[0]) if len(thresholds) == 1 else nan,
        precision=ratio(tp, tp + fp),
        recall=ratio(tp, tp + fn),
        f1=ratio(2 * tp, 2 * tp + fp + fn),
        brier=float(np.mean((score - y) ** 2)) if is_probability and len(y) else nan,
        log_loss=float(np.mean(log_losses(y, score))) if is_probability and len(y) else nan,
        tp=tp,
        fp=fp,
        tn=tn,
        fn=fn,
    )


def log_losses(y: NDArray[np.int8], probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """−ln of the probability given to the actual outcome, row by row.

    Probabilities are clipped to [1e-15, 1 − 1e-15], so that one row wrongly predicted with certainty costs 34.5, not
    infinity.
    """
    given = np.clip(probability, PROBABILITY_CLIP, 1.0 - PROBABILITY_CLIP)
    return np.where(y == 1, -np.log(given), -np.log1p(-given))


def known(value: int | float) -> int | float | None:
    """The value, None for NaN, which JSON does not have."""
    return None if isnan(value) else value


def ratio(part: int, total: int) -> float:
    """``part / total``; NaN for a total of 0.

    >>> ratio(1, 4)
    0.25
    """
    return part / total if total else nan


def average_precision(y: NDArray[np.int8], score: NDArray[np.float64]) -> float:
    """Area under the precision-recall curve as Σ (Rₙ − Rₙ₋₁) Pₙ over distinct scores; NaN for one class only.

    The step form, as linear interpolation is too optimistic (Davis and Goadrich, 2006).
    """
    cuts = Cuts.of(y, score)
    if not cuts.spikes or not cuts.calm:
        return nan
    return float(np.sum(np.diff(cuts.recall(), prepend=0.0) * cuts.precision()))


def roc_auc(y: NDArray[np.int8], score: NDArray[np.float64]) -> float:
    """How often a spike scores above a calm row, ties counted half; NaN for one class only."""
    cuts = Cuts.of(y, score)
    if not cuts.spikes or not cuts.calm:
        return nan
    recall, rate = np.append(0.0, cuts.recall()), np.append(0.0, cuts.false_alarm_rate())
    return float(np.sum(np.diff(rate) * (recall[1:] + recall[:-1]) / 2))
