"""What a simulated exchange is told before it opens.

The hand on the simulated exchange's faults: what goes wrong now, and what goes wrong by itself from now on.

A simulated exchange: a seeded market behind a real websocket server that speaks both of Coinbase's protocols.

What it is not: an exchange. Nobody trades here, no order book is kept, prices answer to nothing but a seed, and
what a model scores on it says nothing about a real market. It is for tests, demonstrations and machines that reach
no exchange. Connections' limits of rate are not enforced, and ``ticker_batch`` and the order book are not spoken.

Two clocks. The market runs on simulated time, which begins at ``start`` (now, unless told) and passes ``speed``
times as fast as the wall's: every time told in a message is simulated. So at speed 1 the times told are now, and
at speed 60 they begin now and run ahead by 59 s every second. At speed 0 the market does not look at the wall's
clock: it goes on as fast as every client reads, and stands still while nobody is subscribed. Deadlines of the
connection itself (the 5 s in which to subscribe, closing) are the wall's at every speed.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Annotated, Self, TypeAlias

import msgspec
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from volspike.errors import UsageError
from volspike.feeds.connection import MARKET_HEADER, SIMULATED
from volspike.feeds.simulation.connection import CLOSE_TIMEOUT_S, SimulatedConnection
from volspike.feeds.simulation.faults import Fault, Faults, Injected, Injector, Item, Record, Sent
from volspike.feeds.simulation.market import Moment, Schedule, simulate_trades
from volspike.feeds.simulation.protocols import AdvancedTradeSpeaker, Day, ExchangeSpeaker, Speaker
from volspike.market import SECOND_NS, Ticks, format_time

LAST_NS = 2**63 - 1
_PRODUCT = re.compile(r"[A-Z0-9]+(-[A-Z0-9]+)+")
_Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class SimulatedExchangeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which market is simulated, how fast, where it listens, and what goes wrong.

    ``start`` is in ns UTC, ``None`` is now; after ``seconds`` of simulated time the market ends and connections are
    closed, 0 is never. Port 0 takes a free one. A client that is ``buffer_bytes`` behind is disconnected; at speed 0
    one that reads nothing for ``patience_s``. At speed 0 the market waits until each client has sent ``subscribes``
    subscribe messages, so that a run can be repeated frame by frame. The newest ``kept`` frames stay on record.
    With a ``head_start_s`` the market begins that much earlier and is told as at speed 0 until it has caught up: who
    listens has a past to look back on at once.
    """

    products: tuple[str, ...] = ("BTC-USD", "ETH-USD")
    seed: Annotated[int, msgspec.Meta(ge=0)] = 7
    speed: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    start: int | None = None
    head_start_s: Annotated[int, msgspec.Meta(ge=0)] = 0
    seconds: Annotated[int, msgspec.Meta(ge=0)] = 0
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    subscribe_within_s: _Positive = 5.0
    patience_s: _Positive = 5.0
    buffer_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 20
    subscribes: Annotated[int, msgspec.Meta(ge=1)] = 1
    compression: bool = True
    kept: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    faults: Faults = Faults()


def check(settings: SimulatedExchangeSettings) -> None:
    """Raises ``UsageError`` for what no market can be."""
    products = settings.products
    if not products or len(set(products)) < len(products) or not all(map(_PRODUCT.fullmatch, products)):
        raise UsageError(f"products must be different names like BTC-USD, were {', '.join(products) or 'none'}")
    if sum(settings.faults.rates) > 1:
        raise UsageError(f"the rates of faults add up to {sum(settings.faults.rates):g}; at most one strikes a frame")
    if settings.start is not None and not 0 <= settings.start <= LAST_NS - (settings.seconds + 86_400) * SECOND_NS:
        raise UsageError(f"the simulated market would run beyond what nanoseconds hold: start {settings.start}")


_HALF = b'{"channel":"ticker","timestamp":"2026-'


class FaultControls:
    """Each method strikes the connections that are open, or only number ``connection``, and returns how many.

    To be called in the exchange's event loop. Seconds of silence are simulated, those of a delay the wall's.
    """

    def __init__(
        self, standing: Faults, connections: Callable[[], Sequence[SimulatedConnection]], now: Callable[[], int]
    ) -> None:
        self._standing = standing
        self._connections = connections
        self._now = now

    @property
    def standing(self) -> Faults:
        """What goes wrong by itself; may be set, and holds from the next frame on."""
        return self._standing

    @standing.setter
    def standing(self, faults: Faults) -> None:
        if sum(faults.rates) > 1:
            raise UsageError(f"the rates of faults add up to {sum(faults.rates):g}; at most one strikes a frame")
        self._standing = faults

    def drop(self, frames: int = 1, connection: int | None = None) -> int:
        """The next frames are lost."""
        return self._order(Fault.DROP, frames, 0.0, connection)

    def delay(self, seconds: float, connection: int | None = None) -> int:
        """The next frame, and all behind it, waits."""
        return self._order(Fault.DELAY, 1, seconds, connection)

    def duplicate(self, frames: int = 1, connection: int | None = None) -> int:
        """The next frames come twice."""
        return self._order(Fault.DUPLICATE, frames, 0.0, connection)

    def reorder(self, connection: int | None = None) -> int:
        """The next frame comes after the one that follows it."""
        return self._order(Fault.REORDER, 1, 0.0, connection)

    def skip(self, numbers: int = 1, connection: int | None = None) -> int:
        """That many sequence numbers are never used."""
        return self._strike(lambda each: each.injector.skip(numbers, self._now()), connection)

    def silence(self, seconds: float, connection: int | None = None) -> int:
        """Nothing comes, and what would have come is lost."""
        return self._strike(lambda each: each.injector.silence(seconds, self._now()), connection)

    def close(self, code: int = 1001, reason: str = "", connection: int | None = None) -> int:
        """The connection ends behind what was said before; ``code`` 0 is without a close frame."""
        return self._strike(lambda each: each.injector.close(code, reason, self._now()), connection)

    def malformed(self, data: bytes = _HALF, connection: int | None = None) -> int:
        """A text frame of just these bytes."""
        return self._strike(lambda each: each.injector.malformed(data, self._now()), connection)

    def unknown(self, connection: int | None = None) -> int:
        """A message of a kind that no client knows."""
        return self._strike(lambda each: each.injector.unknown(self._now()), connection)

    def snapshot(self, product: str, size: int = 5_000_000, connection: int | None = None) -> int:
        """An order book's snapshot of at least ``size`` bytes."""
        return self._strike(lambda each: each.injector.book(product, size, self._now()), connection)

    def _struck(self, number: int | None) -> list[SimulatedConnection]:
        return [each for each in self._connections() if not each.has_ended and number in {None, each.number}]

    def _order(self, fault: Fault, times: int, amount: float, number: int | None) -> int:
        struck = self._struck(number)
        for each in struck:
            each.injector.order(fault, times, amount)
        return len(struck)

    def _strike(self, fault: Callable[[SimulatedConnection], list[Item]], number: int | None) -> int:
        struck = self._struck(number)
        for each in struck:
            each.push(fault(each), self._now())
        return len(struck)


PROTOCOLS = ("coinbase", "coinbase-exchange")
HISTORY_S = 60
"""How much of the market is past when the exchange opens: the snapshots tell of it."""

_MOMENTS_BETWEEN_YIELDS = 64
_MESSAGE_BYTES = 1 << 16


_LOG = logging.getLogger(__name__)
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False  # a client that breaks off in the handshake is no news


def _says_so(_socket: ServerConnection, _request: Request, response: Response) -> None:
    response.headers[MARKET_HEADER] = SIMULATED


class SimulatedExchange:
    """``async with SimulatedExchange(settings) as exchange:`` serves until the block ends.

    ``faults`` makes things go wrong on demand, ``sent`` and ``injected`` tell what did. All of it belongs to the
    event loop that opened it.

    Raises:
        UsageError: products that are no names, rates that add up to more than 1, a time that does not exist.
        OSError: the port cannot be listened on.
    """

    def __init__(self, settings: SimulatedExchangeSettings) -> None:
        check(settings)
        self.settings = settings
        self.record = Record(settings.kept)
        self.faults = FaultControls(settings.faults, lambda: list(self._connections), self._now)
        self.is_over = asyncio.Event()
        """Set when the market has ended after its ``seconds``."""
        self.now = 0
        """Simulated time, ns UTC, of what happened last."""
        self.connected = 0
        """How many connections there were."""
        self._connections: list[SimulatedConnection] = []
        self._days = {product: Day() for product in settings.products}
        self._stirred = asyncio.Event()
        self._server: Server | None = None
        self._market: asyncio.Task[None] | None = None
        self._passing: AsyncGenerator[Moment, None]
        self._start = self._begun = self._live_from = 0

    @property
    def sent(self) -> tuple[Sent, ...]:
        """The newest frames, lost ones included, in the order in which they were made."""
        return tuple(self.record.sent)

    @property
    def injected(self) -> tuple[Injected, ...]:
        """The newest faults in their order."""
        return tuple(self.record.injected)

    def url(self, protocol: str = "coinbase") -> str:
        """Where a protocol is spoken: ``coinbase`` (Advanced Trade) or ``coinbase-exchange``."""
        if protocol not in PROTOCOLS:
            raise UsageError(f"no such protocol: {protocol!r}; there are {' and '.join(PROTOCOLS)}")
        if self._server is None:
            raise UsageError("the simulated exchange is not open")
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return f"ws://{f'[{host}]' if ':' in host else host}:{port}/{protocol}"

    async def __aenter__(self) -> Self:
        settings = self.settings
        head_start = settings.head_start_s * SECOND_NS
        self._start = time.time_ns() - head_start if settings.start is None else settings.start
        self._start -= self._start % 1000  # as fine as the trades are timed
        self._live_from = self._start + head_start
        self.now = self._start
        await self._past()
        try:
            self._server = await self._listening()
        except OSError:
            await self._passing.aclose()
            raise
        self._market = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None or self._market is None:
            return
        if self.is_over.is_set():
            await self._emptied()
        for connection in list(self._connections):
            connection.end(1001, "going away", self.now)
        self._server.close()
        await self._server.wait_closed()
        self._market.cancel()
        with suppress(asyncio.CancelledError):
            await self._market

    async def _listening(self) -> Server:
        settings = self.settings
        return await serve(
            self._accept,
            settings.host,
            settings.port,
            compression="deflate" if settings.compression else None,
            process_request=self._found,
            process_response=_says_so,
            ping_interval=None,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=_MESSAGE_BYTES,
            logger=_LOG,
        )

    async def _emptied(self) -> None:
        """Lets clients hear a market that is over to its end, if they read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._connections:
                    self._stirred.clear()
                    await self._stirred.wait()

    def _now(self) -> int:
        return self.now

    def _found(self, socket: ServerConnection, request: Request) -> Response | None:
        """Lets the protocols' paths through, and tells the time (as Coinbase's REST does) and what there is."""
        path = request.path.removeprefix("/")
        if path in PROTOCOLS:
            return None
        if path == "time":
            told = self._time()
            return socket.respond(200, f'{{"iso":"{format_time(told)}","epoch":{told / SECOND_NS:.3f}}}\n')
        return socket.respond(404, f"There are {' and '.join(f'/{name}' for name in (*PROTOCOLS, 'time'))}.\n")

    def _time(self) -> int:
        """Simulated time, ns UTC; between two moments of the market it passes by the wall's clock."""
        speed = self.settings.speed
        passed = round((time.monotonic_ns() - self._begun) * speed)
        return max(self.now, self._live_from + passed) if speed else self.now

    async def _accept(self, socket: ServerConnection) -> None:
        self.connected += 1
        number = self.connected
        speaker: Speaker = ExchangeSpeaker(self._days)
        if socket.request is not None and socket.request.path == f"/{PROTOCOLS[0]}":
            speaker = AdvancedTradeSpeaker(self._days, self._start)
        injector = Injector(number, speaker, self.record, lambda: self.faults.standing, self.settings.seed, self.now)
        connection = SimulatedConnection(
            number,
            socket,
            speaker,
            injector,
            self.record,
            buffer_bytes=self.settings.buffer_bytes,
            stir=self._stirred.set,
        )
        self._connections.append(connection)
        try:
            if self.is_over.is_set():
                connection.end(1000, "the simulated market is over", self.now)
            await connection.serve(self.settings.subscribe_within_s, self._now)
        finally:
            self._connections.remove(connection)
            self._stirred.set()

    async def _past(self) -> None:
        """Simulates what has passed when the exchange opens."""
        self._begun = time.monotonic_ns()
        begin = self._start - HISTORY_S * SECOND_NS
        seconds = HISTORY_S + (self.settings.seconds or (LAST_NS - self._start) // SECOND_NS)
        ticks = simulate_trades(self.settings.products, seconds, self.settings.seed, begin)
        self._passing = _ahead(ticks, begin, begin + seconds * SECOND_NS)
        async for moment in self._passing:
            self._happen(moment)
            if moment.time >= self._start:
                return

    async def _run(self) -> None:
        """The market: everything at its time, to the end."""
        told = 0
        async with aclosing(self._passing) as passing:
            async for moment in passing:
                told += 1
                await self._turn(moment.time, told)
                self._happen(moment)
        self.is_over.set()
        for connection in list(self._connections):
            connection.push(connection.injector.close(1000, "the simulated market is over", self.now), self.now)

    async def _turn(self, moment: int, told: int) -> None:
        """Waits until it is ``moment``: by the wall's clock, or at speed 0 by the clients."""
        speed = self.settings.speed
        if speed and moment >= self._live_from:
            await self._due(self._begun + (moment - self._live_from) / speed)
        else:
            await self._readers()
        if told % _MOMENTS_BETWEEN_YIELDS == 0:
            await asyncio.sleep(0)
        self.now = moment

    def _happen(self, moment: Moment) -> None:
        trade, now = moment.trade, moment.time
        if trade is not None:
            self._days[trade.product_id].take(trade)
        for connection in list(self._connections):
            if connection.has_ended:
                continue
            speaker = connection.speaker
            if trade is not None:
                connection.say(speaker.trade(trade), now)
                continue
            connection.say(speaker.quarter(now), now)
            if moment.is_second:
                connection.say(speaker.second(now), now)
            connection.push(connection.injector.periodic(self.settings.products[0], now), now)

    async def _due(self, wall_ns: float) -> None:
        """Waits until the wall's clock is there; a market that the machine is too slow for runs late, not thinner."""
        ahead = wall_ns - time.monotonic_ns()
        if ahead > 0:
            await asyncio.sleep(ahead / SECOND_NS)

    async def _readers(self) -> None:
        """Waits until somebody listens and everybody keeps up."""
        while not self._is_read():
            self._stirred.clear()
            slow = [connection for connection in self._connections if not connection.has_room]
            try:
                async with asyncio.timeout(self.settings.patience_s if slow else None):
                    await self._stirred.wait()
            except TimeoutError:
                for connection in slow:
                    if not connection.has_room:
                        connection.expel(self.now)

    def _is_read(self) -> bool:
        open_now = [connection for connection in self._connections if not connection.has_ended]
        asked = self.settings.subscribes
        return bool(open_now) and all(each.has_room and each.speaker.asked >= asked for each in open_now)


async def _ahead(chunks: Iterator[Ticks], begin: int, end: int) -> AsyncGenerator[Moment, None]:
    """The market's moments; the next ten minutes are simulated in a thread while these pass."""
    schedule = Schedule(begin)
    coming = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
    try:
        while (ticks := await coming) is not None:
            coming = asyncio.ensure_future(asyncio.to_thread(next, chunks, None))
            for moment in schedule.moments(ticks):
                yield moment
        for moment in schedule.until(end):
            yield moment
    finally:
        coming.cancel()
