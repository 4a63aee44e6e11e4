"""A look, now and then, at a connection that may have fallen silent; costs a frame nothing.

The side of a session that faces its user: decodes what the inbox holds and tells what it means.

Reading a session: entries of the inbox, as they come, become events.

One live session with an exchange: connects, asks, listens, and connects again, until it is closed.

Owns the socket and the clock. What frames say is the codecs' business, what is missing is decided in ``intake``
(at the socket, undecoded) and ``interpreter`` (at the reader), with the bounded ``inbox`` between them.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from random import SystemRandom
from typing import NoReturn, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from volspike.config import FeedSettings
from volspike.errors import MalformedTick, UsageError
from volspike.feeds.connection import Backoff, Pace, address_of, close, is_simulated, opened, why
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState, FeedStats, Frame
from volspike.feeds.inbox import AckDue, Arrival, Entry, Inbox, Intake, Overflow
from volspike.feeds.protocol import PROTOCOLS, FeedProtocol, Subscription, names_of
from volspike.market import Cause, Gap

_MOST_BETWEEN_S = 1.0
_LEAST_BETWEEN_S = 0.005


def between_looks_s(*timeouts_s: float) -> float:
    """How often to look so that each timeout is noticed within a tenth of it, and within a second.

    >>> between_looks_s(10.0, 5.0)
    0.5
    """
    return max(min(_MOST_BETWEEN_S, *(timeout / 10 for timeout in timeouts_s)), _LEAST_BETWEEN_S)


class Vigil:
    """Calls ``look`` every ``every_s`` while the context lasts; once it says true, ``limit`` runs out at once.

    ``limit`` is the ``asyncio.timeout`` around the context. A look that would come late, because the event loop was
    kept busy, is put off once: frames may wait in the socket that nobody could take, and that is no silence.
    """

    def __init__(self, look: Callable[[], bool], limit: asyncio.Timeout, every_s: float) -> None:
        self._look = look
        self._limit = limit
        self._every_s = every_s
        self._was_late = False
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._step)

    def _step(self) -> None:
        is_late = self._loop.time() > self._timer.when() + self._every_s
        self._was_late = is_late and not self._was_late
        if not self._was_late and self._look():
            self._limit.reschedule(self._loop.time())
        else:
            self._wait()


class Interpreter:
    """Entries of the inbox in order → events in order.

    Keeps what stretches over frames: what was granted, and since when a lost connection has told nothing.
    """

    def __init__(self, protocol: FeedProtocol, asked: Mapping[str, Set[str]], products: tuple[str, ...]) -> None:
        self._decode = protocol.decode
        self._asked = asked
        self._products = products
        self._subscription = Subscription(asked)
        self._last = 0
        self._absent_since = 0
        self.ticks = self.malformed = self.errors = self.connections = self.gaps = self.latency_ns = 0
        self.ignored: Counter[str] = Counter()

    def read(self, entry: Entry) -> Sequence[FeedEvent]:
        """What an entry tells; a gap stands before the frame that ends it."""
        if isinstance(entry, Arrival):
            return self._arrival(entry)
        if isinstance(entry, Overflow):
            self._last = entry.end
            return self._counted(entry.gaps(self._products))
        if isinstance(entry, Gap):
            return self._counted([entry])
        if isinstance(entry, AckDue):
            return self._ack_due(entry)
        return (self._state(entry),)

    def end(self, now: int) -> Sequence[FeedEvent]:
        """What is still to be told when nothing more comes: an absence that goes on."""
        return self._counted([self._absence(now)]) if self._absent_since else ()

    def _arrival(self, arrival: Arrival) -> Sequence[FeedEvent]:
        received, data = arrival.received, arrival.data
        self._last = received
        try:
            frame = self._decode(data, received)
        except MalformedTick as error:
            self.malformed += 1
            return (FeedFault(received, data, error),)
        if frame.ticks:
            self.ticks += len(frame.ticks)
            self.latency_ns = received - frame.ticks[-1].time
        elif frame.ignored is not None:
            self.ignored[frame.ignored] += 1
        if not self._subscription.is_granted:
            self._subscription.see(frame)
        event = FeedFrame(received, data, frame)
        if self._absent_since and frame.ticks:
            return (*self._counted([self._absence(received)]), event)
        return (event,) if frame.error is None else (event, self._refusal(frame, received))

    def _refusal(self, frame: Frame, received: int) -> FeedError:
        self.errors += 1
        error = frame.error
        told = ": ".join(filter(None, (error.message, error.reason))) if error else ""
        return FeedError(received=received, reason=f"the exchange answers: {told or 'error'}")

    def _ack_due(self, due: AckDue) -> Sequence[FeedEvent]:
        missing = self._subscription.missing()
        self._subscription = Subscription({})
        if not missing:
            return ()
        self.errors += 1
        told = "; ".join(" ".join((channel, *products)) for channel, products in missing.items())
        products = tuple(sorted({product for products in missing.values() for product in products}))
        return (FeedError(received=due.received, reason=f"asked and not acknowledged: {told}", products=products),)

    def _state(self, state: FeedState) -> FeedState:
        if state.is_connected:
            self.connections += 1
            self._subscription = Subscription(self._asked)
        elif not self._absent_since:
            self._absent_since = self._last
        return state

    def _absence(self, end: int) -> Gap:
        start, self._absent_since = self._absent_since, 0
        return Gap(start=start, end=max(start, end), products=self._products, cause=Cause.RECONNECT)

    def _counted(self, gaps: list[Gap]) -> list[Gap]:
        self.gaps += len(gaps)
        return gaps


_EVENTS_PER_TURN = 64


class EventStream:
    """The events of a session whose task is ``listening``; ends when that has and all is read.

    An object and no generator, so that whoever breaks off an iteration leaves nothing behind that has to be ended.
    """

    def __init__(
        self, inbox: Inbox, interpreter: Interpreter, news: asyncio.Event, listening: asyncio.Task[None]
    ) -> None:
        self._inbox = inbox
        self._interpreter = interpreter
        self._news = news
        self._listening = listening
        self._told: deque[FeedEvent] = deque()
        self._turn = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedEvent:
        self._turn += 1
        if self._turn % _EVENTS_PER_TURN == 0:  # a full queue must not keep the socket and others waiting
            await asyncio.sleep(0)
        while not self._told:
            entry = self._inbox.take()
            if entry is not None:
                self._told.extend(self._interpreter.read(entry))
            elif not self._listening.done():
                self._news.clear()
                await self._news.wait()
            else:
                self._end()
        return self._told.popleft()

    def _end(self) -> None:
        """Tell what is still open, then stop; an error that ended the listening is raised here."""
        self._told.extend(self._interpreter.end(time.time_ns()))
        if not self._told:
            if not self._listening.cancelled():
                self._listening.result()
            raise StopAsyncIteration


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
