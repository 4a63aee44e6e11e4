"""Plots of an evaluation as PNG: bars, curves, and one spike event over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from itertools import cycle
from math import isnan, nan
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter
from numpy.typing import NDArray

from volspike.episodes import spike_runs
from volspike.evaluation.bootstrap import UNDEFINED, Interval
from volspike.evaluation.comparison import RowGroup
from volspike.evaluation.metrics import Cuts, average_precision, roc_auc
from volspike.evaluation.reliability import Reliability
from volspike.evaluation.scored import Scored
from volspike.market import SECOND_NS

WIDTH_IN: Final = 7.0
"""178 mm: an A4 page less its margins."""

COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""Safe for colour blindness (Okabe and Ito, "Color Universal Design", 2008), without yellow, too pale on paper."""

LINES: Final = ("-", "--", "-.", ":")
MARKS: Final = ("o", "s", "^", "D", "v", "P", "X")
GREY: Final = "#767676"
_DPI: Final = 200


def styles() -> zip[tuple[str, str, str]]:
    """Colour, line and mark of the first, the second, … of any number of things."""
    return zip(cycle(COLOURS), cycle(LINES), cycle(MARKS), strict=False)


def create_figure(title: str, height_in: float, *, x: str, y: str, width_in: float = WIDTH_IN) -> tuple[Figure, Axes]:
    """An empty picture with a title and named axes."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=x, ylabel=y)
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(color="#e6e6e6", lw=0.8)
    remove_frame(axes)
    return figure, axes


def remove_frame(axes: Axes) -> None:
    """No frame above and to the right, and the grid behind what is drawn."""
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def png(figure: Figure) -> bytes:
    """The picture as a file; nothing of the moment or the machine is in it."""
    canvas = FigureCanvasAgg(figure)
    figure.set_dpi(_DPI)
    if layout := figure.get_layout_engine():
        layout.execute(figure)
        figure.set_layout_engine("none")  # ``savefig`` would draw everything twice, the first time for the layout
    buffer = BytesIO()
    canvas.print_png(buffer, metadata={"Software": None})  # type: ignore[no-untyped-call]
    return buffer.getvalue()


_HEIGHT_IN: Final = 2.7
_BARS_SHARE: Final = 0.8


def feature_importance(importance: Mapping[str, float], *, title: str) -> bytes:
    """A bar per feature (name → share), the greatest on top."""
    ranked = sorted(importance.items(), key=lambda item: item[1])
    figure, axes = create_figure(title, 1.2 + 0.22 * len(ranked), x="Share of the importance (%)", y="")
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
    figure, axes = create_figure(title, _HEIGHT_IN, x="Fold, oldest first", y="PR-AUC")
    _groups(figure, axes, folds, pr_auc, intervals, base_rates)
    return png(figure)


def hour_bars(parts: Sequence[RowGroup], *, title: str, labels: tuple[str, str] = ("model", "persistence")) -> bytes:
    """PR-AUC of model and baseline by hour of the day with 95 % intervals, and the share of rows that are spikes.

    An hour that holds too few events to be comparisons has no bars.
    """
    comparisons = [part.comparison for part in parts]
    values = {
        labels[0]: [nan if one is None else one.model.pr_auc for one in comparisons],
        labels[1]: [nan if one is None else one.baseline.pr_auc for one in comparisons],
    }
    intervals = {
        labels[0]: [UNDEFINED if one is None else one.model_intervals["pr_auc"] for one in comparisons],
        labels[1]: [UNDEFINED if one is None else one.baseline_intervals["pr_auc"] for one in comparisons],
    }
    figure, axes = create_figure(title, _HEIGHT_IN, x="Hour of the day (UTC)", y="PR-AUC")
    base = [nan if one is None else one.model.base_rate for one in comparisons]
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
        ends = [(one.low, one.high) for one in intervals.get(label, [UNDEFINED] * len(names))]
        axes.vlines(x, *np.array(ends).reshape(-1, 2).T, color="black", lw=1.2)
    half = _BARS_SHARE / 2
    axes.hlines(base_rates, places - half, places + half, color="black", ls=":", lw=1.4, label="base rate")
    axes.set_xticks(places, names, fontsize=9)
    axes.set_ylim(0.0, 1.0)
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=9)


_HEIGHT_IN_CURVES: Final = 3.8
_WIDTH_IN_CURVES: Final = 4.4
"""Two curves fit next to each other on a page."""
_MOST_POINTS: Final = 2000


def pr_curve(y: NDArray[np.int8], scores: Mapping[str, NDArray[np.float64]], *, title: str) -> bytes:
    """Precision over recall of each score (label → n values), and the base rate that guessing reaches.

    ``y`` (n) must hold both classes.
    """
    figure, axes = _square(
        title, "Recall: share of spikes that are flagged", "Precision: share of flagged rows that are spikes"
    )
    for (colour, line, _), (label, score) in zip(styles(), scores.items(), strict=False):
        cuts = Cuts.of(y, score)
        # The first step begins at recall 0, with the precision of the first cut.
        recall = np.append(0.0, cuts.recall())
        recall, precision = _thinned(recall, np.append(cuts.precision()[:1], cuts.precision()))
        area = average_precision(y, score)
        axes.step(recall, precision, where="pre", color=colour, ls=line, lw=1.8, label=f"{label}: PR-AUC {area:.3f}")
    base = float(np.mean(y))
    axes.axhline(base, color=GREY, ls=(0, (1, 3)), lw=1.2, label=f"base rate: {base:.3f}")
    _place_legend(axes, "upper right")
    return png(figure)


def roc_curve(y: NDArray[np.int8], scores: Mapping[str, NDArray[np.float64]], *, title: str) -> bytes:
    """Share of spikes flagged over share of calm rows flagged for each score (label → n values), and a random one.

    ``y`` (n) must hold both classes.
    """
    figure, axes = _square(
        title, "False alarms: share of calm rows that are flagged", "Share of spikes that are flagged"
    )
    for (colour, line, _), (label, score) in zip(styles(), scores.items(), strict=False):
        cuts = Cuts.of(y, score)
        rate, recall = _thinned(np.append(0.0, cuts.false_alarm_rate()), np.append(0.0, cuts.recall()))
        axes.plot(rate, recall, color=colour, ls=line, lw=1.8, label=f"{label}: ROC-AUC {roc_auc(y, score):.3f}")
    axes.plot([0, 1], [0, 1], color=GREY, ls=(0, (1, 3)), lw=1.2, label="chance: 0.500")
    _place_legend(axes, "lower right")
    return png(figure)


def reliability_curve(curves: Mapping[str, Reliability], *, title: str) -> bytes:
    """Observed over predicted share of spikes, bin by bin, with 95 % intervals; on the diagonal both agree."""
    figure, axes = _square(
        title, "Predicted: mean probability of a bin's rows", "Observed: share of them that are spikes"
    )
    for (colour, line, mark), (label, curve) in zip(styles(), curves.items(), strict=False):
        x = np.array([part.mean_probability for part in curve.bins])
        rate = np.array([part.observed_rate for part in curve.bins])
        ends = np.array([(part.interval.low, part.interval.high) for part in curve.bins]).reshape(-1, 2).T
        axes.vlines(x, *ends, color=colour, lw=1.4)
        one = f"{label}: expected calibration error {curve.expected_error:.3f}"
        axes.plot(x, rate, color=colour, ls=line, marker=mark, lw=1.4, ms=5, label=one)
    axes.plot([0, 1], [0, 1], color=GREY, ls=(0, (1, 3)), lw=1.2, label="as often as predicted")
    top = _largest_share(curves.values())
    axes.set(xlim=(-0.01 * top, 1.01 * top), ylim=(-0.01 * top, 1.03 * top))
    _place_legend(axes, "upper left")
    return png(figure)


def _largest_share(curves: Iterable[Reliability]) -> float:
    """The end of the axes of reliability: just above the largest share, at most 1, and at least 0.05."""
    shares = [
        share
        for curve in curves
        for part in curve.bins
        for share in (part.mean_probability, part.observed_rate, part.interval.high)
        if not isnan(share)
    ]
    return min(1.0, max(0.05, 1.1 * max(shares, default=1.0)))


def _square(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure, axes = create_figure(title, _HEIGHT_IN_CURVES, x=x_label, y=y_label, width_in=_WIDTH_IN_CURVES)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    return figure, axes


def _place_legend(axes: Axes, place: Literal["upper left", "upper right", "lower right"]) -> None:
    """A legend inside the axes, which a long name does not make smaller."""
    axes.legend(loc=place, frameon=False, fontsize=8).set_in_layout(False)


def _thinned(*columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """At most ``_MOST_POINTS`` points, first and last included: more than the picture has pixels."""
    kept = np.unique(np.linspace(0, len(columns[0]) - 1, _MOST_POINTS).astype(np.int64))
    return [column[kept] for column in columns]


AROUND_S: Final = 600.0
_ZERO: Final = 1e-3
"""The lowest volatility that is drawn, in τ: the axis is logarithmic, and a still minute has none."""


def around_episode(scored: Scored, index: int, *, title: str) -> bytes:
    """The model's probability and the last minute's volatility from before to after a spike episode.

    ``index`` counts the episodes of ``spike_runs``: by fold, then product, then time. Time is in minutes from the
    moment at which the spike volatility is realised.

    Raises:
        IndexError: there are no so many episodes.
    """
    series = scored.series()
    runs = spike_runs(series, scored.y)
    first, last = int(runs.first[index]), int(runs.last[index])
    realised = int(series.time[first]) + series.horizon_ns
    track = np.cumsum(series.begins)
    minute = (series.time - realised) / SECOND_NS / 60.0
    end = minute[last] + scored.horizon_s / 60.0
    shown = (track == track[first]) & (minute >= -AROUND_S / 60.0) & (minute <= end + AROUND_S / 60.0)
    x, rows = minute[shown], series.order[shown]
    moment = datetime.fromtimestamp(realised // SECOND_NS, UTC)
    figure, axes = create_figure(
        title, _HEIGHT_IN, x=f"Minutes from {moment:%Y-%m-%d %H:%M:%S} UTC", y="Probability of a spike"
    )
    axes.axvspan(minute[first], minute[last], color="#f3e2b8", lw=0, label="next minute is a spike")
    axes.axvline(0.0, color="black", lw=1.0, label="spike is realised")
    axes.plot(x, scored.probability[rows], color=COLOURS[0], lw=1.6, label="probability")
    axes.plot(x, scored.threshold[rows], color=COLOURS[0], ls=":", lw=1.4, label="threshold")
    axes.set_ylim(0.0, 1.0)
    right = axes.twinx()
    past = np.maximum(scored.past_volatility[rows], _ZERO)
    right.plot(x, past, color=COLOURS[1], ls=LINES[1], lw=1.2, label="last minute's volatility")
    right.axhline(1.0, color=GREY, ls=(0, (1, 3)), lw=1.0)
    right.set_yscale("log")
    right.yaxis.set_major_formatter("{x:g}")
    right.yaxis.set_minor_formatter(NullFormatter())
    right.set_ylabel("Volatility, multiples of τ")
    right.spines["top"].set_visible(False)
    handles, labels = (
        a + b for a, b in zip(axes.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True)
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return png(figure)
