"""A websocket server that follows a script, and what a session receives from it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Self, TypeVar

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve

from volspike.config import FeedSettings
from volspike.feeds import session as session_module
from volspike.feeds.events import FeedEvent, FeedFrame
from volspike.feeds.session import FeedSession
from volspike.feeds.venues import all_protocols

T = TypeVar("T")
Script = Callable[[ServerConnection], Awaitable[object]]
PATIENCE_S = 20.0


class ScriptedExchange:
    """Runs one script per connection, the last one repeatedly, and keeps the subscribe messages it received."""

    def __init__(self, *scripts: Script, requests: int = 3, **options: Any) -> None:
        self.scripts = scripts
        self.requests = requests
        self.options = options
        self.asked: list[list[Any]] = []
        self.extensions: list[str] = []

    async def __aenter__(self) -> Self:
        self.server = await serve(self._answer, "127.0.0.1", 0, close_timeout=1, **self.options)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await self.server.wait_closed()

    async def _answer(self, connection: ServerConnection) -> None:
        script = self.scripts[min(len(self.asked), len(self.scripts) - 1)]
        asked: list[Any] = []
        self.asked.append(asked)
        assert connection.response is not None
        self.extensions.append(connection.response.headers.get("Sec-WebSocket-Extensions", ""))
        while len(asked) < self.requests:
            asked.append(msgspec.json.decode(await connection.recv()))
        await script(connection)


def says(*frames: bytes | str, then: Script = ServerConnection.wait_closed) -> Script:
    """Sends frames as text, then runs ``then``, which by default keeps the connection open."""

    async def script(connection: ServerConnection) -> None:
        for frame in frames:
            await connection.send(frame, text=True)
        await then(connection)

    return script


def closes(code: int, reason: str) -> Script:
    async def script(connection: ServerConnection) -> None:
        await connection.close(code, reason)

    return script


async def drops(connection: ServerConnection) -> None:
    """Breaks the connection without a close frame."""
    connection.transport.abort()


def ticker(sequence: int, product: str = "BTC-USD", price: float = 100.0) -> bytes:
    quote = {"type": "ticker", "product_id": product, "price": str(price), "best_bid": "99", "best_ask": "101"}
    return envelope("ticker", sequence, {"type": "update", "tickers": [quote]})


def envelope(channel: str, sequence: int, event: dict[str, Any]) -> bytes:
    timestamp = "2026-06-14T05:35:45.435813533Z"
    return msgspec.json.encode(
        {"channel": channel, "timestamp": timestamp, "sequence_num": sequence, "events": [event]}
    )


def ack(sequence: int, **channels: list[str]) -> bytes:
    return envelope("subscriptions", sequence, {"subscriptions": channels})


FULL_ACK = {"ticker": ["BTC-USD"], "market_trades": ["BTC-USD"], "heartbeats": ["heartbeats"]}


def settings(url: str, **others: Any) -> FeedSettings:
    quick = {"backoff_min_s": 0.01, "backoff_max_s": 0.05, "close_timeout_s": 0.5, "connect_timeout_s": 5.0}
    return FeedSettings(url=url, **(quick | others))


def set_protocol(monkeypatch: pytest.MonkeyPatch, name: str = "coinbase", **fields: Any) -> None:
    """Gives all sessions made from now on this protocol, with other fields."""
    protocol = replace(all_protocols()[name], **fields)
    monkeypatch.setattr(session_module, "protocol_named", lambda _: protocol)


def set_limits(monkeypatch: pytest.MonkeyPatch, name: str = "coinbase", **limits: Any) -> None:
    """Gives all sessions made from now on this protocol, with other limits of the venue."""
    set_protocol(monkeypatch, name, limits=replace(all_protocols()[name].limits, **limits))


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs it and asserts that no task is left."""

    async def whole() -> T:
        async with asyncio.timeout(PATIENCE_S):
            result = await coroutine
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return asyncio.run(whole())


async def heard(session: FeedSession, is_enough: Callable[[list[FeedEvent]], bool]) -> list[FeedEvent]:
    """The events until ``is_enough``."""
    events: list[FeedEvent] = []
    async with session:
        async for event in session.events():
            events.append(event)
            if is_enough(events):
                break
    return events


def listen(
    exchange: ScriptedExchange, is_enough: Callable[[list[FeedEvent]], bool], **others: Any
) -> tuple[list[FeedEvent], FeedSession]:
    """The events that a session receives from an exchange, and the session."""

    async def whole() -> tuple[list[FeedEvent], FeedSession]:
        async with exchange:
            session = FeedSession(settings(exchange.url, **others))
            return await heard(session, is_enough), session

    return run(whole())


def of(kind: type[T], events: Iterable[object]) -> list[T]:
    return [event for event in events if isinstance(event, kind)]


def frames(count: int) -> Callable[[list[FeedEvent]], bool]:
    return lambda events: len(of(FeedFrame, events)) >= count


def some(kind: type[object], count: int = 1) -> Callable[[list[FeedEvent]], bool]:
    return lambda events: len(of(kind, events)) >= count
