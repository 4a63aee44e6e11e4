"""Sources of live events: exchanges, one session each, the simulated exchange, or a tape at its original pace."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import structlog

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.connection import check_reachability
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState, FeedStats, Frame, SessionEnd, total_stats
from volspike.feeds.session import FeedSession, read_sessions
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.venues import SIMULATOR, all_protocols, venue_settings
from volspike.labels import SESSION_GAP_S
from volspike.market import SECOND_NS, Kind, Mode, Ticks
from volspike.market.product import split_product
from volspike.market.time import MILLISECOND_NS
from volspike.tape import TapeReport, ledgers_of, read_ticks, tapes_of

CONNECT_TIMEOUT_S: Final = 5.0
SUBSCRIBES: Final = 3
"""Subscribe messages of an Advanced Trade session: ticker, market_trades, heartbeats."""

log = structlog.get_logger(__name__)


SESSION_GAP_NS: Final = SESSION_GAP_S * SECOND_NS
LATE_TICKS: Final = 32
"""Ticks of a tape after which other tasks run even if the replay is late or has no pace."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open source.

    Attributes:
        name: shown to users.
        mode: live, replay or simulated.
        kinds: the kinds of ticks that it sends.
        products: the products that it sends; of a tape, those of its first ticks.
        events: its events, to be iterated once.
        timed_from: time (ns UTC) from which its ticks are in real time, so that latency is defined; None for never.
        stats: the statistics of its session; None for a tape.
        replay: the progress of a tape; None for other sources.
        feeds: the protocols of its sessions; empty for a tape.
    """

    name: str
    mode: Mode
    kinds: frozenset[Kind]
    products: tuple[str, ...]
    events: AsyncIterator[FeedEvent]
    timed_from: int | None
    stats: Callable[[], FeedStats] | None = None
    replay: TapeReplay | None = None
    feeds: tuple[str, ...] = ()

    @property
    def simulated(self) -> bool:
        """Whether its market is simulated."""
        return self.mode.is_simulated


@asynccontextmanager
async def open_source(
    name: str, settings: FeedSettings, *, seed: int = 7, speed: float = 1.0, head_start_s: int = 0
) -> AsyncIterator[Source]:
    """Open the named source until the block ends. ``auto`` is each product's venue, or the simulator if none answers.

    The choice is made once; a source that fails later is not replaced by another. Each venue has a session of its own,
    and their events come in the order of receipt. The name of a protocol is the venue of products that name none. An
    exchange at an address of the user is queried whether it is simulated. ``speed`` applies to a tape and to the
    simulated market, which sends its first ``head_start_s`` seconds at once.

    Raises:
        UsageError: unknown source, product of a venue without a protocol, real and simulated exchanges at once, no
            such tape, or the proxy of the environment cannot be used.
        UnreadableFile: no tick in the tape.
    """
    if name.startswith("tape:"):
        path = name.removeprefix("tape:")
        if not path:
            raise UsageError("--source tape: needs a path; name a tape, a folder or a glob after the colon")
        replay = await asyncio.to_thread(TapeReplay, path, speed)
        yield Source(f"tape {path}", replay.mode, replay.kinds, replay.products, replay.events(), None, replay=replay)
        return
    feeds = venue_settings(name, settings)
    is_simulator = name == SIMULATOR or (name == "auto" and not await _is_any_reachable(feeds))
    if is_simulator:
        market = SimulatedExchangeSettings(
            products=tuple(dict.fromkeys(split_product(product)[1] for feed in feeds for product in feed.products)),
            seed=seed,
            speed=speed,
            head_start_s=head_start_s,
            subscribes=SUBSCRIBES,
            clients=len(feeds),
        )
        timed_from = time.time_ns() if speed == 1.0 else None
        async with SimulatedExchange(market) as exchange:
            simulated = [msgspec.structs.replace(feed, url=exchange.url(feed.protocol)) for feed in feeds]
            async with _listening(simulated, Mode.SIMULATED, timed_from, name="simulated exchange") as source:
                yield source
    else:
        mode = Mode.of(simulated=await _is_simulated(feeds))
        async with _listening(feeds, mode, 0) as source:
            yield source


@asynccontextmanager
async def _listening(
    feeds: Sequence[FeedSettings], mode: Mode, timed_from: int | None, name: str | None = None
) -> AsyncIterator[Source]:
    """A source of one session per venue."""
    wake = asyncio.Event()
    async with AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(FeedSession(feed, simulated=mode.is_simulated, wake=wake)) for feed in feeds
        ]
        yield Source(
            name or ", ".join(session.url for session in sessions),
            mode,
            frozenset().union(*(kinds_of(feed) for feed in feeds)),
            tuple(product for feed in feeds for product in feed.products),
            read_sessions(sessions, wake),
            timed_from,
            lambda: total_stats([session.stats for session in sessions]),
            feeds=tuple(feed.protocol for feed in feeds),
        )


def kinds_of(settings: FeedSettings) -> frozenset[Kind]:
    """The kinds of ticks that an exchange sends for these settings."""
    return all_protocols()[settings.protocol].kinds(settings)


async def _is_any_reachable(feeds: Sequence[FeedSettings]) -> bool:
    """Whether any exchange answers; one at an address of the user is used in any case."""
    if any(feed.url for feed in feeds):
        return True
    urls = [all_protocols()[feed.protocol].address(feed) for feed in feeds]
    checks = (check_reachability(url, feed, CONNECT_TIMEOUT_S) for url, feed in zip(urls, feeds, strict=True))
    answers = await asyncio.gather(*checks)
    is_any = any(answer.is_reachable for answer in answers)
    used = "the next attempts" if is_any else "the simulated market"
    for url, answer in zip(urls, answers, strict=True):
        if not answer.is_reachable:
            log.warning("exchange_unreachable", url=url, reason=answer.reason, used_instead=used)
    return is_any


async def _is_simulated(feeds: Sequence[FeedSettings]) -> bool:
    """Whether the exchanges are simulated.

    A venue's own address needs no check; if nothing responds at another yet, the session refuses a simulated exchange
    later.
    """
    answers = {feed.url: (await check_reachability(feed.url, feed)).is_simulated for feed in feeds if feed.url}
    simulated = [feed.protocol for feed in feeds if answers.get(feed.url)]
    if simulated and len(simulated) < len(feeds):
        real = [feed.protocol for feed in feeds if not answers.get(feed.url)]
        raise UsageError(
            f"{', '.join(simulated)} is simulated and {', '.join(real)} is not; start one process for each kind"
        )
    return bool(simulated)


class TapeReplay:
    """A recorded tape as a source: its ticks at their original pace times ``speed``, or at once for speed 0.

    A silence of more than ``SESSION_GAP_S`` on the tape ends the session, and the replay continues with the next tick
    without a wait. The gaps of the ledger next to the tape are part of the events.

    Attributes:
        path: the tape, folder or glob.
        report: products, kinds, rejected lines, and the bytes read so far.
        start: when the first tick was received (ns UTC), ``now`` the newest.
        sessions: sessions so far.
        skipped_ns: time of the tape that was skipped between them.
        is_ended: whether the last tick has been sent.

    Raises:
        UsageError: no such tape.
        UnreadableFile: no tick in it.
    """

    def __init__(self, path: str, speed: float) -> None:
        self.path, self.speed = path, speed
        self.report = TapeReport()
        self._parts = read_ticks([path], report=self.report, keep_rejected=False)
        self._first = next(self._parts)
        self.start = self.now = int(self._first.received[0])
        self.kinds = frozenset(Kind(int(kind)) for kind in set(self._first.kind.tolist()))
        self.products = tuple(self._first.products)
        self.mode = Mode.of(simulated=self.report.simulated, replayed=True)
        self.sessions, self.skipped_ns, self.is_ended = 1, 0, False
        self._bytes = max(1, self.report.total_bytes)
        self._read_before = self._sent = self._part_ticks = 0
        ledger = ledgers_of(tapes_of([path]))
        gaps = (gap for gap in (*ledger.gaps, *ledger.unverifiable) if gap.end > self.start)
        self._gaps = deque(sorted(gaps, key=lambda gap: gap.end))

    @property
    def fraction(self) -> float:
        """The share of the tape that has been sent, by bytes; 1 at its end."""
        if self.is_ended:
            return 1.0
        of_part = self._sent / max(1, self._part_ticks)
        return min(1.0, (self._read_before + of_part * (self.report.bytes_read - self._read_before)) / self._bytes)

    def progress(self) -> dict[str, Any]:
        """The state of the replay for the dashboard and ``/health``; times in ms UTC."""
        return {
            "is_ended": self.is_ended,
            "speed": self.speed,
            "fraction": self.fraction,
            "start": self.start // MILLISECOND_NS,
            "now": self.now // MILLISECOND_NS,
            "sessions": self.sessions,
            "skipped_s": self.skipped_ns // SECOND_NS,
        }

    async def events(self) -> AsyncIterator[FeedEvent]:
        """The events of the tape, to be iterated once."""
        pace = _Pace(self.speed, self.start)
        yield self._state(is_connected=True, reason="replaying a tape")
        part: Ticks | None = self._first
        while part is not None:
            self._part_ticks = len(part)
            for self._sent, tick in enumerate(part):
                if tick.received - self.now > SESSION_GAP_NS:
                    self.sessions, self.skipped_ns = self.sessions + 1, self.skipped_ns + tick.received - self.now
                    yield SessionEnd(last=self.now, next=tick.received)
                    pace.restart(tick.received)
                await pace.wait(tick.received)
                self.now = max(self.now, tick.received)  # receive times of a tape may step back
                while self._gaps and self._gaps[0].end <= tick.received:
                    yield self._gaps.popleft()
                yield FeedFrame(tick.received, b"", Frame(time=tick.time, ticks=(tick,)), "tape")
            self._read_before = self.report.bytes_read
            part = await asyncio.to_thread(next, self._parts, None)
        self.is_ended = True
        yield self._state(is_connected=False, reason="the replay has ended")

    def _state(self, *, is_connected: bool, reason: str) -> FeedState:
        return FeedState(
            received=self.now, is_connected=is_connected, reason=reason, url=self.path, attempt=1, feed="tape"
        )


class _Pace:
    """Delays ticks so that they follow each other as they were received, ``speed`` times as fast; 0 for no delay."""

    def __init__(self, speed: float, start: int) -> None:
        self._speed, self._unwaited = speed, 0
        self.restart(start)

    def restart(self, received: int) -> None:
        """Continue with this receive time (ns UTC) now."""
        self._start, self._began = received, asyncio.get_running_loop().time()

    async def wait(self, received: int) -> None:
        """Wait until the time of a tick has come; other tasks run at least every ``LATE_TICKS`` ticks."""
        ahead = 0.0
        if self._speed:
            elapsed = asyncio.get_running_loop().time() - self._began
            ahead = (received - self._start) / SECOND_NS / self._speed - elapsed
        self._unwaited += 1
        if ahead > 0.0 or self._unwaited >= LATE_TICKS:
            self._unwaited = 0
            await asyncio.sleep(max(0.0, ahead))
