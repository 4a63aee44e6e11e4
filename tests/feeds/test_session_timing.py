"""Calls of a session whose only effect is when something happens: waits, limits, wake-ups and turns."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tests.feeds.scripted import ScriptedExchange, drops, frames, heard, of, run, says, settings, some, ticker
from volspike.feeds import session as session_module
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState
from volspike.feeds.session import FeedSession, IdleTimer

LONGEST_S = 1000.0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The positive waits of the session's own task, which no longer take time."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def record(delay: float) -> None:
        task = asyncio.current_task()
        is_session = task is not None and task.get_name().startswith("listen to ")
        if is_session and delay > 0:
            taken.append(delay)
        await sleep(0 if is_session else delay)

    monkeypatch.setattr(asyncio, "sleep", record)
    return taken


def lose_connections(count: int, jitter: float, **options: Any) -> list[FeedEvent]:
    """The events of a session that loses ``count`` connections after a frame each, and keeps the next."""

    async def whole() -> list[FeedEvent]:
        async with ScriptedExchange(*[says(ticker(0), then=drops)] * count, says()) as exchange:
            session = FeedSession(settings(exchange.url, **options), jitter=lambda: jitter)
            return await heard(session, some(FeedState, 2 * count + 1))

    return run(whole())


@pytest.mark.parametrize(
    ("lasting_s", "expected", "attempts"),
    [(1e-9, [100.0, 100.0, 100.0, 100.0], [1, 1, 1, 1]), (LONGEST_S, [100.0, 200.0, 400.0, 500.0], [1, 2, 3, 4])],
    ids=["lasted", "broke at once"],
)
def test_a_connection_that_lasted_resets_the_backoff(
    waits: list[float], lasting_s: float, expected: list[float], attempts: list[int]
) -> None:
    """After a connection that lasted the wait is the shortest again; after others it doubles up to its limit."""
    events = lose_connections(4, 1.0, lasting_s=lasting_s, backoff_min_s=100.0, backoff_max_s=500.0)
    assert [wait for wait in waits if wait > 2] == expected
    assert [state.attempt for state in of(FeedState, events) if not state.is_connected] == attempts


def test_one_lasting_connection_resets_the_backoff_once(waits: list[float]) -> None:
    """When the exchange refuses all later connections, the wait doubles again after the reset."""
    is_open = [True]

    def refuse_later(connection: ServerConnection, _request: Request) -> Response | None:
        return None if is_open and is_open.pop() else connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "closed")

    async def whole() -> list[FeedEvent]:
        async with ScriptedExchange(says(ticker(0), then=drops), process_request=refuse_later) as exchange:
            options = settings(exchange.url, lasting_s=1e-9, backoff_min_s=100.0, backoff_max_s=500.0)
            return await heard(FeedSession(options, jitter=lambda: 1.0), some(FeedState, 5))

    run(whole())
    assert [wait for wait in waits if wait > 2][:3] == [100.0, 200.0, 400.0]


def test_connections_are_limited_per_second(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    """Without any backoff, the connection beyond the limit of a second waits; the ones before do not."""
    monkeypatch.setattr(session_module, "MESSAGES_PER_S", 1000)
    monkeypatch.setattr(session_module, "CONNECTIONS_PER_S", 3)
    lose_connections(2, 0.0)
    assert waits == []
    lose_connections(3, 0.0)
    assert len(waits) == 1
    assert 0 < waits[0] <= 1


def test_subscribe_messages_are_limited_per_second(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    """The subscribe message beyond the limit of a second waits; the ones before do not."""
    monkeypatch.setattr(session_module, "CONNECTIONS_PER_S", 1000)
    monkeypatch.setattr(session_module, "MESSAGES_PER_S", 5)
    lose_connections(1, 0.0)
    assert len(waits) == 1
    assert 0 < waits[0] <= 1


def test_the_limit_on_subscribing_ends_with_subscribing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that has subscribed is not closed when the time limit for subscribing passes."""
    monkeypatch.setattr(session_module, "SUBSCRIBE_WITHIN_S", 0.25)
    passed: list[float] = []

    async def sends_later(connection: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        later = asyncio.Event()
        loop.call_later(0.5, later.set)
        await later.wait()
        passed.append(0.5)
        await says(ticker(1))(connection)

    async def whole() -> tuple[list[FeedEvent], FeedSession]:
        async with ScriptedExchange(says(ticker(0), then=sends_later)) as exchange:
            session = FeedSession(settings(exchange.url))
            return await heard(session, frames(2)), session

    events, session = run(whole())
    assert passed == [0.5]
    assert session.stats.connections == 1
    assert len(of(FeedState, events)) == 1


def test_every_event_wakes_a_waiting_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state, a frame and the end of the session each reach a reader that waits, without the periodic check."""
    monkeypatch.setattr(session_module, "IdleTimer", lambda *_: nullcontext())

    async def whole() -> list[type]:
        go_on = asyncio.Event()

        async def sends_when_asked(connection: ServerConnection) -> None:
            await go_on.wait()
            await says(ticker(0))(connection)

        async with ScriptedExchange(sends_when_asked) as exchange:
            session = FeedSession(settings(exchange.url))
            events = session.events()
            seen: list[type] = [type(await anext(events))]
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            go_on.set()
            seen.append(type(await waiting))
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            await session.aclose()
            with pytest.raises(StopAsyncIteration):
                await waiting
            return seen

    assert run(whole()) == [FeedState, FeedFrame]


def test_a_full_queue_lets_other_tasks_run() -> None:
    """Reading many queued events without a pause gives other tasks a turn in between."""
    count = 1000

    async def whole() -> int:
        turns, is_reading = 0, True

        async def take_turns() -> None:
            nonlocal turns
            while is_reading:
                turns += 1
                await asyncio.sleep(0)

        async with ScriptedExchange(says(*map(ticker, range(count)))) as exchange:
            session = FeedSession(settings(exchange.url))
            events = session.events()
            await anext(events)
            while session.stats.frames < count:
                await asyncio.sleep(0.001)
            await session.aclose()
            other = asyncio.create_task(take_turns())
            async for _ in events:
                pass
            is_reading = False
            await other
            return turns

    assert run(whole()) >= count // session_module._EVENTS_PER_TURN


def test_busy_event_loop_postpones_the_check() -> None:
    """After the loop was blocked, waiting frames are handled before the next check; then checks go on."""

    async def whole() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        checked = asyncio.Event()

        def check() -> bool:
            order.append("check")
            checked.set()
            return False

        async with asyncio.timeout(10) as limit:
            with IdleTimer(check, limit, 0.01):
                loop.call_soon(lambda: loop.call_soon(order.append, "frame"))
                until = loop.time() + 0.05
                while loop.time() < until:
                    pass
                await checked.wait()
        return order

    assert asyncio.run(whole())[:2] == ["frame", "check"]


def test_check_that_returns_true_ends_the_context() -> None:
    """The time limit around it expires at once."""

    async def whole() -> None:
        async with asyncio.timeout(None) as limit:
            with IdleTimer(lambda: True, limit, 0.001):
                await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        asyncio.run(whole())


def test_a_full_socket_lets_other_tasks_run() -> None:
    """Receiving many frames that are already there gives other tasks a turn in between."""
    count = 10_000

    class FullSocket:
        """A connection whose frames are all there; closed after ``count`` of them."""

        received = 0

        async def recv(self, *, decode: bool) -> bytes:
            assert not decode
            if self.received == count:
                raise ConnectionError("no more frames")
            self.received += 1
            return ticker(self.received)

    async def whole() -> int:
        session = FeedSession(settings("ws://127.0.0.1:1"))
        connection: Any = FullSocket()
        receiving = asyncio.create_task(session._receive(connection))
        await asyncio.sleep(0)
        received: int = connection.received
        with pytest.raises(ConnectionError, match="no more frames"):
            await receiving
        assert session.stats.frames == count
        return received

    assert 0 < run(whole()) < count


def test_no_check_after_the_context() -> None:
    """A connection that has ended is not checked any more."""
    checks: list[float] = []

    def check() -> bool:
        checks.append(asyncio.get_running_loop().time())
        return False

    async def whole() -> None:
        later = asyncio.Event()
        async with asyncio.timeout(None) as limit:
            with IdleTimer(check, limit, 0.001):
                pass
        asyncio.get_running_loop().call_later(0.02, later.set)
        await later.wait()

    asyncio.run(whole())
    assert checks == []
