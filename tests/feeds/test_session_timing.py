"""Calls of a session whose only effect is when something happens: waits, limits, wake-ups and turns."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from tests.feeds.scripted import (
    FULL_ACK,
    ScriptedExchange,
    ack,
    drops,
    frames,
    heard,
    of,
    run,
    says,
    set_limits,
    settings,
    some,
    ticker,
)
from volspike.feeds import connection as connection_module
from volspike.feeds import receiver as receiver_module
from volspike.feeds import session as session_module
from volspike.feeds.connection import open_connection
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState
from volspike.feeds.receiver import IdleTimer
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.client import answer_pings_if

LONGEST_S = 1000.0


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The positive waits of the session's own task, which no longer take time."""
    taken: list[float] = []
    sleep = asyncio.sleep

    async def record(delay: float) -> None:
        task = asyncio.current_task()
        is_session = task is not None and task.get_name().startswith(("listen to ", "receive from "))
        if is_session and delay > 0:
            taken.append(delay)
        await sleep(0 if is_session else delay)

    monkeypatch.setattr(asyncio, "sleep", record)
    return taken


def lose_connections(count: int, jitter: float, sent: tuple[bytes, ...] = (), **options: Any) -> list[FeedEvent]:
    """The events of a session that loses ``count`` connections after the frames ``sent`` each, and keeps the next."""

    async def whole() -> list[FeedEvent]:
        async with ScriptedExchange(*[says(*sent, then=drops)] * count, says()) as exchange:
            session = FeedSession(settings(exchange.url, **options), jitter=lambda: jitter)
            return await heard(session, some(FeedState, 2 * count + 1))

    return run(whole())


@pytest.mark.parametrize(
    ("sent", "lasting_s", "expected", "attempts"),
    [
        ((), 1e-9, [100.0, 100.0, 100.0, 100.0], [1, 1, 1, 1]),
        ((ticker(0),), LONGEST_S, [100.0, 100.0, 100.0, 100.0], [1, 1, 1, 1]),
        ((), LONGEST_S, [100.0, 200.0, 400.0, 500.0], [1, 2, 3, 4]),
        ((ack(0, **FULL_ACK), b"{"), LONGEST_S, [100.0, 200.0, 400.0, 500.0], [1, 2, 3, 4]),
    ],
    ids=["lasted", "sent a tick", "broke at once", "sent no tick"],
)
def test_a_connection_with_data_resets_the_backoff(
    waits: list[float], sent: tuple[bytes, ...], lasting_s: float, expected: list[float], attempts: list[int]
) -> None:
    """After a connection that lasted or sent a tick the wait is the shortest again; after others it doubles."""
    events = lose_connections(4, 1.0, sent, lasting_s=lasting_s, backoff_min_s=100.0, backoff_max_s=500.0)
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
    set_limits(monkeypatch, messages_per_s=1000, connections_per_s=3)
    lose_connections(2, 0.0)
    assert waits == []
    lose_connections(3, 0.0)
    assert len(waits) == 1
    assert 0 < waits[0] <= 1


def test_subscribe_messages_are_limited_per_second(monkeypatch: pytest.MonkeyPatch, waits: list[float]) -> None:
    """The subscribe message beyond the limit of a second waits; the ones before do not."""
    set_limits(monkeypatch, connections_per_s=1000, messages_per_s=5)
    lose_connections(1, 0.0)
    assert len(waits) == 1
    assert 0 < waits[0] <= 1


def test_the_limit_on_subscribing_ends_with_subscribing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that has subscribed is not closed when the time limit for subscribing passes."""
    set_limits(monkeypatch, subscribe_within_s=0.25)
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
    monkeypatch.setattr(receiver_module, "IdleTimer", lambda *_: nullcontext())

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
        receiving = asyncio.create_task(session.receiver_of(connection, "subscribed")._receive())
        await asyncio.sleep(0)
        received: int = connection.received
        with pytest.raises(ConnectionError, match="no more frames"):
            await receiving
        assert session.stats.frames == count
        return received

    assert 0 < run(whole()) < count


@pytest.fixture
def quick_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings every 10 ms."""
    monkeypatch.setattr(connection_module, "PING_EVERY_S", 0.01)


@pytest.mark.usefixtures("quick_pings")
def test_connection_with_frames_needs_no_pong() -> None:
    """An exchange that answers no ping but sends frames is connected for as long as it does."""

    async def send_without_pongs(connection: ServerConnection) -> None:
        answer_pings_if(connection, lambda: False)
        for number in range(40):
            await connection.send(ticker(number), text=True)
            await asyncio.sleep(0.01)
        await connection.wait_closed()

    async def whole() -> list[FeedEvent]:
        async with ScriptedExchange(send_without_pongs) as exchange:
            return await heard(FeedSession(settings(exchange.url)), frames(40))

    events = run(whole())
    assert [state.is_connected for state in of(FeedState, events)] == [True]


def test_missing_pong_has_no_deadline() -> None:
    """The websockets library waits for an answer to a ping for ever; its default closes busy connections after 20 s."""

    async def whole() -> float | None:
        async with ScriptedExchange(says()) as exchange:
            connection = await open_connection(exchange.url, settings(exchange.url))
            await connection.close()
            return connection.ping_timeout

    assert run(whole()) is None


@pytest.mark.usefixtures("quick_pings")
def test_silent_connection_is_closed_by_the_idle_timer() -> None:
    """A connection that breaks without a close frame, half-open, is closed after the idle timeout."""

    async def falls_silent(connection: ServerConnection) -> None:
        answer_pings_if(connection, lambda: False)
        await connection.send(ticker(0), text=True)
        await connection.wait_closed()

    async def whole() -> list[FeedEvent]:
        async with ScriptedExchange(falls_silent) as exchange:
            return await heard(FeedSession(settings(exchange.url, idle_timeout_s=0.2)), some(FeedState, 2))

    first, second = of(FeedState, run(whole()))
    assert (first.is_connected, second.is_connected) == (True, False)
    assert second.reason == "no frame for 0.2 s: the connection was closed on our side"


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
