"""The simulated exchange: a seeded market behind a real websocket server with the protocols of five venues.

It is for tests, demonstrations and machines without access to an exchange. It has no traders and no order book; the
score of a model on it says nothing about a real market. Of the limits of the venues, those of ``ConnectionRules`` are
enforced; order books beyond the best quotes, and Coinbase's ``ticker_batch``, are not available.

The first part of a path selects the protocol, the rest belongs to it: ``/binance/stream?streams=btcusdt@trade``. All
protocols show the same market: the same trades with the same ids, whose times are cut to the unit of the venue, and the
same best quotes. A product has our name, such as ``BTC-USD`` or ``kraken:BTC-USDT``, and is traded on every venue under
the venue's symbol.
Only Advanced Trade numbers its messages. On the other protocols a fault of the numbers (skip, reset) is one of the
sequence numbers (Coinbase Exchange) or of the trade ids, as this connection receives them.

There are two clocks. The market runs on simulated time, which starts at ``start`` (default: now) and passes ``speed``
times as fast as the wall clock; every time in a message is simulated. At speed 1 these times are the present; at speed
60 they start at the present and gain 59 s every second. At speed 0 the market ignores the wall clock: it goes on as
fast as all clients read and pauses while none is subscribed. Deadlines of a connection (to subscribe, its lifetime,
closing) are in wall time at every speed.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from http import HTTPStatus
from types import TracebackType
from typing import Annotated, Final, Self, TypeAlias

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from volspike.errors import UsageError
from volspike.feeds.connection import MARKET_HEADER, SIMULATED
from volspike.feeds.simulation.binance_server import BinanceServer
from volspike.feeds.simulation.bybit_server import BybitServer
from volspike.feeds.simulation.client import CLOSE_TIMEOUT_S, Deadlines, SimulatedConnection, answer_pings_if
from volspike.feeds.simulation.coinbase_server import AdvancedTradeServer, ExchangeServer
from volspike.feeds.simulation.controls import FaultControls
from volspike.feeds.simulation.faults import Faults, Injected, Injector, Record, Sent
from volspike.feeds.simulation.kraken_server import KrakenServer
from volspike.feeds.simulation.market import Moment, Schedule, simulate_trades
from volspike.feeds.simulation.okx_server import OkxServer
from volspike.feeds.simulation.protocols import Handshake, ProductDay, ServerProtocol
from volspike.market import SECOND_NS, Ticks, format_time
from volspike.market.product import split_product

LAST_NS = 2**63 - 1
_PRODUCT = re.compile(r"[A-Z0-9]+(-[A-Z0-9]+)+")
_FIRST_PART = re.compile(r"[^/?]*")
_Positive: TypeAlias = Annotated[float, msgspec.Meta(gt=0)]


class SimulatedExchangeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The market, its speed, the address to listen on, and the faults.

    ``start`` is in ns UTC, None is now. After ``seconds`` of simulated time the market ends and connections are
    closed; 0 is never. Port 0 takes a free one. A client that is ``buffer_bytes`` behind is disconnected, at speed 0
    also one that reads nothing for ``patience_s``. At speed 0 the market begins with ``clients`` clients, and waits
    until each has sent ``subscribes`` subscribe messages, so that a run can be repeated frame by frame; it does not
    wait for more than a complete subscription has: 3 on Advanced Trade, 2 on Kraken, otherwise 1. The newest ``kept``
    frames are recorded. With ``head_start_s`` the market starts that much earlier and runs as at speed 0 until it has
    caught up, so that a client has past data at once.

    The deadlines apply to the protocols whose venue has them, in wall time: Coinbase disconnects a client that does not
    subscribe in ``subscribe_within_s``; Binance ends a connection after ``lifetime_s``, sends a ping every
    ``ping_every_s`` and expects the pong in ``pong_within_s``; OKX disconnects a client to which it sent nothing for
    ``traffic_within_s``. A shutdown on demand is announced ``shutdown_notice_s`` before.
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
    lifetime_s: _Positive = 86_400.0
    ping_every_s: _Positive = 20.0
    pong_within_s: _Positive = 60.0
    traffic_within_s: _Positive = 30.0
    shutdown_notice_s: Annotated[float, msgspec.Meta(ge=0)] = 600.0
    patience_s: _Positive = 5.0
    buffer_bytes: Annotated[int, msgspec.Meta(ge=1)] = 16 << 20
    subscribes: Annotated[int, msgspec.Meta(ge=1)] = 1
    clients: Annotated[int, msgspec.Meta(ge=1)] = 1
    compression: bool = True
    kept: Annotated[int, msgspec.Meta(ge=0)] = 20_000
    faults: Faults = Faults()


def check_settings(settings: SimulatedExchangeSettings) -> None:
    """Raise ``UsageError`` for an impossible market."""
    products = settings.products
    symbols = [split_product(name)[1] for name in products]
    if not products or len(set(products)) < len(products) or not all(map(_PRODUCT.fullmatch, symbols)):
        raise UsageError(f"products must be different names like BTC-USD, got {', '.join(products) or 'none'}")
    if sum(settings.faults.rates) > 1:
        raise UsageError(f"the rates of faults add up to {sum(settings.faults.rates):g}; the most is 1")
    if settings.start is not None and not 0 <= settings.start <= LAST_NS - (settings.seconds + 86_400) * SECOND_NS:
        raise UsageError(f"the simulated market would end outside 1970 to 2262: start {settings.start}")


SERVERS: Final[Mapping[str, Callable[[Handshake], ServerProtocol]]] = {
    "coinbase": AdvancedTradeServer,
    "coinbase-exchange": ExchangeServer,
    "binance": BinanceServer,
    "kraken": KrakenServer,
    "okx": OkxServer,
    "bybit": BybitServer,
}
"""The server's side of each protocol, by the values of ``FeedSettings.protocol``."""

PROTOCOLS = tuple(SERVERS)
_TARGETS: Final = {"binance": "/stream?timeUnit=MICROSECOND"}
"""What the address of a protocol needs so that its streams are combined and its times as fine as they can be."""
HISTORY_S = 60
"""The length of the market's past when the exchange opens; snapshots contain it."""

_MOMENTS_BETWEEN_YIELDS = 64
_MESSAGE_BYTES = 1 << 16


_LOG = logging.getLogger(__name__)
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False  # a client that breaks off in the handshake is not worth a log line


def _mark_simulated(_socket: ServerConnection, _request: Request, response: Response) -> None:
    response.headers[MARKET_HEADER] = SIMULATED


class SimulatedExchange:
    """Serves within ``async with SimulatedExchange(settings) as exchange:``.

    ``faults`` injects faults on demand; ``sent`` and ``injected`` are the newest frames and faults. Use it only in the
    event loop that opened it.

    Raises:
        UsageError: invalid product names, fault rates that add up to more than 1, or a time out of range.
        OSError: the port is not available.
    """

    def __init__(self, settings: SimulatedExchangeSettings) -> None:
        check_settings(settings)
        self.settings = settings
        self.record = Record(settings.kept)
        self.faults = FaultControls(
            settings.faults, lambda: list(self._connections), self._now, settings.shutdown_notice_s
        )
        self.is_over = asyncio.Event()
        """Set when the market has ended, after ``settings.seconds``."""
        self.now = 0
        """The simulated time, ns UTC, of the last event."""
        self.connected = 0
        """The number of connections so far."""
        self._connections: list[SimulatedConnection] = []
        self._awaited = settings.clients
        self.products = tuple(dict.fromkeys(split_product(name)[1] for name in settings.products))
        """The products by our name without a venue; each is traded on every venue."""
        self._days = {product: ProductDay() for product in self.products}
        self._deadlines = Deadlines(
            settings.subscribe_within_s,
            settings.lifetime_s,
            settings.ping_every_s,
            settings.pong_within_s,
            settings.traffic_within_s,
        )
        self._changed = asyncio.Event()
        self._server: Server | None = None
        self._market: asyncio.Task[None] | None = None
        self._moments: AsyncGenerator[Moment, None]
        self._start = self._begun = self._live_from = 0

    @property
    def sent(self) -> tuple[Sent, ...]:
        """The newest frames, including lost ones, in the order of creation."""
        return tuple(self.record.sent)

    @property
    def injected(self) -> tuple[Injected, ...]:
        """The newest faults, in order."""
        return tuple(self.record.injected)

    def url(self, protocol: str = "coinbase") -> str:
        """The url of a protocol in ``PROTOCOLS``; ``coinbase`` is Advanced Trade."""
        if protocol not in PROTOCOLS:
            raise UsageError(f"unknown protocol {protocol!r}; give {' or '.join(PROTOCOLS)}")
        if self._server is None:
            raise UsageError("the simulated exchange is not open")
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return f"ws://{f'[{host}]' if ':' in host else host}:{port}/{protocol}{_TARGETS.get(protocol, '')}"

    async def __aenter__(self) -> Self:
        settings = self.settings
        head_start = settings.head_start_s * SECOND_NS
        if settings.start is not None:
            self._start, self._live_from = settings.start, settings.start + head_start
        else:
            self._start = self._live_from = time.time_ns()
            if head_start:  # begins with a second, so that the rows of a seed are the same in each run
                self._start -= head_start + self._start % SECOND_NS
        self._start -= self._start % 1000  # trades have times in microseconds
        self.now = self._start
        await self._simulate_past()
        try:
            self._server = await self._serve()
        except OSError:
            await self._moments.aclose()
            raise
        self._market = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is None or self._market is None:
            return
        if self.is_over.is_set():
            await self._wait_for_clients()
        for connection in list(self._connections):
            connection.end(1001, "going away", self.now)
        self._server.close()
        await self._server.wait_closed()
        self._market.cancel()
        with suppress(asyncio.CancelledError):
            await self._market

    async def _serve(self) -> Server:
        settings = self.settings
        return await serve(
            self._accept,
            settings.host,
            settings.port,
            compression="deflate" if settings.compression else None,
            process_request=self._route,
            process_response=_mark_simulated,
            ping_interval=None,
            close_timeout=CLOSE_TIMEOUT_S,
            max_size=_MESSAGE_BYTES,
            logger=_LOG,
        )

    async def _wait_for_clients(self) -> None:
        """Give clients that read the time to receive the end of a market."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                while self._connections:
                    self._changed.clear()
                    await self._changed.wait()

    def _now(self) -> int:
        return self.now

    def _route(self, socket: ServerConnection, request: Request) -> Response | None:
        """Accept the paths of the protocols; answer ``/time`` as Coinbase's REST API does, and 404 to the rest."""
        path = _split_target(request.path)[0]
        if path in SERVERS:
            return self._refuse_handshake(socket)
        if path == "time":
            now = self._time()
            return socket.respond(200, f'{{"iso":"{format_time(now)}","epoch":{now / SECOND_NS:.3f}}}\n')
        return socket.respond(404, f"There are {' and '.join(f'/{name}' for name in (*PROTOCOLS, 'time'))}.\n")

    def _refuse_handshake(self, socket: ServerConnection) -> Response | None:
        seconds = self.faults.retry_after_s
        if not seconds:
            return None
        response = socket.respond(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests.\n")
        response.headers["Retry-After"] = str(seconds)
        return response

    def _time(self) -> int:
        """Simulated time, ns UTC; between two events of the market it follows the wall clock."""
        speed = self.settings.speed
        passed = round((time.monotonic_ns() - self._begun) * speed)
        return max(self.now, self._live_from + passed) if speed else self.now

    def _is_real_time(self, now: int) -> bool:
        """Whether the simulated time ``now`` is that of the wall clock."""
        return self.settings.start is None and self.settings.speed == 1 and now >= self._live_from

    async def _accept(self, socket: ServerConnection) -> None:
        self.connected += 1
        number = self.connected
        answer_pings_if(socket, lambda: self.faults.answers_pings)
        name, target = _split_target("/" if socket.request is None else socket.request.path)
        protocol = SERVERS[name](
            Handshake(number, target, self._start, self._days, self.faults.rejected, self._is_real_time)
        )
        injector = Injector(number, protocol, self.record, lambda: self.faults.automatic, self.settings.seed, self.now)
        connection = SimulatedConnection(
            number,
            socket,
            protocol,
            injector,
            self.record,
            buffer_bytes=self.settings.buffer_bytes,
            deadlines=self._deadlines,
            answers_pings=lambda: self.faults.answers_pings,
            notify=self._changed.set,
        )
        self._connections.append(connection)
        try:
            if self.is_over.is_set():
                connection.end(1000, "the simulated market is over", self.now)
            await connection.serve(self._now)
        finally:
            self._connections.remove(connection)
            self._changed.set()

    async def _simulate_past(self) -> None:
        """Simulate the market up to its start."""
        self._begun = time.monotonic_ns()
        begin = self._start - HISTORY_S * SECOND_NS
        seconds = HISTORY_S + (self.settings.seconds or (LAST_NS - self._start) // SECOND_NS)
        ticks = simulate_trades(self.products, seconds, self.settings.seed, begin)
        self._moments = _simulate_ahead(ticks, begin, begin + seconds * SECOND_NS)
        async for moment in self._moments:
            self._dispatch(moment)
            if moment.time >= self._start:
                return

    async def _run(self) -> None:
        """Run the market to its end, each event at its time; after an error disconnect all clients and raise it."""
        count = 0
        try:
            async with aclosing(self._moments) as moments:
                async for moment in moments:
                    count += 1
                    await self._wait_until(moment.time, count)
                    self._dispatch(moment)
        except Exception:
            structlog.get_logger(__name__).exception("simulated_market_failed")
            self.is_over.set()
            for connection in list(self._connections):
                connection.end(1011, "the simulated market failed", self.now)
            raise
        self.is_over.set()
        for connection in list(self._connections):
            connection.push(connection.injector.close(1000, "the simulated market is over", self.now), self.now)

    async def _wait_until(self, moment: int, count: int) -> None:
        """Wait for ``moment`` on the wall clock, or at speed 0 for the clients."""
        speed = self.settings.speed
        if speed and moment >= self._live_from:
            await self._wait_for_clock(self._begun + (moment - self._live_from) / speed)
        else:
            await self._wait_for_readers()
        if count % _MOMENTS_BETWEEN_YIELDS == 0:
            await asyncio.sleep(0)
        self.now = moment

    def _dispatch(self, moment: Moment) -> None:
        trade, now = moment.trade, moment.time
        if trade is None:
            requoted = [product for product, day in self._days.items() if day.requote(now)]
        else:
            requoted = [trade.product_id] if self._days[trade.product_id].add(trade) else []
        for connection in list(self._connections):
            if connection.has_ended:
                continue
            protocol = connection.protocol
            if trade is not None:
                connection.send(protocol.trade_frames(trade), now)
            for product in requoted:
                connection.send(protocol.quote_frames(product, now), now)
            if trade is not None:
                continue
            connection.send(protocol.quarter_frames(now), now)
            if moment.is_second:
                connection.send(protocol.second_frames(now), now)
            connection.push(connection.injector.periodic(self.products[0], now), now)

    async def _wait_for_clock(self, wall_ns: float) -> None:
        """Wait until the wall clock shows ``wall_ns``; on a slow machine the market runs late and loses nothing."""
        ahead = wall_ns - time.monotonic_ns()
        if ahead > 0:
            await asyncio.sleep(ahead / SECOND_NS)

    async def _wait_for_readers(self) -> None:
        """Wait until there is a client and all clients keep up."""
        while not self._is_read():
            self._changed.clear()
            slow = [connection for connection in self._connections if not connection.has_room]
            try:
                async with asyncio.timeout(self.settings.patience_s if slow else None):
                    await self._changed.wait()
            except TimeoutError:
                for connection in slow:
                    if not connection.has_room:
                        connection.disconnect_slow(self.now)

    def _is_read(self) -> bool:
        open_now = [connection for connection in self._connections if not connection.has_ended]
        if len(open_now) < self._awaited or not all(
            each.has_room and self._has_subscribed(each.protocol) for each in open_now
        ):
            return False
        self._awaited = 1  # one that reconnects later does not hold up the others
        return True

    def _has_subscribed(self, protocol: ServerProtocol) -> bool:
        return protocol.subscribes >= min(self.settings.subscribes, protocol.most_subscribes)


def _split_target(target: str) -> tuple[str, str]:
    """The protocol and the rest of the target of a request.

    >>> _split_target("/binance/stream?streams=btcusdt@trade")
    ('binance', '/stream?streams=btcusdt@trade')
    """
    name = _FIRST_PART.match(target.removeprefix("/"))
    assert name is not None  # noqa: S101  the pattern matches the empty text
    return name[0], target.removeprefix("/")[name.end() :]


async def _simulate_ahead(chunks: Iterator[Ticks], begin: int, end: int) -> AsyncGenerator[Moment, None]:
    """The events of the market; a thread simulates the next ten minutes while these are served."""
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
