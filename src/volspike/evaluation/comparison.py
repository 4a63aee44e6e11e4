"""A model beside a baseline on the same rows: does it know more than what a trader already has?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from volspike.evaluation.blocks import block_length, spike_events
from volspike.evaluation.bootstrap import LEAST_BLOCKS, RESAMPLES, Draws, Interval, percentile_interval
from volspike.evaluation.events import EventFigures, event_figures, find_events
from volspike.evaluation.fold_means import FoldMeans, fold_means
from volspike.evaluation.metrics import Metrics, judge, known
from volspike.evaluation.resampling import FIGURES, Calls, Resampled, resampled_figures
from volspike.evaluation.scored import Scored

PERSISTENCE: Final = "persistence"
LOWER_IS_BETTER: Final = ("brier", "log_loss")

Figures = dict[str, int | float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Figures of both with 95 % intervals by figure name (``FIGURES``), and those of the model's less the baseline's.

    A figure that is undefined is NaN, and so is the interval of one that too little time stands behind. Of Brier and
    log loss a gain below 0 is the better.
    """

    baseline_name: str
    model: Metrics
    baseline: Metrics
    model_intervals: dict[str, Interval]
    baseline_intervals: dict[str, Interval]
    gain_intervals: dict[str, Interval]
    model_events: EventFigures
    baseline_events: EventFigures
    folds: FoldMeans
    block_s: float
    """Seconds that the bootstrap keeps together."""
    spike_events: int
    """Stretches of spikes more than five minutes apart: what the intervals rest on, whatever the number of rows."""

    @property
    def is_judgeable(self) -> bool:
        """Whether there are events enough for an interval to mean anything."""
        return self.spike_events >= LEAST_BLOCKS

    @property
    def gain(self) -> float:
        """PR-AUC of the model less that of the baseline; NaN where either is undefined."""
        return self.gain_of("pr_auc")

    def gain_of(self, figure: str) -> float:
        """The model's figure less the baseline's; NaN where either is undefined."""
        return float(getattr(self.model, figure) - getattr(self.baseline, figure))

    def verdict(self, figure: str = "pr_auc") -> str | None:
        """ "better" or "worse" where the interval of the difference leaves out 0, "not shown to differ" where it does
        not; None where there are too few events to tell."""
        interval = self.gain_intervals[figure]
        if not self.is_judgeable or np.isnan(interval.low):
            return None
        sign = -1.0 if figure in LOWER_IS_BETTER else 1.0
        low, high = sorted((sign * interval.low, sign * interval.high))
        return "better" if low > 0 else "worse" if high < 0 else "not shown to differ"

    def figures(self) -> dict[str, Figures]:
        """Flat figures by name, None where undefined, of ``model``, of the baseline under its name, and of the rest."""
        gains: Figures = {name: known(self.gain_of(name)) for name in self.gain_intervals}
        gains |= ends(self.gain_intervals)
        about: Figures = {"spike_events": self.spike_events, "block_s": self.block_s}
        pr_auc_gain: Figures = {f"pr_auc_gain{end}": gains[f"pr_auc{end}"] for end in ("", "_low", "_high")}
        return {
            "model": self.model.figures() | ends(self.model_intervals) | pr_auc_gain | about,
            self.baseline_name: self.baseline.figures() | ends(self.baseline_intervals),
            "gain": gains,
            "folds": self.folds.figures(),
            "model_events": self.model_events.figures(),
            f"{self.baseline_name}_events": self.baseline_events.figures(),
        }


def compare(
    scored: Scored,
    *,
    baseline_name: str = PERSISTENCE,
    baseline_is_probability: bool = False,
    block_s: float | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Judge the model of ``scored`` and the baseline on the same rows and the same resamples.

    ``block_s`` is ``block_length``'s where none is told. Without ``resamples`` there are no intervals.
    """
    block = block_length(scored) if block_s is None else block_s
    draws = Draws.of(scored.time, block, resamples, seed)
    model = Calls(scored.y, scored.probability, scored.threshold, is_probability=True)
    baseline = Calls(scored.y, scored.baseline, scored.baseline_threshold, is_probability=baseline_is_probability)
    ours, theirs = resampled_figures([model, baseline], draws)
    gains = {name: ours[name] - theirs[name] for name in FIGURES if name != "base_rate"}
    return Comparison(
        baseline_name=baseline_name,
        model=_judged(model),
        baseline=_judged(baseline),
        model_intervals=intervals(ours),
        baseline_intervals=intervals(theirs),
        gain_intervals=intervals(gains),
        model_events=event_figures(find_events(scored), draws),
        baseline_events=event_figures(find_events(scored, of_baseline=True), draws),
        folds=fold_means(scored, block, resamples=resamples, seed=seed),
        block_s=block,
        spike_events=spike_events(scored.time[scored.y == 1]),
    )


def intervals(resampled: Resampled) -> dict[str, Interval]:
    """The interval of each figure."""
    return {name: percentile_interval(values) for name, values in resampled.items()}


def ends(told: dict[str, Interval]) -> Figures:
    """Lower and upper ends by name, None where undefined."""
    low = {f"{name}_low": known(interval.low) for name, interval in told.items()}
    return low | {f"{name}_high": known(interval.high) for name, interval in told.items()}


def _judged(calls: Calls) -> Metrics:
    return judge(calls.y, calls.score, calls.threshold, is_probability=calls.is_probability)
