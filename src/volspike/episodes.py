"""Rows as each product's own story, fold by fold, and the runs in it: of spikes, and of alarms.

Alarm episodes over recorded rows, by the rule that the live market follows.

The rule is that of ``monitoring.episodes.EpisodeTracker``, and its numbers stand here for both: an episode opens when
the score reaches the threshold, lasts at least ``HOLD_S``, and closes once the score has been below the release level
for ``QUIET_S`` on end, or was not known for ``UNKNOWN_S``.

One spike is one alert: an episode opens at the threshold and closes well below it, not at every crossing.

Pure: knows of times and probabilities, not of clocks, markets or whom to tell. ``evaluation.alarms`` follows the same
rule over recorded rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite
from typing import Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.compiled import compiled
from volspike.errors import UsageError
from volspike.labels import HORIZON_S
from volspike.market import SECOND_NS

HORIZON_NS = HORIZON_S * SECOND_NS


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """n rows put in order: those of one fold and product after each other, by time.

    Attributes:
        order: (n,) row numbers; a row's place here is its position.
        time: (n,) ns, by position.
        begins: (n,) whether the position begins another fold or product.
    """

    order: NDArray[np.int64]
    time: NDArray[np.int64]
    begins: NDArray[np.bool_]

    @classmethod
    def of(cls, time: NDArray[np.int64], product: NDArray[np.int32], fold: NDArray[np.int32] | None = None) -> Self:
        """The tracks of rows in any order; all arrays are (n,)."""
        fold = np.zeros(len(time), np.int32) if fold is None else fold
        order = np.lexsort((time, product, fold))
        begins = np.ones(len(time), np.bool_)
        begins[1:] = (np.diff(product[order]) != 0) | (np.diff(fold[order]) != 0)
        return cls(order, time[order], begins)

    def seconds(self) -> NDArray[np.float64]:
        """(n,) by position: how long a row's second or tick lasts, until the track's next row.

        0 for a track's last row and before a silence as long as the horizon, which nobody watched.
        """
        steps = np.zeros(len(self.time))
        steps[:-1] = np.where(self.begins[1:], 0, np.diff(self.time))
        return np.where(steps < HORIZON_NS, steps / SECOND_NS, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Stretches of a track that do not overlap, ascending: first and last position of each, both included."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    def covered(self, n: int) -> NDArray[np.bool_]:
        """Which of ``n`` positions lie in a run."""
        steps = np.bincount(self.first, minlength=n + 1) - np.bincount(self.last + 1, minlength=n + 1)
        return np.cumsum(steps)[:-1] > 0

    def met_by(self, others: Runs) -> NDArray[np.int64]:
        """Of each run the number of the earliest among ``others`` that shares a position with it; −1 for none."""
        if len(others) == 0:
            return np.full(len(self), -1)
        candidate = np.searchsorted(others.last, self.first)
        met = others.first[np.minimum(candidate, len(others) - 1)] <= self.last
        return np.where((candidate < len(others)) & met, candidate, -1)


def spike_runs(tracks: Tracks, y: NDArray[np.int8]) -> Runs:
    """The spike episodes: rows labelled as spikes (``y``, (n,) in the rows' order), joined when under a horizon apart.

    A label tells of the 60 seconds after its row, so two spike rows closer than that share seconds of their future.
    """
    spike = np.flatnonzero(y[tracks.order] == 1)
    if len(spike) == 0:
        return Runs(spike, spike)
    track = np.cumsum(tracks.begins)
    apart = (np.diff(tracks.time[spike]) >= HORIZON_NS) | (np.diff(track[spike]) != 0)
    return Runs(spike[np.append(True, apart)], spike[np.append(apart, True)])


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


class Reason(StrEnum):
    """Why an episode closed."""

    RELEASED = "released"
    """The probability stayed below the release level."""
    UNKNOWN = "unknown"
    """The probability was not known for long."""
    CLOCK = "clock"
    """Time stepped back by more than a late row does: what came before is another story."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode as it opened (``closed`` and ``reason`` are None) or closed; times in ns UTC.

    ``id`` is made of the opening time and the product: the same rows give the same ids, and ids sort by time.
    """

    id: str
    product: str
    opened: int
    closed: int | None = None
    peak_probability: float
    threshold: float
    reason: Reason | None = None

    @property
    def is_open(self) -> bool:
        """Whether it still goes on."""
        return self.closed is None


class TrackerState(msgspec.Struct, frozen=True):
    """What a tracker remembers of its product."""

    newest: int | None
    known: int
    low_since: int | None
    current: Episode | None


def episode_id(product: str, opened: int) -> str:
    """An id of fixed shape, so that ids sort as their times do.

    >>> episode_id("BTC-USD", 1_500_000_000)
    '19700101T000001.500000000Z-BTC-USD'
    """
    seconds, fraction = divmod(opened, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{fraction:09d}Z-{product}"


class EpisodeTracker:
    """The episodes of one product.

    One opens when the probability is at least ``threshold``. It closes when it has lasted ``hold_s`` and the
    probability has since been below ``release`` (default 0.8 of the threshold) for ``quiet_s`` on end; or when the
    probability was not known for ``unknown_s``, silence included.

    Raises:
        UsageError: levels or times that make no sense.
    """

    def __init__(
        self,
        threshold: float,
        *,
        product: str,
        release: float | None = None,
        hold_s: float = HOLD_S,
        quiet_s: float = QUIET_S,
        unknown_s: float = UNKNOWN_S,
    ) -> None:
        release = RELEASE_SHARE * threshold if release is None else release
        if not (isfinite(threshold) and 0.0 < release < threshold):
            raise UsageError(f"an episode's release must lie between 0 and its threshold {threshold}: was {release}")
        if not (hold_s >= 0.0 and quiet_s >= 0.0 and unknown_s > 0.0):
            raise UsageError(f"an episode's times must not be negative: were {hold_s}, {quiet_s} and {unknown_s} s")
        self.product, self.threshold, self.release = product, threshold, release
        self._hold = round(hold_s * SECOND_NS)
        self._quiet = round(quiet_s * SECOND_NS)
        self._unknown = round(unknown_s * SECOND_NS)
        self._newest: int | None = None
        self._known = 0
        self._low_since: int | None = None
        self._open: Episode | None = None

    @property
    def current(self) -> Episode | None:
        """The open episode with its peak so far; None between episodes."""
        return self._open

    def state(self) -> TrackerState:
        """Everything that later episodes depend on, besides the levels and times that the tracker was made with."""
        return TrackerState(self._newest, self._known, self._low_since, self._open)

    def resume(self, state: TrackerState) -> None:
        """Takes up where ``state`` was taken."""
        self._newest, self._known, self._low_since, self._open = msgspec.structs.astuple(state)

    def update(self, time_ns: int, probability: float | None) -> Episode | None:
        """Takes the probability of a row (None or NaN: not known) and returns the episode that opened or closed now.

        A time before the newest counts as the newest, as late rows do. One that lies back by more than
        ``unknown_s`` begins a new story: an open episode closes. An update that closes one opens none: the next does.
        """
        if self._newest is not None and time_ns < self._newest - self._unknown:
            return self._begin_anew(time_ns, probability)
        now = time_ns if self._newest is None else max(time_ns, self._newest)
        self._newest = now
        known = probability if probability is not None and isfinite(probability) else None
        if self._open is None:
            return self._outside(now, known)
        return self._inside(self._open, now, known)

    def _outside(self, now: int, known: float | None) -> Episode | None:
        if known is None or known < self.threshold:
            return None
        self._known, self._low_since = now, None
        self._open = Episode(
            id=episode_id(self.product, now),
            product=self.product,
            opened=now,
            peak_probability=known,
            threshold=self.threshold,
        )
        return self._open

    def _inside(self, episode: Episode, now: int, known: float | None) -> Episode | None:
        has_held = now - episode.opened >= self._hold
        if now - self._known >= self._unknown and has_held:
            return self._close(episode, now, Reason.UNKNOWN)
        if known is None:
            return None
        self._known = now
        if known > episode.peak_probability:
            self._open = msgspec.structs.replace(episode, peak_probability=known)
        if known >= self.release:
            self._low_since = None
        elif self._low_since is None:
            self._low_since = now
        is_quiet = self._low_since is not None and now - self._low_since >= self._quiet
        return self._close(episode, now, Reason.RELEASED) if is_quiet and has_held else None

    def _begin_anew(self, time_ns: int, probability: float | None) -> Episode | None:
        episode, last = self._open, self._newest or 0
        if episode is None:
            self._newest = None
            return self.update(time_ns, probability)
        self._newest = time_ns
        return self._close(episode, max(last, episode.opened + self._hold), Reason.CLOCK)

    def _close(self, episode: Episode, now: int, reason: Reason) -> Episode:
        self._open = None
        return msgspec.structs.replace(episode, closed=now, reason=reason)
