"""Bars: importance by feature, PR-AUC by fold, PR-AUC and spikes by hour of the day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from volspike.evaluation.bootstrap import UNTOLD, Interval
from volspike.evaluation.breakdown import Part
from volspike.evaluation.plots.canvas import COLOURS, drawn, png, styles

_HEIGHT_IN: Final = 3.6
_BARS_SHARE: Final = 0.8


def feature_importance(importance: Mapping[str, float], *, title: str) -> bytes:
    """A bar per feature (name → share), the greatest on top."""
    ranked = sorted(importance.items(), key=lambda item: item[1])
    figure, axes = drawn(title, 1.4 + 0.3 * len(ranked), x="Share of the importance (%)", y="")
    axes.grid(visible=False, axis="y")
    bars = axes.barh([name for name, _ in ranked], [100 * share for _, share in ranked], color=COLOURS[0], height=0.65)
    axes.bar_label(bars, labels=[f"{share:.1%}" for _, share in ranked], padding=4, fontsize=9)
    axes.margins(x=0.12, y=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    return png(figure)


def fold_bars(
    folds: Sequence[str],
    pr_auc: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[Interval]],
    base_rates: Sequence[float],
    *,
    title: str,
) -> bytes:
    """PR-AUC of each score (label → one value a fold) side by side, with 95 % intervals, and the folds' base rates.

    A label without intervals has bars alone; NaN leaves a bar or a line out.
    """
    figure, axes = drawn(title, _HEIGHT_IN, x="Fold, oldest first", y="PR-AUC on the fold's test rows")
    _groups(figure, axes, folds, pr_auc, intervals, base_rates)
    return png(figure)


def hour_bars(parts: Sequence[Part], *, title: str, labels: tuple[str, str] = ("model", "persistence")) -> bytes:
    """PR-AUC of model and baseline by hour of the day with 95 % intervals, and the share of rows that are spikes.

    An hour that holds too few events to be judged has no bars.
    """
    judged = [part.comparison for part in parts]
    values = {
        labels[0]: [nan if told is None else told.model.pr_auc for told in judged],
        labels[1]: [nan if told is None else told.baseline.pr_auc for told in judged],
    }
    intervals = {
        labels[0]: [UNTOLD if told is None else told.model_intervals["pr_auc"] for told in judged],
        labels[1]: [UNTOLD if told is None else told.baseline_intervals["pr_auc"] for told in judged],
    }
    figure, axes = drawn(title, _HEIGHT_IN, x="Hour of the day (UTC)", y="PR-AUC on the hour's test rows")
    base = [nan if told is None else told.model.base_rate for told in judged]
    _groups(figure, axes, [part.label for part in parts], values, intervals, base)
    return png(figure)


def _groups(
    figure: Figure,
    axes: Axes,
    names: Sequence[str],
    values: Mapping[str, Sequence[float]],
    intervals: Mapping[str, Sequence[Interval]],
    base_rates: Sequence[float],
) -> None:
    """A group of bars for each name, one of each label, and a dashed line where guessing would be."""
    places, width = np.arange(len(names)), _BARS_SHARE / max(1, len(values))
    for index, ((colour, _, _), (label, heights)) in enumerate(zip(styles(), values.items(), strict=False)):
        x = places + (index - (len(values) - 1) / 2) * width
        axes.bar(x, heights, 0.9 * width, color=colour, label=label)
        ends = [(told.low, told.high) for told in intervals.get(label, [UNTOLD] * len(names))]
        axes.vlines(x, *np.array(ends).reshape(-1, 2).T, color="black", lw=1.2)
    half = _BARS_SHARE / 2
    axes.hlines(base_rates, places - half, places + half, color="black", ls=":", lw=1.4, label="base rate")
    axes.set_xticks(places, names, fontsize=9)
    axes.set_ylim(0.0, 1.0)
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)
