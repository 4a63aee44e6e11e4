"""The bounded queue, sequence numbers and silences."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.config import FeedSettings
from volspike.feeds.events import FeedState
from volspike.feeds.inbox import (
    Arrival,
    ChangeoverNote,
    ChangeoverStage,
    ClockStep,
    Entry,
    FrameIntake,
    Inbox,
    Overflow,
    SequenceCheck,
    SilenceDetector,
)
from volspike.feeds.venues import all_protocols
from volspike.market import SECOND_NS, Cause, Gap

SILENCE, IDLE = 10, 30


def missing_numbers(numbers: list[int]) -> list[int]:
    check = SequenceCheck()
    return [number for current in numbers for number in check.missing(current)]


@given(st.sets(st.integers(0, 200), min_size=1), st.data())
def test_missing_numbers_are_found_exactly_once(numbers: set[int], data: st.DataObject) -> None:
    """Whichever numbers are left out and however often others repeat, each number left out is found once."""
    came = [number for number in sorted(numbers) for _ in range(data.draw(st.integers(1, 3)))]
    assert missing_numbers(came) == sorted(set(range(min(numbers), max(numbers))) - numbers)


@given(st.sets(st.integers(0, 100), min_size=1), st.data())
def test_late_numbers_hide_no_loss(numbers: set[int], data: st.DataObject) -> None:
    """When neighbours are swapped, the missing numbers found are ascending, and include all that never arrive."""
    came = sorted(numbers)
    for place in range(0, len(came) - 1, 2):
        if data.draw(st.booleans()):
            came[place : place + 2] = came[place + 1], came[place]
    check = SequenceCheck()
    reported = [number for current in came for number in check.missing(current)]
    assert all(one < other for one, other in pairwise(reported))
    assert set(range(came[0], max(came))) - numbers <= set(reported)
    assert check.repeated == len(came) - (max(came) - came[0] - len(reported)) - 1


def resets(numbers: list[int]) -> list[int]:
    """The numbers at which a reset is found."""
    check = SequenceCheck()
    found = []
    for number in numbers:
        check.missing(number)
        if check.has_reset:
            found.append(number)
    return found


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([50, 51, 0, 1, 2, 3], [2]),
        ([50, 51, 0, 4, 9], [9]),
        ([50, 51, 20, 52, 21, 53, 22, 54], []),
        ([50, 51, 51, 51, 51], []),
        ([50, 51, 20, 20, 20], []),
        ([50, 51, 22, 21, 20], []),
        ([2000, 1000, 2001], []),
        ([2000, 999, 1000], [999]),
        ([2, 0, 1, 2], [2]),
    ],
)
def test_reset_is_a_large_step_back_or_a_run_of_lower_numbers(numbers: list[int], expected: list[int]) -> None:
    """Three ascending lower numbers, or a step back of more than 1000, are a reset; single late numbers are not."""
    assert resets(numbers) == expected


@given(st.integers(1100, 10_000), st.sets(st.integers(3, 300)))
def test_losses_after_a_reset_are_found(highest: int, lost: set[int]) -> None:
    """From the number at which the reset is found, each number left out is found once."""
    after = [number for number in range(400) if number not in lost]
    assert missing_numbers([highest - 1, highest, *after]) == sorted(lost)


def test_single_late_number_after_a_large_step_leaves_the_count_as_it_was() -> None:
    """A number far below the highest looks like a reset; the next number continues the old count and its losses."""
    assert missing_numbers([5000, 5001, 7, 5002, 5005]) == [5003, 5004]
    assert missing_numbers([5000, 5001, 7, 5004, 5005]) == [5002, 5003]


@given(st.lists(st.integers(0, 25), max_size=40))
def test_silences_are_reported_without_holes_or_overlap(steps: list[int]) -> None:
    """Checked every nanosecond, the spans reported are exactly the pauses that reach the limit."""
    detector, now = SilenceDetector(SILENCE, IDLE, 0), 0
    reported: list[tuple[int, int]] = []
    pauses: list[tuple[int, int]] = []
    last: int | None = None
    for pause in steps:
        for _ in range(pause):
            now += 1
            reported += filter(None, [detector.detect(now)])
        reported += filter(None, [detector.end(now)])
        if last is not None and now - last >= SILENCE:
            pauses.append((last, now))
        last = now
    covered = [moment for start, end in reported for moment in range(start, end)]
    assert covered == [moment for start, end in pauses for moment in range(start, end)]


def test_silence_is_reported_at_the_limit_and_at_its_end() -> None:
    """The first span is reported during the silence, the rest with the frame that ends it; idleness comes later."""
    detector = SilenceDetector(SILENCE, IDLE, 100)
    detector.end(105)
    assert detector.detect(114) is None
    assert detector.detect(116) == (105, 116)
    assert detector.detect(120) is None
    assert not detector.is_idle(134)
    assert detector.is_idle(135)
    assert detector.end(140) == (116, 140)
    assert detector.end(141) is None


def test_connection_without_a_frame_is_idle_and_not_silent() -> None:
    """Without a first frame no silence is reported, but the connection becomes idle."""
    detector = SilenceDetector(SILENCE, IDLE, 100)
    assert detector.detect(125) is None
    assert detector.is_idle(130)


def taken(inbox: Inbox) -> list[object]:
    return list(iter(inbox.take, None))


@given(st.lists(st.booleans(), max_size=80), st.integers(1, 6))
def test_inbox_marks_exactly_the_dropped_frames(puts: list[bool], most: int) -> None:
    """However putting and taking alternate, frames and marks together cover every number once and in order."""
    inbox, number = Inbox(most, 1 << 20), 0
    out: list[object] = []
    for is_put in puts:
        if is_put:
            inbox.put(Arrival(number, b"frame"))
            number += 1
        else:
            out += filter(None, [inbox.take()])
        assert inbox.frames <= most
    expected = 0
    for entry in out + taken(inbox):
        if isinstance(entry, Overflow):
            assert entry.lost > 0
            assert entry.start == expected - 1
            assert entry.end in {expected + entry.lost, expected + entry.lost - 1}
            expected += entry.lost
        else:
            assert isinstance(entry, Arrival)
            assert entry.received == expected
            expected += 1
    assert expected == number


def test_inbox_is_bounded_in_bytes() -> None:
    """A frame beyond the byte limit is dropped, but one frame of any size is always kept."""
    inbox = Inbox(100, 10)
    for received in range(3):
        inbox.put(Arrival(received, b"eleven bytes"))
    assert inbox.frames == 1
    assert inbox.dropped == 2


def test_gaps_within_an_overflow_are_added_to_its_mark() -> None:
    """While frames are dropped, missing numbers are added to the mark and not to the queue; it reports both."""
    inbox = Inbox(1, 1 << 20)
    inbox.put(Arrival(1, b""))
    inbox.put(Arrival(2, b""))
    for received in range(3, 1000):
        inbox.note(Gap(start=received - 1, end=received, products=(), cause=Cause.SEQUENCE, lost=2))
        inbox.put(Arrival(received, b""))
    kept, mark = taken(inbox)
    assert isinstance(kept, Arrival)
    assert isinstance(mark, Overflow)
    overflow, sequence = mark.gaps(("BTC-USD",))
    assert (overflow.cause, overflow.lost, overflow.start, overflow.end) == (Cause.OVERFLOW, 998, 1, 999)
    assert (sequence.cause, sequence.lost) == (Cause.SEQUENCE, 2 * 997)


def test_notice_keeps_its_place() -> None:
    """A state that arrives while frames are dropped ends the mark; later drops are marked after it."""
    inbox = Inbox(1, 1 << 20)
    for received in (1, 2):
        inbox.put(Arrival(received, b""))
    inbox.note(FeedState(received=3, is_connected=False, reason="", url="", attempt=1))
    inbox.put(Arrival(4, b""))
    kept, first, _, second = taken(inbox)
    assert isinstance(kept, Arrival)
    assert first == Overflow(1, 2, 1)
    assert second == Overflow(2, 4, 1)


@pytest.mark.parametrize(
    ("number", "missing", "repeated"), [(6, [], 1), (7, [], 1), (8, [], 0), (9, [8], 0), (10, [8, 9], 0)]
)
def test_number_around_the_last_one(number: int, missing: list[int], repeated: int) -> None:
    """After number 7, a number up to 7 is a repeat, 8 is the next, and a later one skips those between."""
    check = SequenceCheck()
    check.missing(7)
    assert list(check.missing(number)) == missing
    assert check.repeated == repeated


@pytest.mark.parametrize(("age", "is_silent"), [(SILENCE - 1, False), (SILENCE, True), (SILENCE + 1, True)])
def test_silence_at_its_limit(age: int, is_silent: bool) -> None:
    """A silence is reported from exactly ``silence_ns`` after the last frame."""
    detector = SilenceDetector(SILENCE, IDLE, 100)
    detector.end(105)
    assert detector.detect(105 + age) == ((105, 105 + age) if is_silent else None)


@pytest.mark.parametrize(("age", "is_idle"), [(IDLE - 1, False), (IDLE, True), (IDLE + 1, True)])
def test_idleness_at_its_limit(age: int, is_idle: bool) -> None:
    """A connection is idle from exactly ``idle_ns`` after the last frame, or after connecting."""
    detector = SilenceDetector(SILENCE, IDLE, 100)
    assert detector.is_idle(100 + age) is is_idle
    detector.end(105)
    assert detector.is_idle(105 + age) is is_idle


def filled(most_frames: int, most_bytes: int, sizes: list[int]) -> Inbox:
    inbox = Inbox(most_frames, most_bytes)
    for received, size in enumerate(sizes):
        inbox.put(Arrival(received, b"x" * size))
    return inbox


@pytest.mark.parametrize(("count", "dropped"), [(3, 0), (4, 0), (5, 1)])
def test_inbox_at_its_limit_of_frames(count: int, dropped: int) -> None:
    """The inbox keeps exactly ``most_frames`` frames."""
    assert filled(4, 1 << 20, [1] * count).dropped == dropped


@pytest.mark.parametrize(("size", "dropped"), [(5, 0), (6, 0), (7, 1)])
def test_inbox_at_its_limit_of_bytes(size: int, dropped: int) -> None:
    """The inbox keeps frames of exactly ``most_bytes`` together."""
    assert filled(100, 10, [4, size]).dropped == dropped


@pytest.mark.parametrize(("taken_first", "dropped"), [(1, 2), (2, 1), (3, 1)])
def test_full_inbox_takes_frames_again_when_half_is_free(taken_first: int, dropped: int) -> None:
    """After an overflow, frames are dropped until exactly half of the frames are taken."""
    inbox = filled(4, 1 << 20, [1] * 5)
    for _ in range(taken_first):
        inbox.take()
    inbox.put(Arrival(9, b"x"))
    assert inbox.dropped == dropped


@pytest.mark.parametrize(("taken_first", "dropped"), [(4, 2), (5, 1), (6, 1)])
def test_full_inbox_takes_frames_again_when_half_of_the_bytes_are_free(taken_first: int, dropped: int) -> None:
    """After an overflow, frames are dropped until exactly half of the bytes are taken."""
    inbox = filled(100, 10, [1] * 11)
    for _ in range(taken_first):
        inbox.take()
    inbox.put(Arrival(99, b"x"))
    assert inbox.dropped == dropped


def intake(inbox: Inbox, elapsed: list[int]) -> FrameIntake:
    """An intake whose monotonic clock shows the only number in ``elapsed``."""
    return FrameIntake(FeedSettings(), all_protocols()["coinbase-exchange"], inbox, elapsed=lambda: elapsed[0])


@pytest.mark.parametrize("step_s", [-3600, -1, 1, 3600])
def test_step_of_our_clock_is_noted(step_s: int) -> None:
    """A step is noted before the frame that reveals it, once, with its size; it ends no connection as idle."""
    inbox, elapsed = Inbox(100, 1 << 20), [0]
    frames = intake(inbox, elapsed)
    start = 1_000_000 * SECOND_NS
    frames.begin_connection(start)
    frames.add(start, b"1")
    elapsed[0] = SECOND_NS
    after = start + (1 + step_s) * SECOND_NS
    frames.add(after, b"2")
    elapsed[0] = 2 * SECOND_NS
    assert not frames.check_silence(after + SECOND_NS)
    first, step, second = taken(inbox)
    assert step == ClockStep(min(start, after), after, step_s * SECOND_NS)
    assert [entry.data for entry in (first, second) if isinstance(entry, Arrival)] == [b"1", b"2"]
    elapsed[0] = 11 * SECOND_NS
    assert not frames.check_silence(after + 10 * SECOND_NS)
    (silence,) = taken(inbox)
    assert isinstance(silence, Gap)
    assert (silence.start, silence.end, silence.cause) == (after, after + 10 * SECOND_NS, Cause.SILENCE)


def test_clock_that_is_slightly_fast_takes_no_step() -> None:
    """Half a second gained every second is many small differences and no step."""
    inbox, elapsed = Inbox(100, 1 << 20), [0]
    frames = intake(inbox, elapsed)
    for second in range(50):
        elapsed[0] = second * SECOND_NS
        frames.add(second * SECOND_NS * 3 // 2, b"")
    assert all(isinstance(entry, Arrival) for entry in taken(inbox))


def entries_of(inbox: Inbox) -> list[Entry]:
    found: list[Entry] = []
    while (entry := inbox.take()) is not None:
        found.append(entry)
    return found


def test_a_new_connection_continues_the_queue_of_the_old_one() -> None:
    """Its frames follow a mark, none with an earlier receipt; what it missed before the old one ended is no gap."""
    inbox, waiting = Inbox(10, 1000), Inbox(2, 1000)
    inbox.put(Arrival(100, b"old"))
    state = FeedState(received=80, is_connected=True, reason="", url="", attempt=1)
    early, late = (Gap(start=70, end=end, products=("A",), cause=Cause.SEQUENCE) for end in (100, 101))
    for notice in (state, early, ClockStep(1, 2, 3)):
        waiting.note(notice)
    waiting.put(Arrival(90, b"first"))
    waiting.put(Arrival(110, b"second"))
    waiting.note(late)
    waiting.put(Arrival(120, b"dropped"))
    inbox.take_over(waiting, 100)
    assert entries_of(inbox) == [
        Arrival(100, b"old"),
        ChangeoverNote(100, ChangeoverStage.SWITCHED),
        state,
        Arrival(100, b"first"),
        Arrival(110, b"second"),
        late,
        Overflow(110, 120, 1),
    ]
    assert inbox.dropped == 1
    assert inbox.frames == 0


def test_an_intake_continues_the_counts_of_the_one_before() -> None:
    """Frames, bytes, losses and duplicates are those of the session."""
    settings, protocol = FeedSettings(), all_protocols()["coinbase"]
    inbox, waiting = Inbox(10, 1000), Inbox(10, 1000)
    old, new = FrameIntake(settings, protocol, inbox), FrameIntake(settings, protocol, waiting)
    for intake, numbers in ((old, (1, 2, 2, 5)), (new, (7, 8))):
        intake.begin_connection(0)
        for place, number in enumerate(numbers, 1):
            intake.add(place, b'{"sequence_num":%d}' % number)
    size = old.bytes + new.bytes
    new.succeed(old, inbox)
    assert (new.frames, new.bytes, new.lost, new.repeated, new.last_received) == (6, size, 2, 1, 4)
    before = inbox.frames
    new.add(9, b'{"sequence_num":9}')
    assert inbox.frames == before + 1
    assert waiting.frames == 0
