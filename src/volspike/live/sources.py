"""Where a live market comes from: Coinbase's sockets, the simulated exchange, or a recorded tape at its own pace."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import msgspec

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.connection import probe_simulated
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState, Frame
from volspike.feeds.protocol import PROTOCOLS
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.market import SECOND_NS, Kind
from volspike.tape import TapeReport, read_ticks

SOURCES: Final = ("auto", "coinbase", "coinbase-exchange", "simulator", "tape:PATH")
REACH_WITHIN_S: Final = 5.0
SUBSCRIBES: Final = 3
"""Subscribe messages of an Advanced Trade session: ticker, market_trades, heartbeats."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open source: its name for people, whether it is simulated, the kinds of ticks it tells, and its events.

    ``timed_from`` is the instant (ns UTC) from which the times it tells are the wall's, so that a latency means
    something; None where they never are.
    """

    name: str
    simulated: bool
    kinds: frozenset[Kind]
    events: AsyncIterator[FeedEvent]
    timed_from: int | None


@asynccontextmanager
async def open_source(
    name: str, settings: FeedSettings, *, seed: int = 7, speed: float = 1.0, head_start_s: int = 0
) -> AsyncIterator[Source]:
    """The named source, open until the block ends. ``auto`` is Coinbase where it can be reached, else the simulator.

    The choice is made here, once; a source that fails later is not exchanged for another. An exchange at an address of
    one's own (``settings.url``) is asked whether it is a simulated one. ``speed`` is that of a tape or of the simulated
    market; ``head_start_s`` of the latter are told at once.

    Raises:
        UsageError: no such source.
    """
    chosen = await _chosen(name, settings)
    if chosen.startswith("tape:"):
        yield _tape(chosen.removeprefix("tape:"), speed)
    elif chosen == "simulator":
        market = SimulatedExchangeSettings(
            products=settings.products, seed=seed, speed=speed, head_start_s=head_start_s, subscribes=SUBSCRIBES
        )
        timed_from = time.time_ns() if speed == 1.0 else None
        async with SimulatedExchange(market) as exchange:
            told = msgspec.structs.replace(settings, protocol="coinbase", url=exchange.url("coinbase"))
            async with FeedSession(told) as session:
                yield Source("simulated exchange", True, frozenset(Kind), session.events(), timed_from)
    elif chosen in PROTOCOLS:
        told = msgspec.structs.replace(settings, protocol=chosen)
        # Coinbase's own address needs no asking; where nobody answers yet, no simulated exchange will be listened to
        simulated = bool(settings.url and await probe_simulated(settings.url, told))
        async with FeedSession(told, simulated=simulated) as session:
            yield Source(session.url, simulated, kinds_of(told), session.events(), 0)
    else:
        raise UsageError(f"no source {name!r}; there are {', '.join(SOURCES)}")


def kinds_of(settings: FeedSettings) -> frozenset[Kind]:
    """The kinds of ticks that an exchange tells who asks it as the settings say."""
    return frozenset(Kind) if settings.protocol == "coinbase" or settings.matches else frozenset({Kind.TICKER})


async def _chosen(name: str, settings: FeedSettings) -> str:
    if name != "auto":
        return name
    return "coinbase" if settings.url or await can_reach(PROTOCOLS["coinbase"].url) else "simulator"


async def can_reach(url: str, within_s: float = REACH_WITHIN_S) -> bool:
    """Whether a TLS connection to the url's host comes about in time."""
    host = urlsplit(url).hostname
    try:
        async with asyncio.timeout(within_s):
            _, writer = await asyncio.open_connection(host, 443, ssl=ssl.create_default_context())
    except OSError:  # a timeout is one, and so is a name that does not resolve or a certificate that does not fit
        return False
    writer.close()
    return True


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
