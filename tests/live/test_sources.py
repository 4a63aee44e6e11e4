"""Live sources: opening, identification as real or simulated, and events."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Response

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.connection import check_reachability
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState, FeedStats, SessionEnd, total_stats
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.market import simulate_market
from volspike.feeds.venues import venue_settings
from volspike.live.sources import open_source
from volspike.market import SECOND_NS, Cause, Gap, Kind, Mode, Tick, Ticks
from volspike.tape import Ledger, write_ndjson

START = 1_760_000_400 * SECOND_NS
PATIENCE_S = 20.0
MARKET = SimulatedExchangeSettings(products=("BTC-USD",), seed=3)


def test_a_tape_is_replayed_tick_by_tick(tmp_path: Path) -> None:
    """A tape is a source: it connects, sends every tick in order, is marked as simulated, and ends."""
    path = tmp_path / "ticks.ndjson"
    write_ndjson(simulate_market(["BTC-USD"], 60, 1, START), path, simulated=True)
    told: list[Tick] = []

    async def run() -> list[bool]:
        async with open_source(f"tape:{path}", FeedSettings(), speed=0.0) as source:
            assert (source.mode, source.kinds) == (Mode.SIMULATED_REPLAY, frozenset({Kind.TICKER}))
            assert source.timed_from is None
            states = []
            async for event in source.events:
                if isinstance(event, FeedState):
                    states.append(event.is_connected)
                elif isinstance(event, FeedFrame):
                    told.extend(event.frame.ticks)
            return states

    assert asyncio.run(run()) == [True, False]
    assert [tick.time for tick in told] == [
        int(time) for part in simulate_market(["BTC-USD"], 60, 1, START) for time in part.time
    ]


def test_a_tape_is_replayed_at_its_pace(tmp_path: Path) -> None:
    """At speed 20 four seconds of a tape take at least a fifth of a second."""
    path = tmp_path / "ticks.ndjson"
    write_ndjson(simulate_market(["BTC-USD"], 4, 1, START), path)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with open_source(f"tape:{path}", FeedSettings(), speed=20.0) as source:
            ticks = [event.frame.ticks[0] async for event in source.events if isinstance(event, FeedFrame)]
        return (ticks[-1].received - ticks[0].received) / SECOND_NS / 20.0 - (loop.time() - began)

    assert asyncio.run(run()) <= 0.0


def test_a_silence_over_300_s_ends_the_session_and_is_skipped(tmp_path: Path) -> None:
    """At speed 1 a tape with a silence of a day between two files takes no longer than its ticks.

    A silence of exactly 300 s is not an end. Gaps of the ledger next to the tape come before the ticks after them.
    """
    day = 86_400 * SECOND_NS
    for start in (START, START + day):
        write_ndjson(simulate_market(["BTC-USD"], 1, 1, start), tmp_path / f"ticks_{start}.ndjson")
    ledger = Ledger(tmp_path)
    ledger.add(Gap(start=START, end=START + day, products=("BTC-USD",), cause=Cause.RESTART))
    assert ledger.flush()

    async def run() -> list[FeedEvent]:
        async with asyncio.timeout(PATIENCE_S), open_source(f"tape:{tmp_path}", FeedSettings()) as source:
            told = [event async for event in source.events]
            assert source.replay is not None
            assert (source.replay.sessions, source.replay.fraction, source.replay.is_ended) == (2, 1.0, True)
            assert day - 2 * SECOND_NS < source.replay.skipped_ns < day
            return told

    told = asyncio.run(run())
    kinds = [type(event).__name__ for event in told]
    ends = [event for event in told if isinstance(event, SessionEnd)]
    assert len(ends) == 1
    at = kinds.index("SessionEnd")
    assert kinds[at : at + 3] == ["SessionEnd", "Gap", "FeedFrame"]
    assert ends[0].last < START + 2 * SECOND_NS < START + day <= ends[0].next


@pytest.mark.parametrize(("seconds", "ends"), [(300.0, 0), (300.1, 1)])
def test_a_session_ends_after_more_than_300_s(seconds: float, ends: int, tmp_path: Path) -> None:
    """A silence of exactly 300 s on a tape continues the session."""
    ticks = [tick(START), tick(START + round(seconds * 1000) * 1_000_000)]
    write_ndjson([Ticks.of(ticks)], tmp_path / "ticks.ndjson")

    async def run() -> list[FeedEvent]:
        async with open_source(f"tape:{tmp_path}", FeedSettings(), speed=0.0) as source:
            return [event async for event in source.events]

    assert sum(isinstance(event, SessionEnd) for event in asyncio.run(run())) == ends


def tick(time: int) -> Tick:
    return Tick(time=time, received=time, kind=Kind.TICKER, product_id="BTC-USD", price=100.0)


def test_a_missing_tape_is_refused(tmp_path: Path) -> None:
    """A tape that does not exist is a usage error when the source is opened."""

    async def run() -> None:
        async with open_source(f"tape:{tmp_path}/none.ndjson", FeedSettings()):
            pass

    with pytest.raises(UsageError, match="no such tape"):
        asyncio.run(run())


async def _first(events: AsyncIterator[FeedEvent]) -> FeedEvent:
    """The first frame with ticks, or the first state of a refused exchange."""
    async with asyncio.timeout(PATIENCE_S):
        async for event in events:
            if isinstance(event, FeedFrame) and event.frame.ticks:
                return event
            if isinstance(event, FeedState) and not event.is_connected and "cannot connect" not in event.reason:
                return event
    raise AssertionError("the source ended")


def test_a_simulated_exchange_is_recognised_at_any_url() -> None:
    """A simulated exchange at a URL of the user identifies itself as simulated."""

    async def run(protocol: str) -> bool:
        async with SimulatedExchange(MARKET) as exchange:
            settings = FeedSettings(url=exchange.url(protocol))
            async with open_source(protocol, settings) as source:
                assert isinstance(await _first(source.events), FeedFrame)
                return source.simulated

    assert asyncio.run(run("coinbase"))
    assert asyncio.run(run("coinbase-exchange"))


def test_a_simulated_exchange_does_not_replace_a_real_one() -> None:
    """A simulated exchange that appears after the source was chosen is refused with a reason."""

    async def run() -> FeedEvent:
        async with SimulatedExchange(MARKET) as gone:
            address = gone.url()
        port = int(address.rpartition("/")[0].rpartition(":")[2])
        async with open_source("coinbase", FeedSettings(url=address, backoff_min_s=0.01)) as source:
            assert not source.simulated
            async with SimulatedExchange(msgspec.structs.replace(MARKET, port=port)):
                return await _first(source.events)

    told = asyncio.run(run())
    assert isinstance(told, FeedState)
    assert "the exchange is simulated, but this session expects a real one" in told.reason


def test_a_real_exchange_does_not_replace_a_simulated_one() -> None:
    """A real exchange at the URL of a simulated one would be recorded as simulated, so it is refused."""

    async def run() -> FeedEvent:
        async with (
            serve(ServerConnection.wait_closed, "127.0.0.1", 0) as real,
            FeedSession(FeedSettings(url=f"ws://127.0.0.1:{port_of(real)}"), simulated=True) as session,
        ):
            return await _first(session.events())

    told = asyncio.run(run())
    assert isinstance(told, FeedState)
    assert "the exchange is not simulated" in told.reason


def port_of(server: Server) -> int:
    return int(next(iter(server.sockets)).getsockname()[1])


def test_an_unknown_source_is_refused() -> None:
    """The error lists the known sources."""

    async def run() -> None:
        async with open_source("nyse", FeedSettings()):
            pass

    with pytest.raises(UsageError, match="coinbase-exchange"):
        asyncio.run(run())


@pytest.mark.parametrize("url", ["wss://volspike.invalid", "wss://127.0.0.1:9"])
def test_an_unreachable_exchange_is_not_an_error(url: str) -> None:
    """A host that does not resolve or refuses the connection is unreachable, with the reason."""
    answer = asyncio.run(check_reachability(url, FeedSettings(), timeout_s=2.0))
    assert not answer.is_reachable
    assert answer.reason


@pytest.mark.parametrize(("status", "is_reachable"), [(503, True), (429, True), (403, False)])
def test_an_exchange_that_refuses_for_now_is_reachable(status: int, is_reachable: bool) -> None:
    """An exchange in maintenance is not replaced by a simulated one."""

    async def run() -> bool:
        def refuse(connection: ServerConnection, _: object) -> Response:
            return connection.respond(status, "no\n")

        async with serve(ServerConnection.wait_closed, "127.0.0.1", 0, process_request=refuse) as server:
            return (await check_reachability(f"ws://127.0.0.1:{port_of(server)}", FeedSettings())).is_reachable

    assert asyncio.run(run()) is is_reachable


VENUES = ("binance:BTC-USDT", "BTC-USD", "kraken:ETH-USD", "okx:BTC-USDT", "bybit:SOL-USDT")


def test_each_venue_has_a_session_of_its_own() -> None:
    """The products are grouped by venue, in the order given; the user's addresses reach their protocols."""
    settings = FeedSettings(
        products=("kraken:ETH-USD", "BTC-USD", "kraken:BTC-USD"),
        url="ws://127.0.0.1:1",
        urls={"kraken": "ws://127.0.0.1:2"},
    )
    feeds = venue_settings("auto", settings)
    assert [(feed.protocol, feed.products, feed.url) for feed in feeds] == [
        ("kraken", ("kraken:ETH-USD", "kraken:BTC-USD"), "ws://127.0.0.1:2"),
        ("coinbase", ("BTC-USD",), "ws://127.0.0.1:1"),
    ]


def test_a_protocol_is_the_venue_of_bare_names() -> None:
    """``--source kraken --pair BTC-USD`` is Kraken's; Coinbase's second protocol keeps the bare name."""
    (kraken,) = venue_settings("kraken", FeedSettings(products=("BTC-USD", "kraken:BTC-USD")))
    assert kraken.products == ("kraken:BTC-USD",)
    (coinbase,) = venue_settings("coinbase-exchange", FeedSettings(products=("BTC-USD",)))
    assert (coinbase.protocol, coinbase.products) == ("coinbase-exchange", ("BTC-USD",))


@pytest.mark.parametrize(
    ("name", "product", "message"),
    [
        ("kraken", "binance:BTC-USDT", "listens to kraken only, and binance:BTC-USDT is a product of binance"),
        ("kraken", "coinbase:BTC-USD", "and coinbase:BTC-USD is a product of coinbase"),
        ("auto", "mtgox:BTC-USD", "no protocol for mtgox; there is one for"),
        ("nyse", "BTC-USD", "unknown --source 'nyse'"),
    ],
)
def test_a_product_without_a_protocol_is_refused(name: str, product: str, message: str) -> None:
    """The error names the product and what there is."""
    with pytest.raises(UsageError, match=message):
        venue_settings(name, FeedSettings(products=(product,)))


def test_the_simulator_serves_every_venue_at_once() -> None:
    """Ticks of five venues come in one order of receipt, each under its own name and the name of its protocol."""

    async def run() -> tuple[list[FeedFrame], FeedStats]:
        settings = FeedSettings(products=VENUES)
        async with asyncio.timeout(PATIENCE_S), open_source("simulator", settings, head_start_s=30) as source:
            assert (source.mode, source.kinds, source.products) == (Mode.SIMULATED, frozenset(Kind), VENUES)
            assert source.feeds == ("binance", "coinbase", "kraken", "okx", "bybit")
            frames: list[FeedFrame] = []
            async for event in source.events:
                if isinstance(event, FeedFrame):
                    frames.append(event)
                if {tick.product_id for frame in frames for tick in frame.frame.ticks} == set(VENUES):
                    break
            assert source.stats is not None
            return frames, source.stats()

    frames, stats = asyncio.run(run())
    received = [frame.received for frame in frames]
    assert received == sorted(received)
    assert {frame.feed for frame in frames} == {"binance", "coinbase", "kraken", "okx", "bybit"}
    assert (stats.connections, stats.malformed, stats.gaps) == (5, 0, 0)
    assert stats.ticks >= len(VENUES)


def test_real_and_simulated_exchanges_are_not_mixed() -> None:
    """One run is of one kind of market; the error names both."""

    async def run() -> None:
        async with SimulatedExchange(MARKET) as exchange, serve(ServerConnection.wait_closed, "127.0.0.1", 0) as real:
            urls = {"coinbase": exchange.url("coinbase"), "kraken": f"ws://127.0.0.1:{port_of(real)}"}
            settings = FeedSettings(products=("BTC-USD", "kraken:BTC-USD"), urls=urls)
            async with open_source("auto", settings):
                pass

    with pytest.raises(UsageError, match="coinbase is simulated and kraken is not"):
        asyncio.run(run())


def test_the_counts_of_sessions_are_added() -> None:
    """Counts add up; the newest receipt and its latency are those of one session."""
    parts = [
        FeedStats(frames=3, ticks=2, ignored=Counter(a=1), refused=("A",), last_received=5, latency_ns=7),
        FeedStats(frames=4, gaps=1, ignored=Counter(a=1, b=2), refused=("B",), last_received=9, latency_ns=8),
    ]
    assert total_stats(parts) == FeedStats(
        frames=7, ticks=2, gaps=1, ignored=Counter(a=2, b=2), refused=("A", "B"), last_received=9, latency_ns=8
    )
    assert total_stats(parts[:1]) == parts[0]
