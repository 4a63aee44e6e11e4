"""The mean over folds of each fold's own PR-AUC: only telling calm folds from wild ones gains nothing here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import RESAMPLES, Draws, Interval, percentile_interval
from volspike.evaluation.metrics import average_precision, known
from volspike.evaluation.resampling import resampled_areas
from volspike.evaluation.scored import Scored


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldMeans:
    """Means over the ``folds`` that hold both classes; NaN where there is none.

    The intervals draw blocks within each fold and are NaN where a fold is too short for that. In ``ahead`` of the
    folds the model's PR-AUC is the greater.
    """

    folds: int
    model: float
    baseline: float
    gain: float
    model_interval: Interval
    baseline_interval: Interval
    gain_interval: Interval
    ahead: int

    def figures(self) -> dict[str, int | float | None]:
        """The figures by name, None where undefined."""
        told: dict[str, int | float | None] = {"folds": self.folds, "ahead": self.ahead}
        for name, value, interval in (
            ("model", self.model, self.model_interval),
            ("baseline", self.baseline, self.baseline_interval),
            ("gain", self.gain, self.gain_interval),
        ):
            told |= {name: known(value), f"{name}_low": known(interval.low), f"{name}_high": known(interval.high)}
        return told


def fold_means(scored: Scored, block_s: float, *, resamples: int = RESAMPLES, seed: int = 0) -> FoldMeans:
    """The mean PR-AUC of model and baseline over the folds of ``scored``."""
    folds = [scored.only(scored.fold == number) for number in np.unique(scored.fold)]
    folds = [fold for fold in folds if 0 < int(fold.y.sum()) < len(fold)]
    found = np.array(
        [[average_precision(fold.y, fold.probability), average_precision(fold.y, fold.baseline)] for fold in folds]
    ).reshape(-1, 2)
    drawn = [_resampled(fold, block_s, resamples, seed + index) for index, fold in enumerate(folds)]
    model, baseline = np.mean(drawn, axis=0).T if drawn else np.full((2, resamples), np.nan)
    mean = found.mean(axis=0) if len(found) else np.full(2, np.nan)
    return FoldMeans(
        folds=len(folds),
        model=float(mean[0]),
        baseline=float(mean[1]),
        gain=float(mean[0] - mean[1]),
        model_interval=percentile_interval(model),
        baseline_interval=percentile_interval(baseline),
        gain_interval=percentile_interval(model - baseline),
        ahead=int(np.count_nonzero(found[:, 0] > found[:, 1])),
    )


def _resampled(fold: Scored, block_s: float, resamples: int, seed: int) -> NDArray[np.float64]:
    """(resamples, 2) PR-AUC of model and baseline; NaN in all where the fold is too short."""
    draws = Draws.of(fold.time, block_s, resamples, seed)
    if len(draws) == 0:
        return np.full((resamples, 2), np.nan)
    areas = resampled_areas([(fold.y, fold.probability), (fold.y, fold.baseline)], draws)
    return np.column_stack([part["pr_auc"] for part in areas])
