"""PR-AUC of a model and a baseline on parts of the rows: the mean over folds or days, and the calm rows.

A score that only separates quiet days from volatile ones has a high pooled PR-AUC and predicts nothing within a day; a
mean over days gains nothing from it. In calm rows, whose last minute was no spike, the last minute's volatility is no
answer, and a warning has value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import LEAST_BLOCKS, RESAMPLES, Contrast, Draws, contrast, resampled_areas
from volspike.evaluation.metrics import average_precision, known, ratio
from volspike.evaluation.scored import Scored, spike_events
from volspike.market import SECOND_NS

Figures = dict[str, int | float | None]

FOLDS: Final = "folds"
DAYS: Final = "days"


@dataclass(frozen=True, slots=True, kw_only=True)
class PartMeans:
    """The means of PR-AUC over ``parts`` parts of the rows that contain both classes; NaN if there is none.

    ``unit`` is ``folds`` or ``days``. Intervals draw blocks within each part and are NaN if one is too short. In
    ``ahead`` of the parts the model's PR-AUC is greater.
    """

    unit: str
    parts: int
    ahead: int
    pr_auc: Contrast

    def figures(self) -> Figures:
        """The figures by name, None where undefined; the number of parts under its unit."""
        return {self.unit: self.parts, "ahead": self.ahead} | self.pr_auc.figures()


def fold_means(scored: Scored, block_s: float, *, resamples: int = RESAMPLES, seed: int = 0) -> PartMeans:
    """The mean PR-AUC of model and baseline over the folds of ``scored``."""
    folds = [scored.only(scored.fold == number) for number in np.unique(scored.fold)]
    return _means(FOLDS, folds, block_s, resamples, seed)


def day_means(scored: Scored, block_s: float, *, resamples: int = RESAMPLES, seed: int = 0) -> PartMeans:
    """The mean PR-AUC of model and baseline over the UTC days of ``scored``.

    A day on which the rows span fewer than ``LEAST_BLOCKS`` blocks of ``block_s`` is too short to count.
    """
    days = [scored.only(scored.day == number) for number in np.unique(scored.day)]
    least_ns = LEAST_BLOCKS * block_s * SECOND_NS
    return _means(DAYS, [day for day in days if np.ptp(day.time) >= least_ns], block_s, resamples, seed)


def _means(unit: str, parts: Sequence[Scored], block_s: float, resamples: int, seed: int) -> PartMeans:
    parts = [part for part in parts if 0 < int(part.y.sum()) < len(part)]
    found = np.array(
        [[average_precision(part.y, part.probability), average_precision(part.y, part.baseline)] for part in parts]
    ).reshape(-1, 2)
    drawn = [_resampled(part, block_s, resamples, seed + index) for index, part in enumerate(parts)]
    model, baseline = np.mean(drawn, axis=0).T if drawn else np.full((2, resamples), np.nan)
    mean = found.mean(axis=0) if len(found) else np.full(2, np.nan)
    return PartMeans(
        unit=unit,
        parts=len(parts),
        ahead=int(np.count_nonzero(found[:, 0] > found[:, 1])),
        pr_auc=contrast(float(mean[0]), float(mean[1]), model, baseline),
    )


def _resampled(part: Scored, block_s: float, resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples, 2) PR-AUC of model and baseline; all NaN if the part is too short."""
    draws = Draws.of(part.time, block_s, resamples, seed)
    if len(draws) == 0:
        return np.full((resamples, 2), np.nan)
    areas = resampled_areas([(part.y, part.probability), (part.y, part.baseline)], draws)
    return np.column_stack([area["pr_auc"] for area in areas])


@dataclass(frozen=True, slots=True, kw_only=True)
class CalmRows:
    """PR-AUC in the calm rows: their number, base rate and separate spike events. Intervals draw blocks of all rows."""

    rows: int
    base_rate: float
    spike_events: int
    pr_auc: Contrast

    def figures(self) -> Figures:
        """The figures by name, None where undefined."""
        own: Figures = {"rows": self.rows, "base_rate": known(self.base_rate), "spike_events": self.spike_events}
        return own | self.pr_auc.figures()


def calm_rows(scored: Scored, draws: Draws) -> CalmRows:
    """The calm rows of ``scored``; ``draws`` are of all its rows."""
    rows = np.flatnonzero(scored.is_calm)
    calm = scored.only(rows)
    model, baseline = resampled_areas([(calm.y, calm.probability), (calm.y, calm.baseline)], draws, rows)
    return CalmRows(
        rows=len(rows),
        base_rate=ratio(int(calm.y.sum()), len(rows)),
        spike_events=spike_events(calm.time[calm.y == 1]),
        pr_auc=contrast(
            average_precision(calm.y, calm.probability),
            average_precision(calm.y, calm.baseline),
            model["pr_auc"],
            baseline["pr_auc"],
        ),
    )
