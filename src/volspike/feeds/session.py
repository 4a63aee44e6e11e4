"""One live session with an exchange: connects, asks, listens, and connects again, until it is closed.

Owns the socket and the clock. What frames say is the codecs' business, what is missing is decided in ``intake``
(at the socket, undecoded) and ``interpreter`` (at the reader), with the bounded ``inbox`` between them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from random import SystemRandom
from typing import NoReturn, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.backoff import Backoff, Pace
from volspike.feeds.connection import address_of, close, is_simulated, opened, why
from volspike.feeds.event_stream import EventStream
from volspike.feeds.feed_protocol import PROTOCOLS
from volspike.feeds.inbox import AckDue, Inbox
from volspike.feeds.intake import Intake
from volspike.feeds.interpreter import Interpreter
from volspike.feeds.session_events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState, FeedStats
from volspike.feeds.subscription import names_of
from volspike.feeds.vigil import Vigil, between_looks_s

__all__ = ["FeedError", "FeedEvent", "FeedFault", "FeedFrame", "FeedSession", "FeedState", "FeedStats"]

CONNECTIONS_PER_S = 8
MESSAGES_PER_S = 8
SUBSCRIBE_WITHIN_S = 5.0
"""Coinbase's limits for those who do not log in: per address, and from connecting to having subscribed."""

_FRAMES_PER_TURN = 64
_OTHER_MARKET = {
    True: "not listened to: a simulated exchange was here before, and this is none; start again if that is meant",
    False: "not listened to: a simulated exchange, where a real one was expected; start again if that is meant",
}
_JITTER = SystemRandom().random


class FeedSession:
    """Listens to ``settings.products`` from the call of ``events`` until it is closed; one use, one reader.

        async with FeedSession(FeedSettings(products=("BTC-USD",))) as session:
            async for event in session.events():
                ...

    Nothing that the exchange or the network does ends it. ``simulated`` says which kind of market is expected: what
    turns out to be of the other kind is not listened to; None takes either. ``jitter`` draws the share of each wait
    from [0, 1).

    Raises:
        UsageError: the url is none of a websocket.
    """

    def __init__(
        self, settings: FeedSettings, *, simulated: bool | None = None, jitter: Callable[[], float] = _JITTER
    ) -> None:
        protocol = PROTOCOLS[settings.protocol]
        self.settings = settings
        self.url = settings.url or protocol.url
        self._simulated = simulated
        self._address = address_of(self.url)
        self._requests = protocol.subscribe(settings)
        self._inbox = Inbox(settings.queue_frames, settings.queue_bytes)
        self._intake = Intake(settings, protocol, self._inbox)
        self._interpreter = Interpreter(protocol, protocol.asked(settings), names_of(settings.products))
        self._backoff = Backoff(settings.backoff_min_s, settings.backoff_max_s, jitter)
        self._connections = Pace(CONNECTIONS_PER_S)
        self._messages = Pace(MESSAGES_PER_S)
        self._look_every_s = between_looks_s(
            settings.heartbeat_timeout_s, settings.idle_timeout_s, settings.ack_timeout_s
        )
        self._attempt = 0
        self._has_lasted = False
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    @property
    def stats(self) -> FeedStats:
        """The figures at this moment."""
        intake, told = self._intake, self._interpreter
        return FeedStats(
            frames=intake.frames,
            bytes=intake.bytes,
            ticks=told.ticks,
            malformed=told.malformed,
            errors=told.errors,
            ignored=told.ignored.copy(),
            connections=told.connections,
            reconnects=max(told.connections - 1, 0),
            gaps=told.gaps,
            lost=intake.lost,
            repeated=intake.repeated,
            overflows=self._inbox.let_go,
            queued=self._inbox.frames,
            last_received=intake.last_received,
            latency_ns=told.latency_ns,
        )

    async def aclose(self) -> None:
        """Stop listening and wait until the socket is closed; what is queued can still be read."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})

    def events(self) -> AsyncIterator[FeedEvent]:
        """What the session tells, in order, until it is closed; listening begins here, in the running event loop.

        Giving up to wait for the next event (a timeout, a cancelled task) loses none and closes nothing.

        Raises:
            UsageError: somebody iterates, or has iterated, already.
        """
        if self._task is not None:
            raise UsageError("a session's events can be read once; make a new session to listen again")
        self._task = asyncio.create_task(self._listen(), name=f"listen to {self.url}")
        self._task.add_done_callback(lambda _: self._news.set())
        return EventStream(self._inbox, self._interpreter, self._news, self._task)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._connections.delay_s(loop.time()))
            self._attempt += 1
            reason = await self._connect()
            self._tell(is_connected=False, reason=reason)
            if self._has_lasted:
                self._has_lasted = False
                self._attempt = 0
                self._backoff.reset()
            await asyncio.sleep(self._backoff.delay_s())

    async def _connect(self) -> str:
        """One connection from its first to its last moment; why it ended, or why there was none."""
        try:
            connection = await opened(self._address, self.url, self.settings)
        except (OSError, WebSocketException) as error:  # a timeout is an OSError
            return f"cannot connect: {error}"
        try:
            if self._simulated is not None and is_simulated(connection) != self._simulated:
                return _OTHER_MARKET[self._simulated]
            return await self._converse(connection)
        finally:
            await close(connection)

    async def _converse(self, connection: ClientConnection) -> str:
        loop = asyncio.get_running_loop()
        connected = loop.time()
        late = f"not subscribed within {SUBSCRIBE_WITHIN_S:g} s"
        self._intake.begin(time.time_ns())
        try:
            async with asyncio.timeout(SUBSCRIBE_WITHIN_S) as limit:
                await self._subscribe(connection)
                limit.reschedule(None)
                late = f"nothing came for {self.settings.idle_timeout_s:g} s"
                with Vigil(self._looks(loop.time()), limit, self._look_every_s):
                    await self._read(connection)
        except TimeoutError:
            return f"{late}: the connection was given up"
        except ConnectionClosed as closed:
            return why(closed)
        finally:
            self._has_lasted = loop.time() - connected >= self.settings.lasting_s

    async def _subscribe(self, connection: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        for request in self._requests:
            await asyncio.sleep(self._messages.delay_s(loop.time()))
            await connection.send(request)
        self._tell(is_connected=True, reason="subscribed")

    async def _read(self, connection: ClientConnection) -> NoReturn:
        """Take frames as they come; nothing here waits for whoever reads them."""
        receive, arrive, now, announce = connection.recv, self._intake.arrive, time.time_ns, self._news.set
        while True:
            for _ in range(_FRAMES_PER_TURN):
                data = await receive(decode=False)
                arrive(now(), data)
                announce()
            await asyncio.sleep(0)  # frames that are there already are taken without a pause: let others in

    def _looks(self, subscribed: float) -> Callable[[], bool]:
        """What is looked at while a connection lasts; true when it is to be given up."""
        loop = asyncio.get_running_loop()
        ack_due = [subscribed + self.settings.ack_timeout_s]

        def look() -> bool:
            now = time.time_ns()
            if ack_due and loop.time() >= ack_due[0]:
                ack_due.clear()
                self._inbox.note(AckDue(now))
            is_idle = self._intake.look(now)
            self._news.set()
            return is_idle

        return look

    def _tell(self, *, is_connected: bool, reason: str) -> None:
        state = FeedState(
            received=time.time_ns(), is_connected=is_connected, reason=reason, url=self.url, attempt=self._attempt
        )
        self._inbox.note(state)
        self._news.set()
