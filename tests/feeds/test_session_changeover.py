"""Planned replacement of connections, and losses that trade ids show, against a real websocket server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Self

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.feeds.scripted import of, run, set_limits, set_protocol, settings
from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState
from volspike.feeds.protocol import Ping, TradeIds
from volspike.feeds.session import FeedSession
from volspike.market import Cause, Gap, Kind

BTC = "binance:BTC-USDT"
EVERY_S = 0.002
QUICK = {"protocol": "binance", "products": (BTC,), "overlap_s": 0.02, "close_timeout_s": 0.2}


class BinanceMarket:
    """Sends one trade and one quote of a market every 2 ms to each connection that has subscribed.

    ``is_sent`` decides which trades the connection of a number gets. ``lifetime_s`` ends connections.
    """

    def __init__(
        self,
        is_sent: Callable[[int, int], bool] = lambda connection, trade: True,
        lifetime_s: float | None = None,
    ) -> None:
        self.is_sent = is_sent
        self.lifetime_s = lifetime_s
        self.connections: list[ServerConnection] = []
        self.opened = self.trade = self.most_open = self.trades_of_last = 0
        self.holds = -1
        """The number of the connection at whose opening the first one is closed."""
        self.notices: list[int] = []
        """Numbers of the connections that get a notice of a shutdown after the next trade."""

    async def __aenter__(self) -> Self:
        self.server = await serve(self._answer, "127.0.0.1", 0, close_timeout=0.2)
        self.url = f"ws://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        self.trading = asyncio.create_task(self._trade(), name="trade")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.trading.cancel()
        await asyncio.gather(self.trading, return_exceptions=True)
        self.server.close()
        await self.server.wait_closed()

    async def _answer(self, connection: ServerConnection) -> None:
        number, self.opened = self.opened, self.opened + 1
        if number == self.holds:  # the first connection ends before this one has a frame
            await self.connections[0].close(1001, "shutdown")
            await asyncio.sleep(0.05)
        request = msgspec.json.decode(await connection.recv())
        await connection.send(msgspec.json.encode({"result": None, "id": request["id"]}), text=True)
        connection.number = number  # type: ignore[attr-defined]
        self.connections.append(connection)
        self.most_open = max(self.most_open, len(self.connections))
        try:
            async with asyncio.timeout(self.lifetime_s):
                await connection.wait_closed()
        except TimeoutError:
            await connection.close(1001, "the connection is too old")
        finally:
            self.connections.remove(connection)

    async def _trade(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            self.trade += 1
            self.trades_of_last += any(getattr(each, "number", 0) == self.opened - 1 for each in self.connections)
            for connection in list(self.connections):
                await self._send(connection, getattr(connection, "number", 0))

    async def _send(self, connection: ServerConnection, number: int) -> None:
        trade = self.trade
        frames: list[dict[str, Any]] = [frame("bookTicker", u=trade, b="99", B="1", a="101", A="2")]
        if self.is_sent(number, trade):
            frames.insert(0, frame("trade", e="trade", t=trade, p="100", q="1", T=0, m=True))
        if number in self.notices:
            self.notices.remove(number)
            frames.append({"stream": "!serverShutdown", "data": {"e": "serverShutdown"}})
        try:
            for each in frames:
                await connection.send(msgspec.json.encode(each), text=True)
        except ConnectionClosed:
            pass


def frame(channel: str, **fields: Any) -> dict[str, Any]:
    return {"stream": f"btcusdt@{channel}", "data": {"s": "BTCUSDT", **fields}}


def events_of(market: BinanceMarket, until: Callable[[], bool], **options: Any) -> tuple[list[FeedEvent], FeedSession]:
    """The events of a session until something holds."""

    async def whole() -> tuple[list[FeedEvent], FeedSession]:
        async with market:
            session = FeedSession(settings(market.url, **QUICK | options))
            events: list[FeedEvent] = []
            async with session:
                async for event in session.events():
                    events.append(event)
                    if until():
                        break
            return events, session

    return run(whole())


def trades_of(events: list[FeedEvent]) -> list[int]:
    ticks = [tick for event in of(FeedFrame, events) for tick in event.frame.ticks]
    return [tick.trade_id for tick in ticks if tick.kind is Kind.TRADE]


def updates_of(events: list[FeedEvent]) -> list[int]:
    ticks = [tick for event in of(FeedFrame, events) for tick in event.frame.ticks]
    return [tick.sequence for tick in ticks if tick.kind is Kind.TICKER]


def test_hundreds_of_planned_changes_lose_and_repeat_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each trade and quote comes once and in order, without a gap, and the new connection is up before the old ends."""
    set_limits(monkeypatch, "binance", lifetime_s=0.05, connections_per_s=1000, messages_per_s=1000)
    market = BinanceMarket()
    events, session = events_of(market, lambda: market.opened > 200)
    trades, updates = trades_of(events), updates_of(events)
    assert trades == list(range(trades[0], trades[-1] + 1))
    assert updates == list(range(updates[0], updates[-1] + 1))
    assert of(Gap, events) == []
    assert [state.is_connected for state in of(FeedState, events)] == [True] * session.stats.connections
    assert session.stats.connections >= 199
    assert market.most_open == 2
    received = [event.received for event in of(FeedFrame, events)]
    assert received == sorted(received)


def test_a_trade_lost_in_the_change_is_the_only_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trades that neither connection gets are lost: one gap has exactly their ids."""
    set_limits(monkeypatch, "binance", lifetime_s=0.1, connections_per_s=1000, messages_per_s=1000)
    lost: list[int] = []

    def is_sent(_connection: int, trade: int) -> bool:
        if len(market.connections) == 2 and market.opened == 2 and len(lost) < 3 and trade not in lost:
            lost.append(trade)
        return trade not in lost

    market = BinanceMarket(is_sent)
    events, _ = events_of(market, lambda: market.opened > 5)
    (gap,) = of(Gap, events)
    assert (gap.cause, gap.lost, gap.products) == (Cause.SEQUENCE, 3, (BTC,))
    assert gap.detail == f"trades {lost[0]} to {lost[-1]}"
    trades = trades_of(events)
    assert sorted({*trades, *lost}) == list(range(trades[0], trades[-1] + 1))
    assert len(trades) == len(set(trades))


def test_what_only_the_new_connection_lost_is_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    """While both are open, the trades of the old one count."""
    set_limits(monkeypatch, "binance", lifetime_s=0.1, connections_per_s=1000, messages_per_s=1000)
    seen: dict[int, int] = {}

    def is_sent(connection: int, trade: int) -> bool:
        seen.setdefault(connection, trade)
        return trade > seen[connection] + 1 or connection == 0  # each new one misses its first two trades

    market = BinanceMarket(is_sent)
    events, _ = events_of(market, lambda: market.opened > 20, overlap_s=0.04)
    trades = trades_of(events)
    assert trades == list(range(trades[0], trades[-1] + 1))
    assert of(Gap, events) == []


def test_a_notice_of_a_shutdown_replaces_the_connection() -> None:
    """The session does not wait until the exchange closes the connection."""
    market = BinanceMarket()
    market.notices = [0]
    events, session = events_of(market, lambda: market.opened == 2 and len(market.connections) == 1)
    assert session.stats.connections <= 2
    assert of(Gap, events) == []
    trades = trades_of(events)
    assert trades == list(range(trades[0], trades[-1] + 1))
    assert not [state for state in of(FeedState, events) if not state.is_connected]


def test_a_reconnection_counts_the_lost_trades() -> None:
    """The first trade of the next connection shows how many were lost between the two."""
    market = BinanceMarket(lifetime_s=0.2)
    events, _ = events_of(market, lambda: len(of_trades_since_reconnection(market)) > 1, backoff_min_s=0.05)
    gaps = of(Gap, events)
    assert {gap.cause for gap in gaps} == {Cause.RECONNECT}
    trades = trades_of(events)
    missing = sorted(set(range(trades[0], trades[-1] + 1)) - set(trades))
    assert missing
    assert sum(max(gap.lost, 0) for gap in gaps) == len(missing)
    assert all(gap.start <= gap.end for gap in gaps)


def of_trades_since_reconnection(market: BinanceMarket) -> range:
    """Empty until two connections have ended."""
    return range(market.opened - 2 if len(market.connections) else 0)


def test_a_server_that_refuses_the_next_connection_keeps_the_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts to replace a connection cost nothing until it ends."""
    set_limits(monkeypatch, "binance", lifetime_s=0.05, connections_per_s=1000, messages_per_s=1000)
    market = BinanceMarket()

    async def whole() -> list[FeedEvent]:
        async with market:
            session = FeedSession(settings(market.url, **QUICK))
            events: list[FeedEvent] = []
            async with session:
                async for event in session.events():
                    events.append(event)
                    if len(events) == 2:
                        market.server.close(close_connections=False)
                    if len(of(FeedFrame, events)) > 200:
                        return events
        raise AssertionError

    events = run(whole())
    trades = trades_of(events)
    assert trades == list(range(trades[0], trades[-1] + 1))
    assert of(Gap, events) == []
    assert market.opened <= 2


def test_unordered_ids_show_continuity_by_a_trade_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without consecutive ids there is a gap only if the two connections have no trade in common."""
    set_protocol(monkeypatch, "binance", trade_ids=TradeIds.UNORDERED)
    market = BinanceMarket()
    market.notices = [0, 1]
    events, _ = events_of(market, lambda: market.opened == 3 and len(market.connections) == 1)
    trades = trades_of(events)
    assert trades == list(range(trades[0], trades[-1] + 1))
    assert of(Gap, events) == []

    is_open = [False, False]

    def is_sent(connection: int, trade: int) -> bool:
        is_open[connection] = True
        return connection == 0 or len(market.connections) == 1

    market = BinanceMarket(is_sent)
    market.notices = [0]
    ends: list[int] = []

    def is_over() -> bool:
        if is_open[1] and len(market.connections) == 1:
            ends.append(market.trade)
        return bool(ends) and market.trade > ends[0] + 20

    events, _ = events_of(market, is_over)
    (gap,) = of(Gap, events)
    assert (gap.cause, gap.lost, gap.products) == (Cause.RECONNECT, -1, (BTC,))
    assert gap.detail == "the old and the new connection have no trade in common"


def test_a_feed_without_numbers_is_never_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each connection has an entry at its beginning, and one over all of it at its end, which are no gaps."""
    set_protocol(monkeypatch, "binance", trade_ids=TradeIds.UNORDERED, verifiable=False)
    market = BinanceMarket()

    async def whole() -> tuple[list[FeedEvent], FeedSession]:
        async with market:
            session = FeedSession(settings(market.url, **QUICK))
            events: list[FeedEvent] = []
            async for event in session.events():
                events.append(event)
                if len(events) == 20:
                    await session.aclose()
            return events, session

    events, session = run(whole())
    opening, closing = of(Gap, events)
    assert not opening.verifiable
    assert not closing.verifiable
    assert opening.start == opening.end == closing.start == of(FeedState, events)[0].received
    assert closing.end >= of(FeedFrame, events)[-1].received
    assert opening.products == (BTC,)
    assert session.stats.gaps == 0


def test_a_connection_without_ticks_for_long_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers to pings keep a connection, but a subscription that has come to nothing is made again."""
    set_protocol(monkeypatch, "binance", ping=Ping('{"method":"LIST_SUBSCRIPTIONS","id":"ping"}', 0.01))
    patience = {"data_timeout_s": 0.2, "idle_timeout_s": 5.0}
    pings: list[str] = []

    async def answer_pings(connection: ServerConnection) -> None:
        request = msgspec.json.decode(await connection.recv())
        await connection.send(msgspec.json.encode({"result": None, "id": request["id"]}), text=True)
        try:
            while True:
                pings.append(msgspec.json.decode(await connection.recv())["id"])
                await connection.send(msgspec.json.encode({"result": [], "id": "ping"}), text=True)
        except ConnectionClosed:
            pass

    async def whole() -> tuple[list[FeedEvent], FeedSession]:
        async with serve(answer_pings, "127.0.0.1", 0, close_timeout=0.2) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            session = FeedSession(settings(url, **QUICK | patience))
            events: list[FeedEvent] = []
            async with session:
                async for event in session.events():
                    events.append(event)
                    if session.stats.connections == 3:
                        break
            return events, session

    events, session = run(whole())
    assert all(state.is_connected for state in of(FeedState, events))
    assert of(Gap, events) == []
    assert set(pings) == {"ping"}
    assert len(pings) > 2
    assert session.stats.ticks == 0


def test_an_old_connection_that_ends_first_is_followed_by_the_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that ends while the next one is opened costs no further attempt; the trades between are counted."""
    set_limits(monkeypatch, "binance", connections_per_s=1000, messages_per_s=1000)
    market = BinanceMarket()
    market.notices = [0]
    market.holds = 1
    events, session = events_of(market, lambda: session_has(market, 2), backoff_min_s=30.0, backoff_max_s=60.0)
    assert [state.is_connected for state in of(FeedState, events)] == [True, False, True]
    assert session.stats.connections == market.opened == 2
    trades = trades_of(events)
    missing = set(range(trades[0], trades[-1] + 1)) - set(trades)
    assert missing
    assert sum(max(gap.lost, 0) for gap in of(Gap, events)) == len(missing)
    assert {gap.cause for gap in of(Gap, events)} == {Cause.RECONNECT}


def session_has(market: BinanceMarket, connections: int) -> bool:
    """Whether the last of so many connections has had trades for a while."""
    return market.opened == connections and market.trades_of_last > 20


def test_products_beyond_the_streams_of_a_connection_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is named, in products; as many as it allows are accepted."""
    set_limits(monkeypatch, "binance", streams_per_connection=4)
    products = tuple(f"binance:{name}-USDT" for name in ("BTC", "ETH", "XRP"))
    FeedSession(FeedSettings(protocol="binance", products=products[:2]))
    with pytest.raises(UsageError, match="binance allows 4 streams on a connection, which is 2 products, got 3"):
        FeedSession(FeedSettings(protocol="binance", products=products))
