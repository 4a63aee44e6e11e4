"""Whether the exchange's own count of its messages has holes.

How long nothing has come over a connection that should beat every second.

The bounded queue between the socket and whoever reads: what it cannot hold is let go, counted and marked.

The side of a session that stands at the socket: stamps frames, follows their count, and never decodes.
"""

from __future__ import annotations

from collections import deque
from typing import TypeAlias

import msgspec

from volspike.config import FeedSettings
from volspike.feeds.events import FeedState
from volspike.feeds.protocol import FeedProtocol, names_of
from volspike.market import SECOND_NS, Cause, Gap

_NOTHING = range(0)


class SequenceCheck:
    """Follows the numbers of one connection, which count every message that the exchange sent on it.

    The count begins wherever the first message stands. ``repeated`` counts the numbers that were no further than
    one before them: duplicates, and messages that came late after they had been told missing.
    """

    __slots__ = ("_highest", "repeated")

    def __init__(self) -> None:
        self._highest = -1
        self.repeated = 0

    def missing(self, number: int) -> range:
        """The numbers that were passed over by going to ``number`` (0 or more); empty for the next in turn.

        >>> check = SequenceCheck()
        >>> [check.missing(number) for number in (7, 8, 11, 11)]
        [range(0, 0), range(0, 0), range(9, 11), range(0, 0)]
        """
        before = self._highest
        if number <= before:
            self.repeated += 1
            return _NOTHING
        self._highest = number
        if number == before + 1 or before < 0:
            return _NOTHING
        return range(before + 1, number)


Span: TypeAlias = tuple[int, int]


class SilenceWatch:
    """Tells silences of one connection as spans of time (ns UTC), each nanosecond of them once.

    A silence is told when it has lasted ``silence_ns``, up to that moment; what it lasts longer is told when it
    ends. Before the first frame there is nothing that could have fallen silent, but there is idleness.
    """

    __slots__ = ("_has_heard", "_idle_ns", "_last", "_silence_ns", "_told_until")

    def __init__(self, silence_ns: int, idle_ns: int, connected: int) -> None:
        self._silence_ns = silence_ns
        self._idle_ns = idle_ns
        self._last = connected
        self._has_heard = False
        self._told_until = 0

    def hear(self, received: int) -> Span | None:
        """A frame came; the rest of the silence that it ends, if one was told."""
        self._last = received
        self._has_heard = True
        if not self._told_until:
            return None
        start, self._told_until = self._told_until, 0
        return start, max(start, received)

    def look(self, now: int) -> Span | None:
        """The silence that has just become long enough to be told, if there is one."""
        if not self._has_heard or self._told_until or now - self._last < self._silence_ns:
            return None
        self._told_until = now
        return self._last, now

    def is_idle(self, now: int) -> bool:
        """Whether so long nothing came that the connection is worth nothing."""
        return now - self._last >= self._idle_ns


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


class Intake:
    """Puts what one connection after another brings into the inbox, each gap before the frame that shows it.

    Instants are ns UTC of the wall clock, which is what gaps are told in; a step of that clock can make a silence
    longer or shorter than it was, but hides no frame.
    """

    def __init__(self, settings: FeedSettings, protocol: FeedProtocol, inbox: Inbox) -> None:
        self._sequence_of = protocol.sequence
        self._products = names_of(settings.products)
        self._silence_ns = round(settings.heartbeat_timeout_s * SECOND_NS)
        self._idle_ns = round(settings.idle_timeout_s * SECOND_NS)
        self._inbox = inbox
        self._earlier_repeated = 0
        self.frames = self.bytes = self.lost = self.last_received = 0
        self._check = SequenceCheck()
        self._watch = SilenceWatch(self._silence_ns, self._idle_ns, 0)

    @property
    def repeated(self) -> int:
        """Numbers that came twice or late, over all connections."""
        return self._earlier_repeated + self._check.repeated

    def begin(self, now: int) -> None:
        """A connection is made: its count begins anew, and so does listening for silence."""
        self._earlier_repeated += self._check.repeated
        self._check = SequenceCheck()
        self._watch = SilenceWatch(self._silence_ns, self._idle_ns, now)

    def arrive(self, received: int, data: bytes) -> None:
        """A frame came; takes some microseconds whatever it holds."""
        silence = self._watch.hear(received)
        if silence is not None:
            self._tell_silence(silence)
        number = self._sequence_of(data)
        if number >= 0:
            missing = self._check.missing(number)
            if missing:
                self._tell_missing(missing, received)
        self.frames += 1
        self.bytes += len(data)
        self.last_received = received
        self._inbox.put(Arrival(received, data))

    def look(self, now: int) -> bool:
        """Tell a silence that has become long enough; whether the connection is to be given up."""
        silence = self._watch.look(now)
        if silence is not None:
            self._tell_silence(silence)
        return self._watch.is_idle(now)

    def _tell_silence(self, span: Span) -> None:
        start, end = span
        self._inbox.note(Gap(start=start, end=end, products=self._products, cause=Cause.SILENCE))

    def _tell_missing(self, missing: range, received: int) -> None:
        self.lost += len(missing)
        gap = Gap(
            start=self.last_received,
            end=received,
            products=self._products,
            cause=Cause.SEQUENCE,
            lost=len(missing),
            detail=f"messages {missing[0]} to {missing[-1]}",
        )
        self._inbox.note(gap)
