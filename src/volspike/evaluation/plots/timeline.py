"""One spike as it came: what was foreseen minute by minute around an episode."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import numpy as np
from matplotlib.ticker import NullFormatter

from volspike.episodes import Tracks, spike_runs
from volspike.evaluation.plots.canvas import COLOURS, GREY, LINES, drawn, png
from volspike.evaluation.scored import Scored
from volspike.labels import HORIZON_S
from volspike.market import SECOND_NS

AROUND_S: Final = 600.0
_HEIGHT_IN: Final = 3.6
_ZERO: Final = 1e-3
"""The lowest volatility that is drawn, in τ: the axis is logarithmic, and a still minute has none."""


def around_episode(scored: Scored, index: int, *, title: str, around_s: float = AROUND_S) -> bytes:
    """The model's probability and the last minute's volatility from before to after a spike episode.

    ``index`` counts the episodes of ``spike_runs``: by fold, then product, then time. Time is in minutes from the
    moment at which the spike volatility is realised.

    Raises:
        IndexError: there are no so many episodes.
    """
    tracks = Tracks.of(scored.time, scored.product, scored.fold)
    runs = spike_runs(tracks, scored.y)
    first, last = int(runs.first[index]), int(runs.last[index])
    realised = int(tracks.time[first]) + HORIZON_S * SECOND_NS
    track = np.cumsum(tracks.begins)
    minute = (tracks.time - realised) / SECOND_NS / 60.0
    end = minute[last] + HORIZON_S / 60.0
    shown = (track == track[first]) & (minute >= -around_s / 60.0) & (minute <= end + around_s / 60.0)
    x, rows = minute[shown], tracks.order[shown]
    moment = datetime.fromtimestamp(realised // SECOND_NS, UTC)
    figure, axes = drawn(
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
    right.set_ylabel("Last minute's volatility (multiples of τ)")
    right.spines["top"].set_visible(False)
    handles, labels = (
        a + b for a, b in zip(axes.get_legend_handles_labels(), right.get_legend_handles_labels(), strict=True)
    )
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return png(figure)
