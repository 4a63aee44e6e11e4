"""One spike is one alert: an episode opens at the threshold and closes well below it, not at every crossing.

Pure: knows of times and probabilities, not of clocks, markets or whom to tell. ``evaluation.alarms`` follows the same
rule over recorded rows.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite

import msgspec

from volspike.errors import UsageError
from volspike.evaluation.alarms import HOLD_S, QUIET_S, RELEASE_SHARE, UNKNOWN_S
from volspike.market import SECOND_NS


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
