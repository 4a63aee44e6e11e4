"""The bounded queue between socket and reader, and the intake that fills it.

``FrameIntake`` works at the socket: it stamps frames, follows their sequence numbers and detects silences, and never
decodes. ``Inbox`` is the queue: frames that do not fit are dropped, counted and marked where they are missing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from enum import Enum, auto
from typing import Final, TypeAlias

import msgspec

from volspike.config import FeedSettings
from volspike.feeds.events import FeedState
from volspike.feeds.protocol import FeedProtocol
from volspike.market import SECOND_NS, Cause, Gap


class Arrival(msgspec.Struct, gc=False):
    """One frame, undecoded; ``received`` in ns UTC."""

    received: int
    data: bytes


class AckDeadline(msgspec.Struct, gc=False):
    """The time by which the exchange should have confirmed everything requested."""

    received: int


class ClockStep(msgspec.Struct, gc=False):
    """Our clock was set by ``by`` ns between ``start``, when the last frame came, and ``end``, by the new time."""

    start: int
    end: int
    by: int


class Overflow(msgspec.Struct):
    """Marks ``lost`` frames dropped between two kept ones; grows while it is the last entry.

    ``missing`` counts messages that the exchange's sequence numbers skipped in the same span; with ``has_reset`` it is
    unknown how many.
    """

    start: int
    end: int
    lost: int = 0
    missing: int = 0
    has_reset: bool = False

    def gaps(self, products: tuple[str, ...]) -> list[Gap]:
        """The loss as gaps of ``products``."""
        gaps = [Gap(start=self.start, end=self.end, products=products, cause=Cause.OVERFLOW, lost=self.lost)]
        if self.missing or self.has_reset:
            lost = -1 if self.has_reset else self.missing
            gaps.append(Gap(start=self.start, end=self.end, products=products, cause=Cause.SEQUENCE, lost=lost))
        return gaps


class ChangeoverStage(Enum):
    """The state of the connection that is to replace the present one."""

    OPENED = auto()
    FAILED = auto()
    SWITCHED = auto()


class ChangeoverNote(msgspec.Struct, gc=False):
    """A new connection was opened next to the present one, has failed, or has replaced it (ns UTC)."""

    received: int
    stage: ChangeoverStage


Notice: TypeAlias = Gap | FeedState | AckDeadline | ClockStep | ChangeoverNote
Entry: TypeAlias = Arrival | Overflow | Notice


NEVER: Final = 2**63 - 1
"""Later than any time."""


class Inbox:
    """Frames and notices in the order of arrival.

    Holds up to ``most_frames`` frames of ``most_bytes`` together, and always one frame of any size. A full inbox drops
    new frames until half of it is free: one long gap does less harm to windows than many short ones. Notices are
    always kept; they are few, because sequence gaps during an overflow are added to its mark.
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
        self.dropped = 0

    def put(self, arrival: Arrival) -> None:
        """Keep a frame, or drop it and mark that."""
        if self._has_room(len(arrival.data)):
            self._keep(arrival)
        else:
            self._drop(arrival.received)

    def note(self, notice: Notice) -> None:
        """Keep a notice behind the frames that came before it."""
        if self._mark is not None:
            if isinstance(notice, Gap) and notice.cause is Cause.SEQUENCE:
                self._mark.missing += max(0, notice.lost)
                self._mark.has_reset |= notice.lost < 0
                self._mark.end = notice.end
                return
            self._last = self._mark.end
            self._mark = None
        self._entries.append(notice)

    def take(self) -> Entry | None:
        """Remove and return the oldest entry; None if there is none."""
        if not self._entries:
            return None
        entry = self._entries.popleft()
        if isinstance(entry, Arrival):
            self.frames -= 1
            self._bytes -= len(entry.data)
        elif entry is self._mark:
            self._mark = None
        return entry

    def take_over(self, waiting: Inbox, last_received: int) -> None:
        """Append the entries of a new connection, which has received them since before ``last_received`` (ns UTC).

        That is when the old connection received its last frame; what came before is stamped with it, so that times of
        receipt do not step back. What was noted about the new connection before is no loss of the session.
        """
        self.note(ChangeoverNote(last_received, ChangeoverStage.SWITCHED))
        while (entry := waiting.take()) is not None:
            match entry:
                case Arrival():
                    self.put(Arrival(max(entry.received, last_received), entry.data))
                case Overflow():
                    self._entries.append(entry)
                case ClockStep():
                    pass  # the intake of the old connection has noted it too
                case Gap():
                    if entry.end > last_received:
                        self.note(entry)
                case _:
                    self.note(entry)
        self.dropped += waiting.dropped

    @property
    def oldest(self) -> int:
        """When the oldest entry was received (ns UTC): 0 for one that is not a frame, ``NEVER`` if there is none."""
        if not self._entries:
            return NEVER
        entry = self._entries[0]
        return entry.received if isinstance(entry, Arrival) else 0

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

    def _drop(self, received: int) -> None:
        if self._mark is None:
            self._mark = Overflow(self._last, received)
            self._entries.append(self._mark)
        self._mark.lost += 1
        self._mark.end = received
        self.dropped += 1


SHORTEST_STEP_NS: Final = SECOND_NS
"""The shortest step of our clock that is noted."""


class FrameIntake:
    """Puts the frames of successive connections into the inbox, each gap before the frame that reveals it.

    Times are ns UTC of the wall clock, in which gaps are recorded. ``elapsed`` (ns) is a clock that is never set, by
    which steps of the wall clock are noticed; they make no silence longer or shorter than it was.
    """

    def __init__(
        self,
        settings: FeedSettings,
        protocol: FeedProtocol,
        inbox: Inbox,
        *,
        elapsed: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._elapsed = elapsed
        self._ahead = 0
        self._has_clock = False
        self._sequence_of = protocol.sequence
        self._products = protocol.data_names(settings.products)
        self._silence_ns = round(settings.heartbeat_timeout_s * SECOND_NS)
        self._idle_ns = round(settings.idle_timeout_s * SECOND_NS)
        self._inbox = inbox
        self._earlier_repeated = 0
        self._last_in_order = 0
        self.frames = self.bytes = self.lost = self.last_received = 0
        self._check = SequenceCheck()
        self._silence = SilenceDetector(self._silence_ns, self._idle_ns, 0)

    @property
    def repeated(self) -> int:
        """Sequence numbers that came twice or late, over all connections."""
        return self._earlier_repeated + self._check.repeated

    def begin_connection(self, now: int) -> None:
        """Start the sequence numbers and the silence of a new connection."""
        self._check_clock(now)
        self._earlier_repeated += self._check.repeated
        self._check = SequenceCheck()
        self._silence = SilenceDetector(self._silence_ns, self._idle_ns, now)

    def add(self, received: int, data: bytes) -> None:
        """Add a frame; takes some microseconds whatever its content."""
        self._check_clock(received)
        self._note_silence(self._silence.end(received))
        number = self._sequence_of(data)
        if number >= 0:
            missing = self._check.missing(number)
            if missing:
                self._note_missing(missing, received)
            elif self._check.has_reset:
                self._note_reset(number, received)
            if not self._check.is_behind:
                self._last_in_order = received
        self.frames += 1
        self.bytes += len(data)
        self.last_received = received
        self._inbox.put(Arrival(received, data))

    def succeed(self, earlier: FrameIntake, inbox: Inbox) -> None:
        """Continue the counts of the intake of an earlier connection, and put frames into its ``inbox``."""
        inbox.take_over(self._inbox, earlier.last_received)
        self._inbox = inbox
        self._earlier_repeated += earlier.repeated
        self.frames += earlier.frames
        self.bytes += earlier.bytes
        self.lost += earlier.lost
        self.last_received = max(self.last_received, earlier.last_received)

    def check_silence(self, now: int) -> bool:
        """Note a silence that has become long enough; returns whether the connection is idle and should be closed."""
        self._check_clock(now)
        self._note_silence(self._silence.detect(now))
        return self._silence.is_idle(now)

    def _check_clock(self, now: int) -> None:
        """Note a step of the wall clock since the last call; it may also run slightly faster or slower."""
        ahead = now - self._elapsed()
        step, self._ahead = ahead - self._ahead, ahead
        if -SHORTEST_STEP_NS < step < SHORTEST_STEP_NS:
            return
        if self._has_clock:
            self._silence.set_clock(step)
            self._inbox.note(ClockStep(min(self.last_received or now, now), now, step))
        self._has_clock = True

    def _note_silence(self, span: Span | None) -> None:
        if span is not None:
            start, end = span
            self._inbox.note(Gap(start=start, end=end, products=self._products, cause=Cause.SILENCE))

    def _note_missing(self, missing: range, received: int) -> None:
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

    def _note_reset(self, number: int, received: int) -> None:
        """Any number of messages may be lost since the last one before the numbers went back."""
        gap = Gap(
            start=min(self._last_in_order, received),
            end=received,
            products=self._products,
            cause=Cause.SEQUENCE,
            detail=f"the sequence numbers were reset: {number} after {self._check.before_reset}",
        )
        self._inbox.note(gap)


LARGE_STEP_BACK: Final = 1000
RUN_AFTER_RESET: Final = 3
"""Numbers lower than the highest by more than the first, or this many ascending lower ones in a row, are a reset."""


class SequenceCheck:
    """Finds missing numbers on one connection, where the exchange numbers every message.

    Numbers may start anywhere. A lower number than the highest so far is a duplicate or late, and counted in
    ``repeated``, unless it shows that the exchange has started to count again (``has_reset``, true for the call that
    found out). Counting then continues from there; if the next numbers continue the old count, so does the check.
    """

    __slots__ = ("_behind", "_highest", "_trials", "before_reset", "has_reset", "is_behind", "repeated")

    def __init__(self) -> None:
        self._highest = -1
        self._behind: list[int] = []
        self._trials = 0
        self.repeated = 0
        self.before_reset = -1
        """The highest number before the last reset."""
        self.has_reset = False
        self.is_behind = False
        """Whether the last number was not above the highest."""

    def missing(self, number: int) -> range:
        """The numbers skipped before ``number`` (0 or more); empty if it follows its predecessor.

        >>> check = SequenceCheck()
        >>> [check.missing(number) for number in (7, 8, 11, 11)]
        [range(0, 0), range(0, 0), range(9, 11), range(0, 0)]
        """
        before = self._highest
        self.is_behind = self.has_reset = False
        if number <= before:
            self._go_back(number)
            return _NOTHING
        self._highest = number
        if self._behind:
            self._behind.clear()
        if self._trials:
            self._trials -= 1
            if before < self.before_reset < number:  # the old count goes on: there was no reset
                self._trials, before = 0, self.before_reset
        if number == before + 1 or before < 0:
            return _NOTHING
        return range(before + 1, number)

    def _go_back(self, number: int) -> None:
        behind = self._behind
        if behind and number <= behind[-1]:
            behind[:] = [number]
        elif behind or number < self._highest:
            behind.append(number)
        if self._highest - number > LARGE_STEP_BACK or len(behind) >= RUN_AFTER_RESET:
            self.has_reset = True
            self.before_reset, self._highest = self._highest, number
            self._trials = RUN_AFTER_RESET
            behind.clear()
        else:
            self.is_behind = True
            self.repeated += 1


_NOTHING = range(0)
Span: TypeAlias = tuple[int, int]


class SilenceDetector:
    """Reports silences of one connection as spans of time (ns UTC) that do not overlap.

    The first span of a silence is reported once it has lasted ``silence_ns``, up to that moment; the rest when it
    ends. There is no silence before the first frame, but the connection can be idle.
    """

    __slots__ = ("_has_frame", "_idle_ns", "_last", "_reported_until", "_silence_ns")

    def __init__(self, silence_ns: int, idle_ns: int, connected: int) -> None:
        self._silence_ns = silence_ns
        self._idle_ns = idle_ns
        self._last = connected
        self._has_frame = False
        self._reported_until = 0

    def end(self, received: int) -> Span | None:
        """A frame came: the rest of the silence that it ends, if one was reported."""
        self._last = received
        self._has_frame = True
        if not self._reported_until:
            return None
        start, self._reported_until = self._reported_until, 0
        return start, max(start, received)

    def detect(self, now: int) -> Span | None:
        """The silence that has just reached ``silence_ns``, if there is one."""
        if not self._has_frame or self._reported_until or now - self._last < self._silence_ns:
            return None
        self._reported_until = now
        return self._last, now

    def set_clock(self, by_ns: int) -> None:
        """The clock was set by ``by_ns``; the silence so far is as long as before."""
        self._last += by_ns
        if self._reported_until:
            self._reported_until += by_ns

    def is_idle(self, now: int) -> bool:
        """Whether no frame has come for ``idle_ns``, so that the connection is worthless."""
        return now - self._last >= self._idle_ns
