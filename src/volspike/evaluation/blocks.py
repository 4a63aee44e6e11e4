"""How long a block of the bootstrap is, and how many events the rows really hold.

The length is at least ten minutes: the default look-back of 300 s and the horizon of 60 s, with room. It grows with
the spikes: four times the episode length that nine in ten do not exceed, so that an episode is seldom cut and its
neighbours come with it. An automatic length (Politis and White, "Automatic Block-Length Selection for the Dependent
Bootstrap", Econometric Reviews 23, 2004) is best for the mean of one series; the areas under two curves are no such
mean, and on the few blocks of a short recording it swings widely. On simulated days whose volatility remembers 1, 5 and
15 minutes (60 of each) intervals of 95 % so made held the true PR-AUC in 85, 87 and 88 % of cases and the difference
of two models in 90 %; with 600 s throughout it was 67 and 78 % at 15 minutes. They are somewhat too narrow.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.episodes import Tracks, spike_runs
from volspike.evaluation.scored import Scored
from volspike.labels import HORIZON_S

BLOCK_S: Final = 600.0
EVENT_GAP_S: Final = 300.0
"""Spikes further apart than the longest default window share neither past nor future."""

EPISODES_PER_BLOCK: Final = 4.0
LONG_EPISODE: Final = 0.9
"""The share of episodes that are no longer than what is called a long one."""


def block_length(scored: Scored) -> float:
    """Seconds of a block for these rows: 600, or four times a long spike episode, its last label's horizon included."""
    tracks = Tracks.of(scored.time, scored.product, scored.fold)
    episodes = spike_runs(tracks, scored.y)
    if len(episodes) == 0:
        return BLOCK_S
    lengths = (tracks.time[episodes.last] - tracks.time[episodes.first]) / 1e9 + HORIZON_S
    return max(BLOCK_S, EPISODES_PER_BLOCK * float(np.quantile(lengths, LONG_EPISODE)))


def spike_events(time: NDArray[np.int64]) -> int:
    """How many stretches the times of spike rows (ns, any order) form, those five minutes apart or less being one."""
    if len(time) == 0:
        return 0
    return 1 + int(np.count_nonzero(np.diff(np.sort(time)) > round(EVENT_GAP_S * 1e9)))
