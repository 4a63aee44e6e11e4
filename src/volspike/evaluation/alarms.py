"""Alarm episodes over recorded rows, by the rule that the live market follows.

The rule is that of ``monitoring.episodes.EpisodeTracker``, and its numbers stand here for both: an episode opens when
the score reaches the threshold, lasts at least ``HOLD_S``, and closes once the score has been below the release level
for ``QUIET_S`` on end, or was not known for ``UNKNOWN_S``.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.compiled import compiled
from volspike.evaluation.tracks import Runs, Tracks
from volspike.market import SECOND_NS

RELEASE_SHARE: Final = 0.8
"""The level at which an episode lets go, as a share of the threshold."""

HOLD_S: Final = 60.0
QUIET_S: Final = 10.0
UNKNOWN_S: Final = 60.0


def alarm_runs(tracks: Tracks, score: NDArray[np.float64], threshold: NDArray[np.float64] | float) -> Runs:
    """The alarm episodes of ``score`` (n, in the rows' order; NaN is not known) at one threshold or one per row.

    A run's positions are those at which the alarm is in force. A threshold that is not above 0, as a score that is
    no probability may have, is its own release level.
    """
    level = np.broadcast_to(np.asarray(threshold, np.float64), score.shape)[tracks.order]
    release = np.where(level > 0.0, RELEASE_SHARE * level, level)
    opened = alarm_opened(
        tracks.time,
        score[tracks.order],
        level,
        release,
        tracks.begins,
        round(HOLD_S * SECOND_NS),
        round(QUIET_S * SECOND_NS),
        round(UNKNOWN_S * SECOND_NS),
    )
    in_force = np.flatnonzero(opened >= 0)
    first, count = np.unique(opened[in_force], return_counts=True)
    return Runs(first, first + count - 1)


@compiled
def alarm_opened(
    time: NDArray[np.int64],
    score: NDArray[np.float64],
    threshold: NDArray[np.float64],
    release: NDArray[np.float64],
    begins: NDArray[np.bool_],
    hold: int,
    quiet: int,
    unknown: int,
) -> NDArray[np.int64]:
    """By position: the position at which the alarm in force opened, −1 where there is none; times in ns.

    As the live rule has it, a row that closes an episode opens none.
    """
    opened = np.full(len(time), -1, np.int64)
    start = -1
    known = low_since = time[0] if len(time) else 0
    is_low = False
    for row in range(len(time)):
        now, value = time[row], score[row]
        if begins[row]:
            start = -1
        if start < 0:
            if value >= threshold[row]:
                start, known, is_low = row, now, False
        else:
            has_held = now - time[start] >= hold
            if has_held and now - known >= unknown:
                start = -1
            elif np.isfinite(value):
                known = now
                if value >= release[row]:
                    is_low = False
                elif not is_low:
                    is_low, low_since = True, now
                if is_low and has_held and now - low_since >= quiet:
                    start = -1
        opened[row] = start
    return opened
