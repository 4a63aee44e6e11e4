"""Comparison of a model with a baseline on the same rows and resamples: overall, per fold, per product, per hour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from volspike.evaluation.alarm_budget import BudgetPoint, budget_points
from volspike.evaluation.bootstrap import (
    FIGURES,
    LEAST_BLOCKS,
    RESAMPLES,
    Calls,
    Contrast,
    Draws,
    Interval,
    Resampled,
    contrast,
    percentile_interval,
    resampled_figures,
)
from volspike.evaluation.metrics import ScoreMetrics, evaluate_scores, known
from volspike.evaluation.scored import Scored, block_length, spike_events
from volspike.evaluation.spike_events import EventFigures, event_figures, find_events
from volspike.evaluation.subsets import CalmRows, Figures, PartMeans, calm_rows, day_means, fold_means
from volspike.market import SECOND_NS

PERSISTENCE: Final = "persistence"
LOWER_IS_BETTER: Final = ("brier", "log_loss")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Figures of model and baseline with 95 % intervals by name (``FIGURES``), and of their difference.

    Undefined figures are NaN, and so are intervals over too little time. For Brier score and log loss a gain below 0 is
    better. The headline figures are ``pr_auc`` (pooled), the mean over ``days``, PR-AUC in the ``calm`` rows, and onset
    recall at ``budgets`` of alarm minutes per day.
    """

    baseline_name: str
    model: ScoreMetrics
    baseline: ScoreMetrics
    model_intervals: dict[str, Interval]
    baseline_intervals: dict[str, Interval]
    gain_intervals: dict[str, Interval]
    model_events: EventFigures
    baseline_events: EventFigures
    pr_auc: Contrast
    folds: PartMeans
    days: PartMeans
    calm: CalmRows
    budgets: tuple[BudgetPoint, ...]
    block_s: float
    """Length of a bootstrap block in seconds."""
    spike_events: int
    """Groups of spikes more than five minutes apart, on whose number the intervals depend, not on that of rows."""

    @property
    def is_judgeable(self) -> bool:
        """Whether there are enough events for an interval."""
        return self.spike_events >= LEAST_BLOCKS

    @property
    def gain(self) -> float:
        """PR-AUC of the model minus that of the baseline; NaN if either is undefined."""
        return self.gain_of("pr_auc")

    def gain_of(self, figure: str) -> float:
        """The model's figure minus the baseline's; NaN if either is undefined."""
        return float(getattr(self.model, figure) - getattr(self.baseline, figure))

    def verdict(self, figure: str = "pr_auc") -> str | None:
        """The conclusion from the interval of the difference; None if there are too few events.

        "better" or "worse" if the interval excludes 0, otherwise "not shown to differ".
        """
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
            "pr_auc": self.pr_auc.figures(),
            "folds": self.folds.figures(),
            "days": self.days.figures(),
            "calm": self.calm.figures(),
            **{f"minutes_{point.budget:g}_per_day": point.figures() for point in self.budgets},
            "model_events": self.model_events.figures(),
            f"{self.baseline_name}_events": self.baseline_events.figures(),
        }


def compare(
    scored: Scored,
    *,
    baseline_name: str = PERSISTENCE,
    baseline_is_probability: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares the model and the baseline of ``scored`` on the same rows and resamples.

    Without ``resamples`` there are no intervals.
    """
    block = block_length(scored)
    draws = Draws.of(scored.time, block, resamples, seed)
    model = Calls(scored.y, scored.probability, scored.threshold, is_probability=True)
    baseline = Calls(scored.y, scored.baseline, scored.baseline_threshold, is_probability=baseline_is_probability)
    ours, theirs = resampled_figures([model, baseline], draws)
    gains = {name: ours[name] - theirs[name] for name in FIGURES if name != "base_rate"}
    metrics, baseline_metrics = _metrics_of(model), _metrics_of(baseline)
    return Comparison(
        baseline_name=baseline_name,
        model=metrics,
        baseline=baseline_metrics,
        model_intervals=intervals(ours),
        baseline_intervals=intervals(theirs),
        gain_intervals=intervals(gains),
        model_events=event_figures(find_events(scored), draws),
        baseline_events=event_figures(find_events(scored, of_baseline=True), draws),
        pr_auc=contrast(metrics.pr_auc, baseline_metrics.pr_auc, ours["pr_auc"], theirs["pr_auc"]),
        folds=fold_means(scored, block, resamples=resamples, seed=seed),
        days=day_means(scored, block, resamples=resamples, seed=seed),
        calm=calm_rows(scored, draws),
        budgets=budget_points(scored, draws),
        block_s=block,
        spike_events=spike_events(scored.time[scored.y == 1]),
    )


def intervals(resampled: Resampled) -> dict[str, Interval]:
    """The interval of each figure."""
    return {name: percentile_interval(values) for name, values in resampled.items()}


def ends(figures: dict[str, Interval]) -> Figures:
    """Lower and upper ends by name, None where undefined."""
    low = {f"{name}_low": known(interval.low) for name, interval in figures.items()}
    return low | {f"{name}_high": known(interval.high) for name, interval in figures.items()}


def _metrics_of(calls: Calls) -> ScoreMetrics:
    return evaluate_scores(calls.y, calls.score, calls.threshold, is_probability=calls.is_probability)


LEAST_EVENTS: Final = 5
"""With fewer spike events than this a part has no comparison."""

HOUR_NS: Final = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """The rows of one product or hour; ``comparison`` is None for fewer than ``LEAST_EVENTS`` spike events.

    An event that extends from one hour into the next counts in both.
    """

    label: str
    rows: int
    spike_events: int
    comparison: Comparison | None


def per_product(
    scored: Scored, names: Sequence[str], *, baseline_name: str = PERSISTENCE, resamples: int = RESAMPLES
) -> tuple[RowGroup, ...]:
    """A part for each product; ``names`` by its code."""
    return tuple(
        _part(name, scored.only(scored.product == code), baseline_name, resamples) for code, name in enumerate(names)
    )


def per_hour(scored: Scored, *, baseline_name: str = PERSISTENCE, resamples: int = RESAMPLES) -> tuple[RowGroup, ...]:
    """A part for each hour of the day, ``"00"`` to ``"23"`` UTC, all days together."""
    hours = scored.time // HOUR_NS % 24
    return tuple(_part(f"{hour:02d}", scored.only(hours == hour), baseline_name, resamples) for hour in range(24))


def _part(label: str, scored: Scored, baseline_name: str, resamples: int) -> RowGroup:
    events = spike_events(scored.time[scored.y == 1])
    comparison = None
    if events >= LEAST_EVENTS:
        comparison = compare(scored, baseline_name=baseline_name, resamples=resamples)
    return RowGroup(label=label, rows=len(scored), spike_events=events, comparison=comparison)
