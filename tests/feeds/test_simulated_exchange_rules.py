"""The rules of each venue that the simulated exchange enforces: pings, deadlines, limits, and the form of answers."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from tests.feeds.venue_frames import PRODUCTS, SECONDS, START, day, market_trades, rest, settings
from volspike.errors import UsageError
from volspike.feeds.simulation.binance_server import MESSAGES_PER_S, MOST_STREAMS
from volspike.feeds.simulation.bybit_server import MOST_ARGUMENTS, REPEAT_NS, BybitServer
from volspike.feeds.simulation.exchange import PROTOCOLS, SERVERS, SimulatedExchange
from volspike.feeds.simulation.faults import Fault
from volspike.feeds.simulation.kraken_server import SNAPSHOT_TRADES
from volspike.feeds.simulation.protocols import Handshake
from volspike.market import SECOND_NS, Kind, Side, Tick

PINGS = {
    "kraken": ('{"method":"ping","req_id":3}', '"method":"pong"'),
    "okx": ("ping", "pong"),
    "bybit": ('{"op":"ping","req_id":"x"}', '"ret_msg":"pong"'),
}


@pytest.mark.parametrize("protocol", PINGS)
def test_pings_of_the_protocol(protocol: str) -> None:
    """A ping has its answer, unless the exchange leaves pings without one."""
    ping, pong = PINGS[protocol]

    async def run() -> list[str]:
        async with SimulatedExchange(settings(speed=0.0001)) as exchange, connect(exchange.url(protocol)) as client:
            if protocol == "kraken":
                await client.recv()  # the status
            await client.send(ping)
            answers = [str(await client.recv())]
            exchange.faults.answers_pings = False
            await client.send(ping)
            await client.send("?")
            return [*answers, str(await client.recv())]

    answered, next_answer = asyncio.run(run())
    assert pong in answered
    assert pong not in next_answer


NOTICES = {"binance": "serverShutdown", "okx": "64008"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_shutdown_is_announced_and_closes(protocol: str) -> None:
    """Binance and OKX announce it; every connection is closed with 1001 some time later, and the next one works."""

    async def run() -> tuple[list[str], int | None, SimulatedExchange]:
        async with SimulatedExchange(settings(speed=0.0001)) as exchange:
            async with connect(exchange.url(protocol)) as client:
                assert exchange.faults.shut_down(0.02) == 1
                frames = await rest(client)
            async with connect(exchange.url(protocol)) as second:
                await second.send("?")
                assert await second.recv()
            return frames, client.close_code, exchange

    frames, code, exchange = asyncio.run(run())
    assert code == 1001
    assert sum(NOTICES.get(protocol, "none") in frame for frame in frames) == (protocol in NOTICES)
    assert [each.fault for each in exchange.injected][:2] == [Fault.SHUTDOWN, Fault.CLOSE]


async def closed(exchange: SimulatedExchange, protocol: str, **options: Any) -> tuple[int | None, str | None]:
    """The code and the reason with which the exchange closes a connection on which nothing is sent."""
    async with connect(exchange.url(protocol), **options) as client:
        await rest(client)
        return client.close_code, client.close_reason


@pytest.mark.parametrize(
    ("protocol", "deadline", "code", "fault"),
    [
        ("binance", {"lifetime_s": 0.05}, 1001, Fault.LIFETIME),
        ("okx", {"traffic_within_s": 0.05}, 4004, Fault.RULE),
    ],
)
def test_connections_end_at_a_deadline(protocol: str, deadline: dict[str, float], code: int, fault: Fault) -> None:
    """Binance ends every connection after its lifetime, OKX one without traffic."""

    async def run() -> tuple[tuple[int | None, str | None], SimulatedExchange]:
        async with SimulatedExchange(settings(speed=0.0001, **deadline)) as exchange:
            return await closed(exchange, protocol), exchange

    (seen, reason), exchange = asyncio.run(run())
    assert seen == code
    assert reason
    assert exchange.injected[0].fault is fault


def test_pings_keep_an_okx_connection() -> None:
    """Every frame to the client, such as the answer to a ping, begins the time without traffic again."""

    async def run() -> float:
        async with SimulatedExchange(settings(speed=0.0001, traffic_within_s=0.3)) as exchange:
            loop = asyncio.get_running_loop()
            async with connect(exchange.url("okx")) as client:
                began = loop.time()
                while loop.time() < began + 0.5:
                    await client.send("ping")
                    assert await client.recv() == "pong"
                await rest(client)
                return loop.time() - began

    assert asyncio.run(run()) > 0.7


def test_binance_disconnects_a_client_without_pongs() -> None:
    """A client that answers the pings stays connected, one that does not is disconnected."""

    async def run() -> tuple[int | None, str | None]:
        async with SimulatedExchange(settings(speed=0.0001, ping_every_s=0.3, pong_within_s=0.2)) as exchange:
            url = exchange.url("binance")
            async with connect(url) as obedient, connect(url) as deaf:
                send_frame = deaf.protocol.send_frame
                deaf.protocol.send_frame = lambda frame: None if frame.opcode == 10 else send_frame(frame)  # type: ignore[method-assign]
                await rest(deaf)
                await obedient.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
                assert json.loads(await obedient.recv()) == {"result": [], "id": 1}
                return deaf.close_code, deaf.close_reason

    assert asyncio.run(run()) == (1008, "no pong")


@pytest.mark.parametrize(("messages", "is_allowed"), [(MESSAGES_PER_S, True), (MESSAGES_PER_S + 1, False)])
def test_binance_limits_messages(messages: int, is_allowed: bool) -> None:
    """Five messages in a second are allowed; the sixth ends the connection."""

    async def run() -> tuple[int, int | None, str | None]:
        async with SimulatedExchange(settings(speed=0.0001)) as exchange, connect(exchange.url("binance")) as client:
            for _ in range(messages):
                await client.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            answers = 0
            with suppress(ConnectionClosed):
                for _ in range(messages):
                    await client.recv()
                    answers += 1
            return answers, client.close_code, client.close_reason

    answers, code, reason = asyncio.run(run())
    if is_allowed:
        assert (answers, code) == (messages, None)
    else:
        assert (code, reason) == (1008, "Too many requests")


@pytest.mark.parametrize(("streams", "is_allowed"), [(MOST_STREAMS, True), (MOST_STREAMS + 1, False)])
def test_binance_limits_streams(streams: int, is_allowed: bool) -> None:
    """A connection has at most 1024 streams; unknown ones count and are silent."""

    async def run() -> bool:
        async with SimulatedExchange(settings(speed=0.0001)) as exchange, connect(exchange.url("binance")) as client:
            names = [f"a{number}@trade" for number in range(streams)]
            await client.send(json.dumps({"method": "SUBSCRIBE", "params": names, "id": 1}))
            try:
                return bool(json.loads(await client.recv()) == {"result": None, "id": 1})
            except ConnectionClosed:
                return False

    assert asyncio.run(run()) is is_allowed


def binance_frames(path: str) -> list[Any]:
    async def run() -> list[Any]:
        async with (
            SimulatedExchange(settings(seconds=2)) as exchange,
            connect(exchange.url("binance").partition("/stream")[0] + path) as client,
        ):
            return [json.loads(frame) for frame in await rest(client)]

    return asyncio.run(run())


def test_binance_addresses_select_streams_and_unit() -> None:
    """The address subscribes; times are in milliseconds unless it says otherwise; ``/ws`` sends events unwrapped."""
    combined = binance_frames("/stream?streams=btcusd@trade")
    micro = binance_frames("/stream?streams=btcusd@trade&timeUnit=microsecond")
    raw = binance_frames("/ws/btcusd@trade")
    assert {frame["stream"] for frame in combined} == {"btcusd@trade"}
    assert [frame["data"] for frame in combined] == raw
    assert [frame["data"]["T"] // 1_000 for frame in micro] == [frame["T"] for frame in raw]
    assert {len(str(frame["T"])) for frame in raw} == {13}


def test_kraken_beats_only_without_data() -> None:
    """A status comes first; a heartbeat is sent in seconds in which nothing else is, and only to subscribers."""
    messages = ['{"method":"subscribe","params":{"channel":"ticker","symbol":["BTC/USD"],"event_trigger":"trades"}}']

    async def run() -> list[Any]:
        async with SimulatedExchange(settings()) as exchange, connect(exchange.url("kraken")) as client:
            await client.send(messages[0])
            return [json.loads(frame) for frame in await rest(client)]

    frames = asyncio.run(run())
    assert frames[0]["data"][0]["system"] == "online"
    own = [trade.time for trade in market_trades(PRODUCTS, SECONDS, START) if trade.product_id == "BTC-USD"]
    busy = {math.ceil((time - START) / SECOND_NS) for time in own}
    beats = sum(frame == {"channel": "heartbeat"} for frame in frames)
    assert beats == len(set(range(2, SECONDS + 1)) - busy)
    tickers = [frame for frame in frames if frame.get("channel") == "ticker"]
    assert len(tickers) == 1 + len(own)


def test_kraken_answers_every_symbol() -> None:
    """A confirmation or an error per symbol, with the request's id; the snapshot has the newest trades."""
    message = {"method": "subscribe", "params": {"channel": "trade", "symbol": ["BTC/USD", "A/B", "BTC/USD"],
                                                 "snapshot": True}, "req_id": 5}  # fmt: skip

    async def run() -> list[Any]:
        async with SimulatedExchange(settings(speed=0.0001)) as exchange, connect(exchange.url("kraken")) as client:
            await client.send(json.dumps(message))
            return [json.loads(await client.recv()) for _ in range(5)]

    _, ack, snapshot, unknown, again = asyncio.run(run())
    assert (ack["success"], ack["req_id"]) == (True, 5)
    assert ack["result"] == {"channel": "trade", "symbol": "BTC/USD", "snapshot": True}
    ids = [trade["trade_id"] for trade in snapshot["data"]]
    assert ids == list(range(ids[0], ids[0] + SNAPSHOT_TRADES))
    assert (unknown["success"], unknown["error"]) == (False, "Currency pair not supported A/B")
    assert again["error"] == "Already subscribed"


@pytest.mark.parametrize(("arguments", "is_allowed"), [(MOST_ARGUMENTS, True), (MOST_ARGUMENTS + 1, False)])
def test_bybit_limits_arguments(arguments: int, is_allowed: bool) -> None:
    """Ten topics in a request are allowed, eleven are refused."""
    names = tuple(f"C{number}-USD" for number in range(arguments))

    async def run() -> Any:
        wide = settings(products=names, speed=0.0001)
        async with SimulatedExchange(wide) as exchange, connect(exchange.url("bybit")) as client:
            topics = [f"publicTrade.{name.replace('-', '')}" for name in names]
            await client.send(json.dumps({"op": "subscribe", "args": topics, "req_id": "a"}))
            return json.loads(await client.recv())

    answer = asyncio.run(run())
    assert answer["success"] is is_allowed
    assert answer["req_id"] == "a"
    assert is_allowed or answer["ret_msg"] == "args size >10"


def test_bybit_refuses_a_second_subscription() -> None:
    """A topic that is subscribed already is refused by name, and goes on."""
    request = '{"op":"subscribe","args":["publicTrade.BTCUSD"]}'
    server = bybit(quoted())
    assert [json.loads(server.answer(request, START)[0].data)["success"] for _ in range(2)] == [True, False]
    assert json.loads(server.answer(request, START)[0].data)["ret_msg"].endswith("topic:publicTrade.BTCUSD")
    assert server.trade_frames(quoted(trade_id=2))


def bybit(*trades: Tick) -> BybitServer:
    server = BybitServer(Handshake(1, "", START, {"BTC-USD": day(*trades)}))
    server.answer('{"op":"subscribe","args":["orderbook.1.BTCUSD"]}', START)
    return server


def quoted(**changes: Any) -> Tick:
    plain: dict[str, Any] = {
        "time": START, "received": START, "kind": Kind.TICKER, "product_id": "BTC-USD", "price": 10.0, "best_bid": 9.99,
        "best_ask": 10.0, "bid_size": 1.0, "ask_size": 2.0, "last_size": 0.5, "side": Side.BUY, "trade_id": 1,
    }  # fmt: skip
    return Tick(**(plain | changes))


@pytest.mark.parametrize(("after", "is_due"), [(REPEAT_NS - 1, False), (REPEAT_NS, True)])
def test_bybit_repeats_a_book_without_changes(after: int, is_due: bool) -> None:
    """After exactly 3 s without a change the snapshot is sent again with the same number."""
    frames = bybit(quoted()).second_frames(START + after)
    assert len(frames) == is_due
    for frame in frames:
        message = json.loads(frame.data)
        assert (message["type"], message["data"]["u"]) == ("snapshot", 1)


def test_bybit_sends_only_what_changed() -> None:
    """A delta has the side that changed, and the size 0 for a price that is gone; a reset begins with ``u`` 1."""
    known = day(quoted())
    server = BybitServer(Handshake(1, "", START, {"BTC-USD": known}))
    server.answer('{"op":"subscribe","args":["orderbook.1.BTCUSD"]}', START)
    known.add(quoted(ask_size=3.0, trade_id=2))
    (size,) = server.quote_frames("BTC-USD", START)
    assert (json.loads(size.data)["data"]["b"], json.loads(size.data)["data"]["a"]) == ([], [["10.00", "3.00000000"]])
    known.add(quoted(best_bid=9.98, ask_size=3.0, trade_id=3))
    (price,) = server.quote_frames("BTC-USD", START)
    assert json.loads(price.data)["data"]["b"] == [["9.98", "1.00000000"], ["9.99", "0"]]
    server.reset_numbers()
    known.add(quoted(best_bid=9.97, trade_id=4))
    (again,) = server.quote_frames("BTC-USD", START)
    assert (json.loads(again.data)["type"], json.loads(again.data)["data"]["u"]) == ("snapshot", 1)


def test_products_may_name_a_venue() -> None:
    """``kraken:BTC-USD`` and ``binance:BTC-USD`` are one product of the market, traded on every venue."""
    named = settings(products=("kraken:BTC-USD", "binance:BTC-USD", "ETH-USDT"))
    assert SimulatedExchange(named).products == ("BTC-USD", "ETH-USDT")
    with pytest.raises(UsageError, match="names like BTC-USD"):
        SimulatedExchange(settings(products=("kraken:btc",)))


SERVED = {"BTC-USD": day(quoted())}
WORDS = st.sampled_from(
    [
        "subscribe",
        "SUBSCRIBE",
        "ping",
        "op",
        "args",
        "method",
        "params",
        "channel",
        "symbol",
        "BTC/USD",
        "BTC-USD",
        "trades",
        "ticker",
        "instId",
        "id",
        "req_id",
        "type",
        "publicTrade.BTCUSD",
    ]
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=5),
    max_leaves=12,
)


@given(st.text(max_size=50) | ANYTHING.map(json.dumps), st.text(max_size=30))
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_any_request_has_an_answer(protocol: str, message: str, target: str) -> None:
    """No address and no message of a client ends a server with an error; what it answers is JSON, or a pong."""
    server = SERVERS[protocol](Handshake(1, target, START, SERVED))
    server.is_ping(message)
    for out in server.answer(message, START):
        assert out.data == b"pong" or isinstance(json.loads(out.data), dict)
    server.answer(message.encode(), START)
