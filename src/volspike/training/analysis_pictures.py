"""Pictures of a feature analysis as PNG bytes, readable with twenty columns and with two hundred."""

from __future__ import annotations

from typing import Final

import numpy as np
from matplotlib.figure import Figure

from volspike.evaluation.plots import COLOURS, bare, png
from volspike.training.analysis import Analysis
from volspike.training.redundancy import clustered_order

MOST_BARS: Final = 40
_CELLS: Final = ((40, 0.26, 8.0), (120, 0.13, 6.0), (10_000, 0.085, 4.2))
"""Up to so many columns: inches of each, and points of its name, which at 200 dots an inch is still read."""
_GREY: Final = "#b8b8b8"


def importance_picture(analysis: Analysis) -> bytes:
    """A bar with its spread over folds for each feature, and beside it the model's own share."""
    taken = [feature for feature in analysis.features if feature.is_taken]
    shown = sorted(taken, key=lambda feature: (feature.group, -feature.alone.mean))[:MOST_BARS][::-1]
    names = [feature.name for feature in shown]
    figure = Figure(figsize=(11.0, 1.9 + 0.24 * len(shown)), layout="constrained")
    judged, own = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    spread = np.nan_to_num([feature.together.spread for feature in shown])
    colours = [COLOURS[0] if feature.name in analysis.recommended else _GREY for feature in shown]
    error = {"ecolor": "#444444", "elinewidth": 1.0, "capsize": 2}
    judged.barh(
        names, [feature.together.mean for feature in shown], xerr=spread, color=colours, height=0.7, error_kw=error
    )
    judged.plot(
        [feature.alone.mean for feature in shown],
        names,
        "o",
        color=COLOURS[1],
        ms=4,
        ls="none",
        label="moved alone; bar: with all that say the same",
    )
    judged.axvline(0.0, color="#444444", lw=0.8)
    over = "folds" if analysis.folds > 1 else "permutations"
    judged.set_xlabel(f"PR-AUC lost on unseen rows (whisker: spread over {over})")
    judged.legend(loc="lower right", frameon=False, fontsize=9)
    own.barh(names, [feature.own for feature in shown], color=_GREY, height=0.7)
    own.set_xlabel(f"{analysis.request.model}'s own share")
    own.xaxis.set_major_formatter("{x:.0%}")
    for axes in (judged, own):
        bare(axes)
        axes.tick_params(labelsize=8)
        axes.margins(y=0.01)
    figure.suptitle(_title(analysis, len(taken), len(shown)), x=0.01, ha="left", fontsize=11)
    return png(figure)


def correlation_picture(analysis: Analysis) -> bytes:
    """The rank correlation of every pair of features that are told and change, those that say the same side by side."""
    order = clustered_order(analysis.correlation)
    order = order[np.isfinite(np.diag(analysis.correlation))[order]]
    names = [analysis.features[place].name for place in order]
    cell, size = next(look for most, *look in _CELLS if len(names) <= most)
    inches = max(cell * len(names), 4.5)
    figure = Figure(figsize=(inches + 2.6, inches + 2.0), layout="constrained")
    axes = figure.add_subplot()
    shown = np.ma.masked_invalid(analysis.correlation[np.ix_(order, order)])
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-1.0, vmax=1.0, interpolation="nearest", aspect="equal")
    axes.set_facecolor("#e0e0e0")
    places = np.arange(len(names))
    axes.set_xticks(places, names, rotation=90, fontsize=size)
    axes.set_yticks(places, names, fontsize=size)
    axes.tick_params(length=0)
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        if label.get_text() in analysis.recommended:
            label.set(color=COLOURS[0], fontweight="bold")
    figure.colorbar(image, ax=axes, shrink=0.5, label="Spearman's rank correlation")
    market = ", SIMULATED market" if analysis.simulated else ""
    untold = len(analysis.features) - len(names)
    without = f"; without {untold} that are not told" if untold else ""
    axes.set_title(f"Which features say the same{market} (bold: recommended{without})", loc="left", fontsize=12)
    return png(figure)


def _title(analysis: Analysis, taken: int, shown: int) -> str:
    market = ", SIMULATED market" if analysis.simulated else ""
    most = f", the first {shown} of {taken}" if shown < taken else ""
    return (
        f"What {analysis.request.model} loses when a feature tells of another time{most}{market}\n"
        f"PR-AUC {analysis.pr_auc:.3f}, base rate {analysis.base_rate:.3f}; blue: recommended"
    )
