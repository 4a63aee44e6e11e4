"""The simulated exchange: both Coinbase protocols over a real socket, from one seeded market."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, InvalidStatus

from volspike.errors import UsageError
from volspike.feeds.events import Frame
from volspike.feeds.simulation.exchange import HISTORY_S, SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.faults import Fault, Faults
from volspike.feeds.simulation.market import iterate_ticks, simulate_trades
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import SECOND_NS, Kind, Tick, parse_time

START = parse_time("2026-01-05T00:00:00Z")
PRODUCTS = ("BTC-USD", "ETH-USD")
SECONDS = 30
DECODERS: dict[str, Callable[[bytes | str, int], Frame]] = {
    "coinbase": decode_advanced_trade,
    "coinbase-exchange": decode_exchange,
}


def settings(**changes: Any) -> SimulatedExchangeSettings:
    """A short market at the speed of its readers."""
    plain: dict[str, Any] = {"products": PRODUCTS, "speed": 0.0, "start": START, "seconds": SECONDS}
    return SimulatedExchangeSettings(**(plain | changes))


def advanced(channel: str, *products: str, kind: str = "subscribe") -> str:
    return json.dumps({"type": kind, "product_ids": list(products or PRODUCTS), "channel": channel})


def exchange_all(*channels: str, kind: str = "subscribe") -> str:
    return json.dumps({"type": kind, "product_ids": list(PRODUCTS), "channels": list(channels)})


async def rest(client: ClientConnection) -> list[str]:
    """All frames until the connection ends."""
    frames = []
    try:
        async with asyncio.timeout(20):
            while True:
                frames.append(str(await client.recv()))
    except ConnectionClosed:
        return frames


async def heard(exchange: SimulatedExchange, protocol: str, *messages: str) -> list[str]:
    async with connect(exchange.url(protocol), max_size=None) as client:
        for message in messages:
            await client.send(message)
        return await rest(client)


def run_of(protocol: str, *messages: str, **changes: Any) -> tuple[list[str], SimulatedExchange]:
    """The frames that one client receives, and the exchange."""

    async def run() -> tuple[list[str], SimulatedExchange]:
        async with SimulatedExchange(settings(subscribes=len(messages), **changes)) as exchange:
            return await heard(exchange, protocol, *messages), exchange

    return asyncio.run(run())


def market() -> list[Tick]:
    """The trades of the exchange's market after it opens."""
    begin = START - HISTORY_S * SECOND_NS
    chunks = simulate_trades(PRODUCTS, HISTORY_S + SECONDS, 7, begin)
    return [trade for chunk in chunks for trade in iterate_ticks(chunk) if trade.time >= START]


ADVANCED = (advanced("ticker"), advanced("market_trades"), advanced("heartbeats"))


@pytest.fixture(scope="module")
def advanced_run() -> tuple[list[str], SimulatedExchange]:
    return run_of("coinbase", *ADVANCED)


@pytest.fixture(scope="module")
def exchange_run() -> tuple[list[str], SimulatedExchange]:
    return run_of("coinbase-exchange", exchange_all("ticker", "matches", "heartbeat"))


def test_advanced_trade_numbers_every_message(advanced_run: tuple[list[str], SimulatedExchange]) -> None:
    """Acks, heartbeats, snapshots and updates: 0, 1, 2 … without a hole, and the record holds the same bytes."""
    frames, exchange = advanced_run
    assert [json.loads(frame)["sequence_num"] for frame in frames] == list(range(len(frames)))
    assert [sent.data.decode() for sent in exchange.sent] == frames
    assert exchange.injected == (exchange.injected[-1],)
    assert exchange.injected[0].fault is Fault.CLOSE


def test_advanced_trade_sends_the_market(advanced_run: tuple[list[str], SimulatedExchange]) -> None:
    """The ticks decoded from the frames are the simulated trades, tickers one by one and trades within 250 ms."""
    decoded = [decode_advanced_trade(frame, 0) for frame in advanced_run[0]]
    raw = [json.loads(frame) for frame in advanced_run[0]]
    updates = [f for f, r in zip(decoded, raw, strict=True) if r["events"][0].get("type") != "snapshot"]
    tickers = [tick for frame in updates for tick in frame.ticks if tick.kind is Kind.TICKER]
    expected = market()
    quoted = ("time", "product_id", "price", "best_bid", "best_ask", "bid_size", "ask_size")
    assert [[getattr(t, n) for n in quoted] for t in tickers] == [[getattr(t, n) for n in quoted] for t in expected]
    trades = [(frame.time, tick) for frame in updates for tick in frame.ticks if tick.kind is Kind.TRADE]
    named = ("time", "price", "last_size", "side", "trade_id")
    for product in PRODUCTS:
        own = [[getattr(t, n) for n in named] for _, t in trades if t.product_id == product]
        assert own == [[getattr(t, n) for n in named] for t in expected if t.product_id == product][: len(own)]
    assert len(expected) - len(trades) < 20
    assert all(0 <= batch - trade.time <= SECOND_NS // 4 for batch, trade in trades)


def test_advanced_trade_starts_with_snapshots(advanced_run: tuple[list[str], SimulatedExchange]) -> None:
    """Each confirmation is followed by the channel's snapshot: the last tickers, or past trades newest first."""
    raw = [json.loads(frame) for frame in advanced_run[0][:6]]
    assert [message["channel"] for message in raw] == [
        "subscriptions", "ticker", "subscriptions", "market_trades", "market_trades", "subscriptions",
    ]  # fmt: skip
    history = [decode_advanced_trade(frame, 0).history for frame in advanced_run[0][3:5]]
    assert all(len(past) == 100 and past[-1].time < START for past in history)
    times = [trade["time"] for trade in raw[3]["events"][0]["trades"]]
    assert times == sorted(times, reverse=True)
    assert raw[5]["events"][0]["subscriptions"] == {
        "ticker": list(PRODUCTS), "market_trades": list(PRODUCTS), "heartbeats": ["heartbeats"],
    }  # fmt: skip


def test_advanced_trade_heart_beats_every_second(advanced_run: tuple[list[str], SimulatedExchange]) -> None:
    """One heartbeat per simulated second, with a counter that rises by one."""
    beats = [beat for frame in advanced_run[0] for beat in decode_advanced_trade(frame, 0).heartbeats]
    assert [beat.counter for beat in beats] == list(range(1, SECONDS + 1))
    assert [beat.time - START for beat in beats] == [second * SECOND_NS for second in range(1, SECONDS + 1)]


def test_exchange_sends_the_market(exchange_run: tuple[list[str], SimulatedExchange]) -> None:
    """Tickers are the simulated trades with size, taker's side, ids and time; matches are the same trades."""
    frames = [decode_exchange(frame, 0) for frame in exchange_run[0]]
    ticks = [tick for frame in frames for tick in frame.ticks]
    names = [name for name in Tick.__struct_fields__ if name != "received"]
    tickers = [tick for tick in ticks if tick.kind is Kind.TICKER]
    expected = market()
    assert [[getattr(t, n) for n in names] for t in tickers] == [[getattr(t, n) for n in names] for t in expected]
    traded = ("time", "product_id", "price", "last_size", "side", "trade_id", "sequence")
    matches = [[getattr(t, n) for n in traded] for t in ticks if t.kind is Kind.TRADE]
    assert matches == [[getattr(t, n) for n in traded] for t in expected]


def test_exchange_starts_with_the_last_match(exchange_run: tuple[list[str], SimulatedExchange]) -> None:
    """After the confirmation comes each product's last match as history; the next match has the next trade id."""
    frames = [decode_exchange(frame, 0) for frame in exchange_run[0]]
    assert frames[0].ack is not None
    assert frames[0].ack.channels == dict.fromkeys(("ticker", "matches", "heartbeat"), PRODUCTS)
    last = {tick.product_id: tick.trade_id for frame in frames[1:3] for tick in frame.history}
    assert set(last) == set(PRODUCTS)
    for product in PRODUCTS:
        first = next(t for f in frames for t in f.ticks if t.product_id == product)
        assert first.trade_id == last[product] + 1


def test_exchange_heart_beats_with_the_last_trade(exchange_run: tuple[list[str], SimulatedExchange]) -> None:
    """A heartbeat per product and second has the id of the last trade."""
    last: dict[str, int] = {}
    beats = 0
    for frame in (decode_exchange(text, 0) for text in exchange_run[0]):
        last.update({tick.product_id: tick.trade_id for tick in (*frame.history, *frame.ticks)})
        for beat in frame.heartbeats:
            beats += 1
            assert beat.last_trade_id == last[str(beat.product_id)]
    assert beats == 2 * SECONDS


@pytest.mark.parametrize("protocol", DECODERS)
def test_the_same_seed_repeats_everything(protocol: str) -> None:
    """The same seed repeats frames and faults byte for byte; another seed gives others."""
    messages = ADVANCED if protocol == "coinbase" else (exchange_all("ticker", "heartbeat"),)
    rates: dict[str, Any] = dict.fromkeys(("drop", "duplicate", "reorder", "skip", "malformed", "unknown"), 0.02)
    faults = Faults(**rates | {"silence_every_s": 7, "silence_s": 1})
    runs = [run_of(protocol, *messages, faults=faults, seed=seed) for seed in (3, 3, 4)]
    (one, first), (same, again), (other, _) = runs
    assert one == same
    assert first.injected == again.injected
    assert one != other
    assert {injected.fault.value for injected in first.injected} >= {*rates, "silence"}


@pytest.mark.parametrize("protocol", DECODERS)
def test_unknown_products_and_channels(protocol: str) -> None:
    """An unknown product is missing in the confirmation, an unknown channel is refused, and BTC-USDC is BTC-USD."""
    messages: tuple[str, ...]
    if protocol == "coinbase":
        messages = (advanced("gossip"), advanced("ticker", "BTC-USDC", "DOGE-MOON"), "what?")
    else:
        body = {"type": "subscribe", "channels": [{"name": "ticker", "product_ids": ["BTC-USDC", "DOGE-MOON"]}]}
        messages = (exchange_all("gossip"), json.dumps(body), "what?")

    async def run() -> list[Frame]:
        async with SimulatedExchange(settings(speed=0.0001)) as exchange, connect(exchange.url(protocol)) as client:
            answers = []
            for message in messages:
                await client.send(message)
                answers.append(await client.recv())
                if message == messages[1] and protocol == "coinbase":
                    await client.recv()  # the snapshot
            return [DECODERS[protocol](answer, 0) for answer in answers]

    refused, acked, unread = asyncio.run(run())
    assert refused.error is not None
    assert refused.error.message == "authentication failure"
    assert acked.ack is not None
    assert acked.ack.channels == {"ticker": ("BTC-USD",)}
    assert unread.error is not None


@pytest.mark.parametrize("protocol", DECODERS)
def test_unsubscribing_ends_a_channel(protocol: str) -> None:
    """After the confirmation without it, a channel sends nothing; the other channels go on."""
    messages: tuple[str, ...]
    if protocol == "coinbase":
        messages = (*ADVANCED, advanced("ticker", kind="unsubscribe"))
    else:
        messages = (exchange_all("ticker", "heartbeat"), exchange_all("ticker", kind="unsubscribe"))

    async def run() -> list[Frame]:
        async with (
            SimulatedExchange(settings(subscribes=len(messages) - 1, speed=0.0001)) as exchange,
            connect(exchange.url(protocol)) as client,
        ):
            for message in messages:
                await client.send(message)
            frames: list[Frame] = []
            while sum(frame.ack is not None for frame in frames) < len(messages):
                frames.append(DECODERS[protocol](await client.recv(), 0))
            return frames

    last = asyncio.run(run())[-1]
    assert last.ack is not None
    assert "ticker" not in last.ack.channels
    assert len(last.ack.channels) == len(messages) // 2


def test_a_client_that_does_not_subscribe_is_disconnected() -> None:
    """A client that sends no subscribe message within the deadline is disconnected."""

    async def run() -> int | None:
        quick = settings(subscribe_within_s=0.05)
        async with SimulatedExchange(quick) as exchange, connect(exchange.url()) as client:
            await rest(client)
            return client.close_code

    assert asyncio.run(run()) == 1008


def test_another_path_is_refused() -> None:
    """Each protocol has its path; every other path is refused."""

    async def run() -> int:
        async with SimulatedExchange(settings()) as exchange:
            with pytest.raises(InvalidStatus) as refused:
                await connect(exchange.url().replace("coinbase", "nowhere"))
            return refused.value.response.status_code

    assert asyncio.run(run()) == 404


def test_several_clients_receive_the_same_market() -> None:
    """Six clients of both protocols have their own sequence numbers and the same trades."""

    async def run() -> list[list[str]]:
        async with SimulatedExchange(settings(speed=20.0, seconds=10)) as exchange, asyncio.timeout(20):
            asked = [("coinbase", advanced("ticker"))] * 3 + [("coinbase-exchange", exchange_all("ticker"))] * 3
            return await asyncio.gather(*(heard(exchange, protocol, message) for protocol, message in asked))

    heard_by = asyncio.run(run())
    for frames in heard_by[:3]:
        assert [json.loads(frame)["sequence_num"] for frame in frames] == list(range(len(frames)))
    prices = [
        [tick.price for text in frames for tick in decode_advanced_trade(text, 0).ticks] for frames in heard_by[:3]
    ]
    prices += [[tick.price for text in frames for tick in decode_exchange(text, 0).ticks] for frames in heard_by[3:]]
    shortest = min(map(len, prices))
    assert shortest > 50
    assert len({tuple(own[-shortest + 5 :]) for own in prices}) == 1


def test_speed_60_keeps_up() -> None:
    """A simulated minute takes a second."""

    async def run() -> float:
        async with SimulatedExchange(settings(speed=60.0, seconds=60)) as exchange:
            began = time.monotonic()
            frames = await heard(exchange, "coinbase", *ADVANCED)
            assert len(frames) > 300
            return time.monotonic() - began

    assert 0.8 < asyncio.run(run()) < 30


def test_at_speed_1_the_times_are_now() -> None:
    """At speed 1 the first updates have the wall-clock time of their arrival."""

    async def run() -> list[int]:
        async with (
            SimulatedExchange(settings(speed=1.0, start=None, seconds=0)) as exchange,
            connect(exchange.url("coinbase-exchange")) as client,
        ):
            await client.send(exchange_all("ticker"))
            await client.recv()
            return [decode_exchange(await client.recv(), 0).time - time.time_ns() for _ in range(3)]

    assert all(-20 * SECOND_NS < late < SECOND_NS for late in asyncio.run(run()))


@pytest.mark.parametrize("speed", [0.0, 1000.0])
def test_a_slow_reader_is_disconnected(speed: float) -> None:
    """A client that reads nothing is disconnected with a bounded buffer, at speed 0 after ``patience_s``."""

    async def run() -> SimulatedExchange:
        slow = settings(speed=speed, seconds=0, buffer_bytes=200_000, patience_s=0.1, compression=False)
        async with SimulatedExchange(slow) as exchange:
            reader, writer = await asyncio.open_connection(*exchange.url().split("/")[2].split(":"), limit=1024)
            writer.write(_handshake() + _masked(advanced("ticker").encode()))
            async with asyncio.timeout(20):
                while not exchange.record.faults[Fault.SLOW_READER]:
                    await asyncio.sleep(0.01)
                assert exchange.record.faults[Fault.UNSENT] == 1
            writer.close()
            del reader
            return exchange

    exchange = asyncio.run(run())
    assert [each.fault for each in exchange.injected] == [Fault.SLOW_READER, Fault.UNSENT]


def _handshake() -> bytes:
    return (
        b"GET /coinbase HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )


def _masked(text: bytes) -> bytes:
    assert len(text) < 126
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


@pytest.mark.parametrize(
    "changes",
    [
        {"products": ()},
        {"products": ("BTC-USD", "BTC-USD")},
        {"products": ('BTC"-USD',)},
        {"faults": Faults(drop=0.6, delay=0.6)},
        {"start": 2**63 - 1},
    ],
)
def test_invalid_exchange_settings_are_refused(changes: dict[str, Any]) -> None:
    """Invalid settings are refused before a server opens."""
    with pytest.raises(UsageError):
        SimulatedExchange(settings(**changes))


def test_a_head_start_is_sent_at_once() -> None:
    """With a head start the past minutes come as fast as they are read, then times are the present.

    It begins with a second, so that the ticks of a seed have the same places in their seconds in each run.
    """

    async def run() -> list[Frame]:
        wishes = settings(speed=1.0, start=None, seconds=0, head_start_s=120, subscribes=1)
        async with SimulatedExchange(wishes) as exchange, connect(exchange.url("coinbase")) as client:
            await client.send(advanced("ticker"))
            frames: list[Frame] = []
            async with asyncio.timeout(30):
                while not frames or frames[-1].time < time.time_ns() - SECOND_NS:
                    frames.append(decode_advanced_trade(await client.recv(), time.time_ns()))
            return frames

    frames = asyncio.run(run())
    first = next(tick.time for frame in frames for tick in frame.ticks)
    assert first % SECOND_NS == 0
    assert frames[-1].time - first > 110 * SECOND_NS


def test_the_end_of_the_market_is_a_normal_close() -> None:
    """Connections are closed with 1000, also later ones."""

    async def run() -> None:
        async with SimulatedExchange(settings(seconds=2)) as exchange:
            await heard(exchange, "coinbase", advanced("ticker"))
            assert exchange.is_over.is_set()
            async with connect(exchange.url()) as client:
                with pytest.raises(ConnectionClosedOK):
                    await client.recv()

    asyncio.run(run())


def test_trades_excite_trades() -> None:
    """A trade is soon followed by others, mostly on its side; ids count by one, sequence numbers rise."""
    chunks = list(simulate_trades(("BTC-USD",), 1200, 7, START))
    trades = [trade for chunk in chunks for trade in iterate_ticks(chunk)]
    waits = np.diff([trade.time for trade in trades])
    assert waits.std() > 1.2 * waits.mean()
    assert np.mean([one.side == two.side for one, two in pairwise(trades)]) > 0.55
    assert set(np.diff([trade.trade_id for trade in trades])) == {1}
    assert min(np.diff([trade.sequence for trade in trades])) >= 1
    assert all(trade.price in {trade.best_bid, trade.best_ask} and trade.last_size > 0 for trade in trades)


@pytest.mark.parametrize("seconds", [1, 599, 601])
def test_a_longer_market_begins_with_the_shorter(seconds: int) -> None:
    """Later trades change no earlier one."""
    short, long = (
        [trade for chunk in simulate_trades(PRODUCTS, length, 7, START) for trade in iterate_ticks(chunk)]
        for length in (seconds, 1200)
    )
    assert short == [trade for trade in long if trade.time < START + seconds * SECOND_NS]
