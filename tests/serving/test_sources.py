"""Where live markets come from: each source opens, says what it is, and tells its events."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds import simulate_market
from volspike.feeds.session_events import FeedFrame, FeedState
from volspike.market import SECOND_NS, Kind, Tick
from volspike.serving.sources import can_reach, open_source
from volspike.tape import write_ndjson

START = 1_760_000_400 * SECOND_NS


def test_a_tape_is_told_tick_by_tick(tmp_path: Path) -> None:
    """A recorded tape is a source too: it connects, tells every tick in order, says that it is simulated, and ends."""
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


def test_a_tape_is_told_at_its_own_pace(tmp_path: Path) -> None:
    """At speed 20 four seconds of a tape take a fifth of a second at least."""
    path = tmp_path / "ticks.ndjson"
    write_ndjson(simulate_market(["BTC-USD"], 4, 1, START), path)

    async def run() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with open_source(f"tape:{path}", FeedSettings(), speed=20.0) as source:
            ticks = [event.frame.ticks[0] async for event in source.events if isinstance(event, FeedFrame)]
        return (ticks[-1].received - ticks[0].received) / SECOND_NS / 20.0 - (loop.time() - began)

    assert asyncio.run(run()) <= 0.0


def test_an_unknown_source_is_refused() -> None:
    """A name that is no source is answered with those that are."""

    async def run() -> None:
        async with open_source("kraken", FeedSettings()):
            pass

    with pytest.raises(UsageError, match="coinbase-exchange"):
        asyncio.run(run())


def test_an_exchange_that_does_not_answer_is_not_reached() -> None:
    """What cannot be resolved or refuses the connection is told within seconds, and nothing is raised."""
    assert not asyncio.run(can_reach("wss://volspike.invalid"))
    assert not asyncio.run(can_reach("wss://127.0.0.1", within_s=2.0))
