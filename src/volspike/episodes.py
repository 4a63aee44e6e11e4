"""Episodes: a spike makes one alert, not one at every crossing of the threshold.

The alert-episode rule is ``next_state``. It runs on live rows (``EpisodeTracker``) and, compiled, on recorded rows
(``alarm_runs``). An episode

- opens when the probability is at least the threshold. Under a budget of alarm minutes (``models.alert_level``) it
  opens only while the volatility of the last minute is not known to have reached τ, so that the minutes are spent on
  spikes that have not begun;
- lasts at least ``HOLD_S``;
- after that closes as soon as the probability has been below the release level, ``RELEASE_SHARE`` of the threshold,
  for ``QUIET_S`` without interruption; or if it has been unknown for ``UNKNOWN_S``, silence included;
- closes after ``CAP_S`` at the latest. A warning of the next minute that has been on for five says nothing new, so the
  rule is then disarmed: no episode opens until one of the two conditions above has been met, which arms it again.

All limits are reached at the exact value. Recorded rows are ordered by fold, product and time first (``SeriesOrder``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from math import isfinite, nan
from typing import Final, Self, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.errors import UsageError
from volspike.labels import HORIZON_S
from volspike.market import SECOND_NS

HORIZON_NS: Final = HORIZON_S * SECOND_NS

RELEASE_SHARE: Final = 0.8
HOLD_S: Final = 60.0
QUIET_S: Final = 10.0
UNKNOWN_S: Final = 60.0
CAP_S: Final = 300.0

NEVER: Final = -(2**63)
"""The time of something that has not happened, as compiled code has no None."""

EpisodeState: TypeAlias = tuple[int, int, int, int]
"""Times in ns, or ``NEVER``: when the open episode opened; when the probability was last known, and since when it has
been below the release level, both in the open episode or while disarmed; and when the rule was disarmed."""

IDLE: Final[EpisodeState] = (NEVER, NEVER, NEVER, NEVER)
"""No episode is open, and one may open."""


def next_state(
    state: EpisodeState,
    now: int,
    probability: float,
    may_open: bool,
    threshold: float,
    release: float,
    hold: int,
    quiet: int,
    unknown: int,
    cap: int,
) -> EpisodeState:
    """The state after a row at ``now`` with this probability (NaN or infinite: unknown); all times in ns.

    A row that closes an episode, or arms the rule again, opens none. A row that would both release an episode and reach
    its cap releases it.
    """
    opened, known, low_since, disarmed = state
    is_known = isfinite(probability)
    if opened == NEVER and disarmed == NEVER:
        is_opened = is_known and may_open and probability >= threshold
        return (now, now, NEVER, NEVER) if is_opened else state
    may_end = disarmed != NEVER or now - opened >= hold
    if may_end and now - known >= unknown:
        return NEVER, known, NEVER, NEVER
    if is_known:
        known = now
        if probability >= release:
            low_since = NEVER
        elif low_since == NEVER:
            low_since = now
        if may_end and low_since != NEVER and now - low_since >= quiet:
            return NEVER, known, NEVER, NEVER
    if opened != NEVER and now - opened >= cap:
        return NEVER, known, low_since, now
    return opened, known, low_since, disarmed


class CloseReason(StrEnum):
    """The reason for which an episode closed."""

    RELEASED = "released"
    """The probability stayed below the release level."""
    UNKNOWN = "unknown"
    """The probability was unknown for too long."""
    CAPPED = "capped"
    """It was open for the longest time that an episode may last; the probability need not have fallen."""
    CLOCK = "clock"
    """Time stepped back by more than a late row does, so rows before and after cannot be compared."""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """An episode as it opened (``closed`` and ``reason`` are None) or closed; times in ns UTC.

    ``id`` consists of the opening time and the product: the same rows give the same ids, and ids sort by time.
    """

    id: str
    product: str
    opened: int
    closed: int | None = None
    peak_probability: float
    threshold: float
    reason: CloseReason | None = None

    @property
    def is_open(self) -> bool:
        """Whether it has not closed yet."""
        return self.closed is None


def episode_id(product: str, opened: int) -> str:
    """An id of fixed format, so that ids sort as their times do.

    >>> episode_id("BTC-USD", 1_500_000_000)
    '19700101T000001.500000000Z-BTC-USD'
    """
    seconds, fraction = divmod(opened, SECOND_NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y%m%dT%H%M%S}.{fraction:09d}Z-{product}"


class TrackerState(msgspec.Struct, frozen=True):
    """The state of an ``EpisodeTracker``; times in ns, None for what has not happened."""

    newest: int | None
    known: int
    low_since: int | None
    current: Episode | None
    disarmed: int | None = None


class EpisodeTracker:
    """The episodes of one product's live rows.

    Raises:
        UsageError: a release level that is not between 0 and the threshold, a negative time, or a cap below the hold.
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
        cap_s: float = CAP_S,
    ) -> None:
        is_default, release = release is None, RELEASE_SHARE * threshold if release is None else release
        if not (isfinite(threshold) and 0.0 < release < threshold):
            raise UsageError(f"the release level must be between 0 and the threshold {threshold}, was {release}")
        if not (hold_s >= 0.0 and quiet_s >= 0.0 and unknown_s > 0.0):
            raise UsageError(f"an episode's times must not be negative, were {hold_s}, {quiet_s} and {unknown_s} s")
        if not (isfinite(cap_s) and cap_s >= hold_s and cap_s > 0.0):
            raise UsageError(f"an episode's cap must be at least its hold time of {hold_s} s, was {cap_s} s")
        self.product, self.threshold, self.release = product, threshold, release
        # the quotient may differ from the usual share by a rounding error
        self._release_share = RELEASE_SHARE if is_default else release / threshold
        spans = (hold_s, quiet_s, unknown_s, cap_s)
        self._hold, self._quiet, self._unknown, self._cap = (round(span * SECOND_NS) for span in spans)
        self._newest: int | None = None
        self._known = 0
        self._low_since = self._disarmed = NEVER
        self._open: Episode | None = None

    @property
    def current(self) -> Episode | None:
        """The open episode with its peak so far; None between episodes."""
        return self._open

    def set_threshold(self, threshold: float) -> None:
        """Uses this threshold from the next row on; the release level keeps its share of it.

        Raises:
            UsageError: it is not a number above 0.
        """
        if not (isfinite(threshold) and threshold > 0.0):
            raise UsageError(f"an alert threshold must be a number above 0, was {threshold}")
        self.threshold, self.release = threshold, self._release_share * threshold

    def state(self) -> TrackerState:
        """All that later episodes depend on, except the levels and times that the tracker was created with."""
        low_since = None if self._low_since == NEVER else self._low_since
        disarmed = None if self._disarmed == NEVER else self._disarmed
        return TrackerState(self._newest, self._known, low_since, self._open, disarmed)

    def resume(self, state: TrackerState) -> None:
        """Continues from a saved state."""
        self._newest, self._known, self._open = state.newest, state.known, state.current
        self._low_since = NEVER if state.low_since is None else state.low_since
        self._disarmed = NEVER if state.disarmed is None else state.disarmed

    def update(self, time_ns: int, probability: float | None, *, may_open: bool = True) -> Episode | None:
        """Adds a row (probability None or NaN: unknown) and returns the episode that opened or closed with it, if any.

        If not ``may_open``, the row opens no episode.

        A late row counts as if it were at the newest time. A row more than ``unknown_s`` before the newest is no late
        row: time starts again from it, an open episode closes, and a disarmed tracker is armed.
        """
        if self._newest is not None and time_ns < self._newest - self._unknown:
            if self._open is not None:
                return self._restart(time_ns, self._open, self._newest)
            self._newest, self._disarmed = None, NEVER
        self._newest = now = time_ns if self._newest is None else max(time_ns, self._newest)
        episode, value = self._open, nan if probability is None else probability
        opened, self._known, self._low_since, self._disarmed = next_state(
            (NEVER if episode is None else episode.opened, self._known, self._low_since, self._disarmed),
            now,
            value,
            may_open,
            self.threshold,
            self.release,
            self._hold,
            self._quiet,
            self._unknown,
            self._cap,
        )
        if episode is None:
            return None if opened == NEVER else self._open_episode(now, value)
        if opened == NEVER:
            return self._close(episode, now, self._reason(now))
        if isfinite(value) and value > episode.peak_probability:
            self._open = msgspec.structs.replace(episode, peak_probability=value)
        return None

    def end_session(self) -> Episode | None:
        """Closes the open episode at the time at which a silence after the newest row closes it; None without one."""
        return None if self._open is None else self.update(self._expiry(self._open), None)

    def expire(self, now: int) -> Episode | None:
        """Closes the open episode as ``end_session`` does, if a silence up to ``now`` (ns) is long enough for that."""
        return None if self._open is None or now < self._expiry(self._open) else self.end_session()

    def _expiry(self, episode: Episode) -> int:
        """The time at which a silence closes an episode."""
        return max(episode.opened + self._hold, self._known + self._unknown)

    def _reason(self, now: int) -> CloseReason:
        if self._disarmed != NEVER:
            return CloseReason.CAPPED
        return CloseReason.RELEASED if self._known == now else CloseReason.UNKNOWN

    def _open_episode(self, now: int, probability: float) -> Episode:
        self._open = Episode(
            id=episode_id(self.product, now),
            product=self.product,
            opened=now,
            peak_probability=probability,
            threshold=self.threshold,
        )
        return self._open

    def _restart(self, time_ns: int, episode: Episode, newest: int) -> Episode:
        self._newest = time_ns
        return self._close(episode, max(newest, episode.opened + self._hold), CloseReason.CLOCK)

    def _close(self, episode: Episode, now: int, reason: CloseReason) -> Episode:
        self._open = None
        return msgspec.structs.replace(episode, closed=now, reason=reason)


@dataclass(frozen=True, slots=True, eq=False)
class SeriesOrder:
    """The order of n rows that puts each series, the rows of one fold and product, together and sorts it by time.

    Attributes:
        order: (n,) row numbers. A row's index in it is called its position.
        time: (n,) ns, by position.
        begins: (n,) whether the position is the first of its series.
        horizon_ns: the time that a row's label covers.
    """

    order: NDArray[np.int64]
    time: NDArray[np.int64]
    begins: NDArray[np.bool_]
    horizon_ns: int = HORIZON_NS

    @classmethod
    def of(
        cls,
        time: NDArray[np.int64],
        product: NDArray[np.int32],
        fold: NDArray[np.int32] | None = None,
        horizon_s: int = HORIZON_S,
    ) -> Self:
        """The order of rows that are in any order; all arrays are (n,)."""
        fold = np.zeros(len(time), np.int32) if fold is None else fold
        order = np.lexsort((time, product, fold))
        begins = np.ones(len(time), np.bool_)
        begins[1:] = (np.diff(product[order]) != 0) | (np.diff(fold[order]) != 0)
        return cls(order, time[order], begins, horizon_s * SECOND_NS)

    def seconds(self) -> NDArray[np.float64]:
        """(n,) by position: the seconds until the next row of the series.

        0 for the last row of a series and before a silence of at least a minute, which no row covers.
        """
        steps = np.zeros(len(self.time))
        steps[:-1] = np.where(self.begins[1:], 0, np.diff(self.time))
        return np.where(steps < HORIZON_NS, steps / SECOND_NS, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Runs of positions that do not overlap, ascending: first and last position of each, both included."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    def mask(self, n: int) -> NDArray[np.bool_]:
        """(n,) whether each of ``n`` positions is in a run."""
        steps = np.bincount(self.first, minlength=n + 1) - np.bincount(self.last + 1, minlength=n + 1)
        return np.cumsum(steps)[:-1] > 0

    def first_overlap(self, others: Runs) -> NDArray[np.int64]:
        """Of each run the index of the first of ``others`` that shares a position with it; −1 for none."""
        if len(others) == 0:
            return np.full(len(self), -1)
        candidate = np.searchsorted(others.last, self.first)
        overlaps = others.first[np.minimum(candidate, len(others) - 1)] <= self.last
        return np.where((candidate < len(others)) & overlaps, candidate, -1)


def spike_runs(series: SeriesOrder, y: NDArray[np.int8]) -> Runs:
    """The spike events: spike rows (``y`` = 1, (n,) in the rows' order), joined where less than the horizon apart.

    A label covers the horizon after its row, so two spike rows closer than that share part of their future.
    """
    spike = np.flatnonzero(y[series.order] == 1)
    if len(spike) == 0:
        return Runs(spike, spike)
    number = np.cumsum(series.begins)
    is_apart = (np.diff(series.time[spike]) >= series.horizon_ns) | (np.diff(number[spike]) != 0)
    return Runs(spike[np.append(True, is_apart)], spike[np.append(is_apart, True)])


def alarm_runs(
    series: SeriesOrder,
    score: NDArray[np.float64],
    threshold: NDArray[np.float64] | float,
    may_open: NDArray[np.bool_] | bool = True,
) -> Runs:
    """The episodes of ``score`` (n, in the rows' order; NaN is unknown) at one threshold or one per row.

    ``may_open`` is of each row (n, in the rows' order) or of all. A run holds the positions at which the episode is
    open, so not the one that closes it. A threshold that is not above 0, possible for a score that is no probability,
    is its own release level.
    """
    level = np.broadcast_to(np.asarray(threshold, np.float64), score.shape)[series.order]
    release = np.where(level > 0.0, RELEASE_SHARE * level, level)
    spans = [round(span * SECOND_NS) for span in (HOLD_S, QUIET_S, UNKNOWN_S, CAP_S)]
    opens = np.broadcast_to(may_open, score.shape)[series.order]
    first, last = _compiled_episodes()(series.time, score[series.order], opens, level, release, series.begins, *spans)
    return Runs(first, last)


@cache
def _compiled_episodes() -> Callable[..., tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """``_episodes`` with ``next_state`` compiled into it.

    Live rows and the start of a command need no compiler: numba takes a quarter of a second to import.
    """
    from numba.extending import register_jitable  # noqa: PLC0415

    from volspike.compiled import compiled  # noqa: PLC0415

    register_jitable(next_state)
    return compiled(_episodes)


def _episodes(
    time: NDArray[np.int64],
    score: NDArray[np.float64],
    may_open: NDArray[np.bool_],
    threshold: NDArray[np.float64],
    release: NDArray[np.float64],
    begins: NDArray[np.bool_],
    hold: int,
    quiet: int,
    unknown: int,
    cap: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last position of each episode, the closing one excluded."""
    first, last = np.empty(len(time), np.int64), np.empty(len(time), np.int64)
    count = 0
    state = IDLE
    for row in range(len(time)):
        if begins[row]:
            state = IDLE
        was_open = state[0] != NEVER
        level, low = threshold[row], release[row]
        state = next_state(state, time[row], score[row], may_open[row], level, low, hold, quiet, unknown, cap)
        if state[0] != NEVER:
            if not was_open:
                first[count] = row
                count += 1
            last[count - 1] = row
    return first[:count].copy(), last[:count].copy()
