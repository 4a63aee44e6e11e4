"""Pictures of a comparison as PNG bytes: precision-recall, ROC, and feature importance.

Drawn with matplotlib's objects, without pyplot: no window, no state between two pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from volspike.evaluation.cuts import Cuts
from volspike.evaluation.metrics import average_precision, roc_auc

COLOURS: Final = ("#1f5fa8", "#d1702b", "#3a8f4d", "#7d4fa0")
_GREY: Final = "#8a8a8a"
_DPI: Final = 120
_MOST_POINTS: Final = 2000


def pr_curve(y: NDArray[np.int8], scores: Mapping[str, NDArray[np.float64]], *, title: str) -> bytes:
    """Precision over recall of each score (label → n values), and the base rate that guessing reaches.

    ``y`` (n) must hold both classes.
    """
    figure, axes = _square(title, "Recall: share of spikes that are called", "Precision: share of calls that are right")
    for colour, (label, score) in zip(COLOURS, scores.items(), strict=False):
        cuts = Cuts.of(y, score)
        # The first step begins at recall 0, with the precision of the first cut.
        recall = np.append(0.0, cuts.recall())
        recall, precision = _thinned(recall, np.append(cuts.precision()[:1], cuts.precision()))
        area = average_precision(y, score)
        axes.step(recall, precision, where="pre", color=colour, lw=1.8, label=f"{label}: PR-AUC {area:.3f}")
    base = float(np.mean(y))
    axes.axhline(base, color=_GREY, ls="--", lw=1.2, label=f"base rate: {base:.3f}")
    axes.legend(loc="upper right", frameon=False)
    return _png(figure)


def roc_curve(y: NDArray[np.int8], scores: Mapping[str, NDArray[np.float64]], *, title: str) -> bytes:
    """Spikes called over calm rows called, of each score (label → n values), and the line of guessing.

    ``y`` (n) must hold both classes.
    """
    figure, axes = _square(title, "False alarms: share of calm rows that are called", "Share of spikes that are called")
    for colour, (label, score) in zip(COLOURS, scores.items(), strict=False):
        cuts = Cuts.of(y, score)
        rate, recall = _thinned(np.append(0.0, cuts.false_alarm_rate()), np.append(0.0, cuts.recall()))
        axes.plot(rate, recall, color=colour, lw=1.8, label=f"{label}: ROC-AUC {roc_auc(y, score):.3f}")
    axes.plot([0, 1], [0, 1], color=_GREY, ls="--", lw=1.2, label="guessing: 0.500")
    axes.legend(loc="lower right", frameon=False)
    return _png(figure)


def feature_importance(importance: Mapping[str, float], *, title: str) -> bytes:
    """A bar per feature (name → share), the greatest on top."""
    ranked = sorted(importance.items(), key=lambda item: item[1])
    figure = Figure(figsize=(7.5, 1.4 + 0.34 * len(ranked)), layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh([name for name, _ in ranked], [share for _, share in ranked], color=COLOURS[0], height=0.65)
    axes.bar_label(bars, labels=[f"{share:.1%}" for _, share in ranked], padding=4, fontsize=9)
    axes.margins(x=0.12, y=0.02)
    axes.set_title(title, loc="left", fontsize=12)
    axes.set_xlabel("Share of the importance")
    axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:.0%}")
    _bare(axes)
    return _png(figure)


def _square(title: str, x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.0, 6.0), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.03), xlabel=x_label, ylabel=y_label)
    axes.set_title(title, loc="left", fontsize=12)
    axes.grid(color="#e6e6e6", lw=0.8)
    axes.set_axisbelow(True)
    _bare(axes)
    return figure, axes


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _thinned(*columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """At most ``_MOST_POINTS`` points, first and last included: more than the picture has pixels."""
    kept = np.unique(np.linspace(0, len(columns[0]) - 1, _MOST_POINTS).astype(np.int64))
    return [column[kept] for column in columns]


def _png(figure: Figure) -> bytes:
    FigureCanvasAgg(figure)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()
