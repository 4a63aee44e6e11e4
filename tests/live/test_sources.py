"""Live sources: opening, identification as real or simulated, and events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Response

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.connection import check_reachability
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.market import simulate_market
from volspike.live.sources import open_source
from volspike.market import SECOND_NS, Kind, Tick
from volspike.tape import write_ndjson

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
            assert (source.simulated, source.kinds, source.timed_from) == (True, frozenset({Kind.TICKER}), None)
            states = []
            async for event in source.events:
                if isinstance(event, FeedState):
                    states.append(event.is_connected)
                elif isinstance(event, FeedFrame):
                    told.extend(event.frame.ticks)
            return states

    assert asyncio.run(run()) == [True]
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
        async with open_source("kraken", FeedSettings()):
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
