"""The mean over folds of each fold's own PR-AUC: only telling calm folds from wild ones gains nothing here.

A model beside a baseline on the same rows: does it know more than what a trader already has?

The same figures of parts of the rows: which market, which hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import (
    FIGURES,
    LEAST_BLOCKS,
    RESAMPLES,
    Calls,
    Draws,
    Interval,
    Resampled,
    percentile_interval,
    resampled_areas,
    resampled_figures,
)
from volspike.evaluation.metrics import Metrics, average_precision, judge, known
from volspike.evaluation.scored import Scored, block_length, spike_events
from volspike.evaluation.spike_events import EventFigures, event_figures, find_events
from volspike.market import SECOND_NS


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


LEAST_EVENTS: Final = 5
"""With fewer separate spike events than this a part is counted but not judged."""

HOUR_NS: Final = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the rows; ``comparison`` is None where it holds fewer than ``LEAST_EVENTS`` spike events.

    An episode that reaches from one hour into the next is one in each: its rows are judged where they stand.
    """

    label: str
    rows: int
    spike_events: int
    comparison: Comparison | None


def per_product(
    scored: Scored,
    names: Sequence[str],
    *,
    baseline_name: str = PERSISTENCE,
    baseline_is_probability: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Part, ...]:
    """A part for each product; ``names`` by its code."""
    return tuple(
        _part(name, scored.only(scored.product == code), baseline_name, baseline_is_probability, resamples, seed)
        for code, name in enumerate(names)
    )


def per_hour(
    scored: Scored,
    *,
    baseline_name: str = PERSISTENCE,
    baseline_is_probability: bool = False,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[Part, ...]:
    """A part for each hour of the day, ``"00"`` to ``"23"`` UTC, all days together."""
    hours = scored.time // HOUR_NS % 24
    return tuple(
        _part(f"{hour:02d}", scored.only(hours == hour), baseline_name, baseline_is_probability, resamples, seed)
        for hour in range(24)
    )


def _part(
    label: str, scored: Scored, baseline_name: str, baseline_is_probability: bool, resamples: int, seed: int
) -> Part:
    events = spike_events(scored.time[scored.y == 1])
    comparison = None
    if events >= LEAST_EVENTS:
        comparison = compare(
            scored,
            baseline_name=baseline_name,
            baseline_is_probability=baseline_is_probability,
            resamples=resamples,
            seed=seed,
        )
    return Part(label=label, rows=len(scored), spike_events=events, comparison=comparison)
