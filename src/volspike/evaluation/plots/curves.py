"""Curves of several scores on the same rows: precision-recall, ROC, and reliability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from volspike.evaluation.cuts import Cuts
from volspike.evaluation.metrics import average_precision, roc_auc
from volspike.evaluation.plots.canvas import GREY, drawn, png, styles
from volspike.evaluation.reliability import Reliability

_HEIGHT_IN: Final = 5.6
_MOST_POINTS: Final = 2000


def pr_curve(y: NDArray[np.int8], scores: Mapping[str, NDArray[np.float64]], *, title: str) -> bytes:
    """Precision over recall of each score (label → n values), and the base rate that guessing reaches.

    ``y`` (n) must hold both classes.
    """
    figure, axes = _square(title, "Recall: share of spikes that are called", "Precision: share of calls that are right")
    for (colour, line, _), (label, score) in zip(styles(), scores.items(), strict=False):
        cuts = Cuts.of(y, score)
        # The first step begins at recall 0, with the precision of the first cut.
        recall = np.append(0.0, cuts.recall())
        recall, precision = _thinned(recall, np.append(cuts.precision()[:1], cuts.precision()))
        area = average_precision(y, score)
        axes.step(recall, precision, where="pre", color=colour, ls=line, lw=1.8, label=f"{label}: PR-AUC {area:.3f}")
    base = float(np.mean(y))
    axes.axhline(base, color=GREY, ls=(0, (1, 3)), lw=1.2, label=f"base rate: {base:.3f}")
    axes.legend(loc="upper right", frameon=False)
    return png(figure)


def roc_curve(y: NDArray[np.int8], scores: Mapping[str, NDArray[np.float64]], *, title: str) -> bytes:
    """Spikes called over calm rows called, of each score (label → n values), and the line of guessing.

    ``y`` (n) must hold both classes.
    """
    figure, axes = _square(title, "False alarms: share of calm rows that are called", "Share of spikes that are called")
    for (colour, line, _), (label, score) in zip(styles(), scores.items(), strict=False):
        cuts = Cuts.of(y, score)
        rate, recall = _thinned(np.append(0.0, cuts.false_alarm_rate()), np.append(0.0, cuts.recall()))
        axes.plot(rate, recall, color=colour, ls=line, lw=1.8, label=f"{label}: ROC-AUC {roc_auc(y, score):.3f}")
    axes.plot([0, 1], [0, 1], color=GREY, ls=(0, (1, 3)), lw=1.2, label="guessing: 0.500")
    axes.legend(loc="lower right", frameon=False)
    return png(figure)


def reliability_curve(curves: Mapping[str, Reliability], *, title: str) -> bytes:
    """Observed over foreseen share of spikes, bin by bin, with 95 % intervals; on the diagonal both agree."""
    figure, axes = _square(
        title, "Foreseen: mean probability of a bin's rows", "Observed: share of them that are spikes"
    )
    for (colour, line, mark), (label, curve) in zip(styles(), curves.items(), strict=False):
        x = np.array([part.mean_probability for part in curve.bins])
        rate = np.array([part.observed_rate for part in curve.bins])
        ends = np.array([(part.interval.low, part.interval.high) for part in curve.bins]).reshape(-1, 2).T
        axes.vlines(x, *ends, color=colour, lw=1.4)
        told = f"{label}: expected calibration error {curve.expected_error:.3f}"
        axes.plot(x, rate, color=colour, ls=line, marker=mark, lw=1.4, ms=5, label=told)
    axes.plot([0, 1], [0, 1], color=GREY, ls=(0, (1, 3)), lw=1.2, label="as often as foreseen")
    axes.legend(loc="upper left", frameon=False)
    return png(figure)


def _square(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure, axes = drawn(title, _HEIGHT_IN, x=x_label, y=y_label)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03))
    return figure, axes


def _thinned(*columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """At most ``_MOST_POINTS`` points, first and last included: more than the picture has pixels."""
    kept = np.unique(np.linspace(0, len(columns[0]) - 1, _MOST_POINTS).astype(np.int64))
    return [column[kept] for column in columns]
