"""The largest spikes among judged rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.episodes import Tracks, spike_runs
from volspike.evaluation import Scored
from volspike.market import instant

MOST: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """A spike episode: ``index`` counts as ``spike_runs`` does, ``peak`` is its greatest volatility in τ."""

    index: int
    product: str
    start: str
    peak: float


def largest_episodes(
    scored: Scored, volatility: NDArray[np.float64], products: tuple[str, ...], most: int = MOST
) -> tuple[Episode, ...]:
    """The episodes of greatest peak, in order of time; ``volatility`` (n) is the rows' future one in multiples of τ."""
    tracks = Tracks.of(scored.time, scored.product, scored.fold)
    runs = spike_runs(tracks, scored.y)
    ordered = volatility[tracks.order]
    peaks = np.array([ordered[first : last + 1].max() for first, last in zip(runs.first, runs.last, strict=True)])
    largest = np.argsort(-peaks, kind="stable")[:most]
    episodes = [
        Episode(
            index=int(index),
            product=products[int(scored.product[tracks.order[runs.first[index]]])],
            start=instant(int(tracks.time[runs.first[index]])),
            peak=float(peaks[index]),
        )
        for index in largest
    ]
    return tuple(sorted(episodes, key=lambda episode: episode.start))
