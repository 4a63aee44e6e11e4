"""Sources of live events: Coinbase's websockets, the simulated exchange, or a recorded tape at its original pace."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import msgspec
import structlog

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.connection import check_reachability
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState, FeedStats, Frame
from volspike.feeds.protocol import PROTOCOLS
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.market import SECOND_NS, Kind
from volspike.tape import TapeReport, read_ticks

SOURCES: Final = ("auto", "coinbase", "coinbase-exchange", "simulator", "tape:PATH")
CONNECT_TIMEOUT_S: Final = 5.0
SUBSCRIBES: Final = 3
"""Subscribe messages of an Advanced Trade session: ticker, market_trades, heartbeats."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """An open source.

    Attributes:
        name: shown to users.
        simulated: whether its market is simulated.
        kinds: the kinds of ticks that it sends.
        events: its events, to be iterated once.
        timed_from: time (ns UTC) from which its ticks are in real time, so that latency is defined; None for never.
        stats: the statistics of its session; None for a tape.
    """

    name: str
    simulated: bool
    kinds: frozenset[Kind]
    events: AsyncIterator[FeedEvent]
    timed_from: int | None
    stats: Callable[[], FeedStats] | None = None


@asynccontextmanager
async def open_source(
    name: str, settings: FeedSettings, *, seed: int = 7, speed: float = 1.0, head_start_s: int = 0
) -> AsyncIterator[Source]:
    """Open the named source until the block ends. ``auto`` is Coinbase if it can be reached, else the simulator.

    The choice is made once; a source that fails later is not replaced by another. An exchange at ``settings.url`` is
    queried whether it is simulated. ``speed`` applies to a tape and to the simulated market, which sends its first
    ``head_start_s`` seconds at once.

    Raises:
        UsageError: unknown source, or the proxy of the environment cannot be used.
    """
    chosen = await _choose(name, settings)
    if chosen.startswith("tape:"):
        yield _tape(chosen.removeprefix("tape:"), speed)
    elif chosen == "simulator":
        market = SimulatedExchangeSettings(
            products=settings.products, seed=seed, speed=speed, head_start_s=head_start_s, subscribes=SUBSCRIBES
        )
        timed_from = time.time_ns() if speed == 1.0 else None
        async with SimulatedExchange(market) as exchange:
            simulated_feed = msgspec.structs.replace(settings, protocol="coinbase", url=exchange.url("coinbase"))
            async with FeedSession(simulated_feed) as session:
                yield Source(
                    "simulated exchange", True, frozenset(Kind), session.events(), timed_from, lambda: session.stats
                )
    elif chosen in PROTOCOLS:
        feed = msgspec.structs.replace(settings, protocol=chosen)
        # Coinbase's own address needs no check; if nothing responds yet, the session refuses a simulated exchange later
        simulated = bool(settings.url) and (await check_reachability(settings.url, feed)).is_simulated
        async with FeedSession(feed, simulated=simulated) as session:
            yield Source(session.url, simulated, kinds_of(feed), session.events(), 0, lambda: session.stats)
    else:
        raise UsageError(f"unknown --source {name!r}; use one of {', '.join(SOURCES)}")


def kinds_of(settings: FeedSettings) -> frozenset[Kind]:
    """The kinds of ticks that an exchange sends for these settings."""
    return frozenset(Kind) if settings.protocol == "coinbase" or settings.matches else frozenset({Kind.TICKER})


async def _choose(name: str, settings: FeedSettings) -> str:
    if name != "auto":
        return name
    if settings.url:
        return "coinbase"
    url = PROTOCOLS["coinbase"].url
    answer = await check_reachability(url, settings, CONNECT_TIMEOUT_S)
    if not answer.is_reachable:
        log.warning("exchange_unreachable", url=url, reason=answer.reason, used_instead="the simulated market")
    return "coinbase" if answer.is_reachable else "simulator"


def _tape(path: str, speed: float) -> Source:
    report = TapeReport()
    parts = read_ticks([path], report=report, keep_rejected=False)
    first = next(parts)

    async def events() -> AsyncIterator[FeedEvent]:
        loop = asyncio.get_running_loop()
        start, began = int(first.received[0]), loop.time()
        yield FeedState(received=start, is_connected=True, reason="replaying a tape", url=path, attempt=1)
        part = first
        while True:
            for tick in part:
                ahead = (tick.received - start) / SECOND_NS / speed - (loop.time() - began) if speed else 0.0
                if ahead > 0.0:
                    await asyncio.sleep(ahead)
                yield FeedFrame(tick.received, b"", Frame(time=tick.time, ticks=(tick,)))
            await asyncio.sleep(0)
            following = next(parts, None)
            if following is None:
                return
            part = following

    kinds = frozenset(Kind(int(kind)) for kind in set(first.kind.tolist()))
    return Source(f"tape {path}", report.simulated, kinds, events(), None)
