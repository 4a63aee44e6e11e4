"""Events of several sessions in one order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.feeds.inbox import AckDeadline, Arrival, Entry, Inbox
from volspike.feeds.session import Reading, SessionEvents
from volspike.market import Cause, Gap


class EntryDecoder:
    """Returns each entry as its own event, and one gap at the end of its session."""

    def __init__(self, product: str) -> None:
        self.product = product
        self._is_open = True

    def decode(self, entry: Entry) -> Sequence[Any]:
        return [entry]

    def finish(self, now: int) -> Sequence[Any]:
        gaps = [Gap(start=now, end=now, products=(self.product,), cause=Cause.RECONNECT)] if self._is_open else []
        self._is_open = False
        return gaps


async def ended(fault: Exception | None = None) -> None:
    if fault is not None:
        raise fault


async def read(queues: Iterable[Iterable[Arrival | AckDeadline]], fault: Exception | None = None) -> list[Any]:
    """All events of sessions with these queues that have ended, the first of them by ``fault``."""
    readings = []
    for number, entries in enumerate(queues):
        inbox = Inbox(1000, 1 << 20)
        for entry in entries:
            if isinstance(entry, Arrival):
                inbox.put(entry)
            else:
                inbox.note(entry)
        task = asyncio.create_task(ended(fault if number == 0 else None))
        await asyncio.wait({task})
        readings.append(Reading(inbox, EntryDecoder(f"P{number}"), task))  # type: ignore[arg-type]  # a fake
    events: list[Any] = []
    try:
        async for event in SessionEvents(readings, asyncio.Event()):
            events.append(event)  # noqa: PERF401  those before an error are kept
    except ValueError as error:
        events.append(error)
    return events


@given(st.lists(st.lists(st.integers(1, 10**6), max_size=20), min_size=1, max_size=4))
def test_frames_come_in_the_order_of_receipt(times: list[list[int]]) -> None:
    """Whatever the sessions received is read in one order of time, then each session's open gap."""
    queues = [[Arrival(time, b"") for time in sorted(column)] for column in times]
    events = asyncio.run(read(queues))
    frames = [event for event in events if isinstance(event, Arrival)]
    assert [frame.received for frame in frames] == sorted(time for column in times for time in column)
    assert [event.products for event in events[len(frames) :]] == [(f"P{k}",) for k in range(len(times))]


def test_notices_do_not_wait() -> None:
    """A notice is read before the frames of other sessions, and after the frames of its own that came first."""
    notice = AckDeadline(5)
    events = asyncio.run(read([[Arrival(1, b""), notice], [Arrival(2, b"")]]))
    assert events[:3] == [Arrival(1, b""), notice, Arrival(2, b"")]


def test_the_error_of_a_session_ends_the_reading() -> None:
    """The error is raised after the session's frames and gap."""
    events = asyncio.run(read([[Arrival(1, b"")], [Arrival(2, b"")]], ValueError("broken")))
    assert [type(event).__name__ for event in events] == ["Arrival", "Arrival", "Gap", "Gap", "ValueError"]


def test_a_session_that_still_listens_is_awaited() -> None:
    """The reading waits for the session that is open after another has ended."""

    async def run() -> list[Any]:
        wake, stop = asyncio.Event(), asyncio.Event()
        open_inbox = Inbox(10, 1 << 10)
        tasks = [asyncio.create_task(ended()), asyncio.ensure_future(stop.wait())]
        await asyncio.wait({tasks[0]})
        readings = [
            Reading(inbox, EntryDecoder(name), task)  # type: ignore[arg-type]  # fakes
            for inbox, name, task in zip((Inbox(1, 1), open_inbox), "AB", tasks, strict=True)
        ]
        events = SessionEvents(readings, wake)
        seen = [await anext(events)]
        open_inbox.put(Arrival(7, b""))
        wake.set()
        seen.append(await anext(events))
        stop.set()
        await asyncio.wait({tasks[1]})
        seen.extend([event async for event in events])
        return seen

    first, frame, last = asyncio.run(run())
    assert (first.products, frame, last.products) == (("A",), Arrival(7, b""), ("B",))


def test_events_cannot_be_read_twice() -> None:
    """The frame of an exhausted reading raises ``StopAsyncIteration`` again."""

    async def run() -> None:
        events = SessionEvents([], asyncio.Event())
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(events)

    asyncio.run(run())
