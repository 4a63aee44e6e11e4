"""The bounded queue between the socket and whoever reads: what it cannot hold is let go, counted and marked."""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec

from volspike.feeds.session_events import FeedState
from volspike.market import Cause, Gap


class Arrival(msgspec.Struct, gc=False):
    """One frame as it came, undecoded; ``received`` in ns UTC."""

    received: int
    data: bytes


class AckDue(msgspec.Struct, gc=False):
    """By now, whatever came before it, the exchange should have granted what was asked."""

    received: int


class Overflow(msgspec.Struct):
    """Stands in the queue where ``lost`` frames were let go between two that were kept; grows while it is last.

    ``missing`` counts messages that the exchange's own count missed meanwhile.
    """

    start: int
    end: int
    lost: int = 0
    missing: int = 0

    def gaps(self, products: tuple[str, ...]) -> list[Gap]:
        """The same as gaps of ``products``."""
        told = [Gap(start=self.start, end=self.end, products=products, cause=Cause.OVERFLOW, lost=self.lost)]
        if self.missing:
            told.append(Gap(start=self.start, end=self.end, products=products, cause=Cause.SEQUENCE, lost=self.missing))
        return told


Notice: TypeAlias = Gap | FeedState | AckDue
Entry: TypeAlias = Arrival | Overflow | Notice


class Inbox:
    """Frames and notices in the order in which they came.

    Holds ``most_frames`` frames of ``most_bytes`` together (one frame whatever its size). When it is full the
    newest are let go until half of it is free again: one longer gap does less harm to windows than a comb of
    short ones. Notices are always kept; they are few, since sequence gaps within an overflow are added to it.
    """

    def __init__(self, most_frames: int, most_bytes: int) -> None:
        self._most_frames = most_frames
        self._most_bytes = most_bytes
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._last = 0
        self._is_overflowing = False
        self._mark: Overflow | None = None
        self.frames = 0
        self.let_go = 0

    def put(self, arrival: Arrival) -> None:
        """Keep a frame, or let it go and mark that."""
        if self._has_room(len(arrival.data)):
            self._keep(arrival)
        else:
            self._let_go(arrival.received)

    def note(self, notice: Notice) -> None:
        """Keep a notice behind the frames that came before it."""
        if self._mark is not None:
            if isinstance(notice, Gap) and notice.cause is Cause.SEQUENCE:
                self._mark.missing += notice.lost
                self._mark.end = notice.end
                return
            self._last = self._mark.end
            self._mark = None
        self._entries.append(notice)

    def take(self) -> Entry | None:
        """The oldest entry; ``None`` if there is none."""
        if not self._entries:
            return None
        entry = self._entries.popleft()
        if isinstance(entry, Arrival):
            self.frames -= 1
            self._bytes -= len(entry.data)
        elif entry is self._mark:
            self._mark = None
        return entry

    def _has_room(self, size: int) -> bool:
        if self._is_overflowing:
            self._is_overflowing = 2 * self.frames > self._most_frames or 2 * self._bytes > self._most_bytes
        elif self.frames:
            self._is_overflowing = self.frames >= self._most_frames or self._bytes + size > self._most_bytes
        return not self._is_overflowing

    def _keep(self, arrival: Arrival) -> None:
        if self._mark is not None:
            self._mark.end = arrival.received
            self._mark = None
        self.frames += 1
        self._bytes += len(arrival.data)
        self._last = arrival.received
        self._entries.append(arrival)

    def _let_go(self, received: int) -> None:
        if self._mark is None:
            self._mark = Overflow(self._last, received)
            self._entries.append(self._mark)
        self._mark.lost += 1
        self._mark.end = received
        self.let_go += 1
