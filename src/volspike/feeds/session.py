"""One live session with an exchange: connect, subscribe, receive, reconnect, until it is closed.

    async with FeedSession(FeedSettings(products=("BTC-USD",))) as session:
        async for event in session.events():
            ...

A task reads the socket, stamps each frame with its time of receipt and puts it, undecoded, into the bounded ``Inbox``
(``FrameIntake``); it never waits for the reader. The reader takes frames out of the inbox and decodes them
(``EventDecoder``). A reader that is too slow loses frames, marked by one gap, but never the connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import NoReturn, Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, WebSocketException

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.connection import (
    Backoff,
    Pace,
    close_connection,
    close_reason,
    handshake_wait_s,
    is_simulated,
    open_connection,
    parse_address,
    proxy_for,
)
from volspike.feeds.decoder import EventDecoder
from volspike.feeds.events import FeedEvent, FeedState, FeedStats
from volspike.feeds.inbox import AckDeadline, FrameIntake, Inbox
from volspike.feeds.refusals import Refusals
from volspike.feeds.venues import protocol_named

_FRAMES_PER_TURN = 64
_EVENTS_PER_TURN = 64
_OTHER_MARKET = {
    True: "the exchange is not simulated, but this session expects a simulated one; restart to use it",
    False: "the exchange is simulated, but this session expects a real one; restart to use it",
}
_JITTER = SystemRandom().random


class FeedSession:
    """Listens to ``settings.products`` from the call of ``events`` until it is closed. One use, one reader.

    No failure of the exchange or the network ends it: it reconnects. ``simulated`` is the kind of market expected: a
    connection to the other kind is closed without subscribing and retried; None accepts both. ``jitter`` draws the
    share of each wait from [0, 1). Sessions that are read together (``read_sessions``) share ``wake``.

    Raises:
        UsageError: the url is not a websocket url, or the proxy of the environment cannot be used.
    """

    def __init__(
        self,
        settings: FeedSettings,
        *,
        simulated: bool | None = None,
        jitter: Callable[[], float] = _JITTER,
        wake: asyncio.Event | None = None,
    ) -> None:
        protocol = protocol_named(settings.protocol)
        self.settings = settings
        self.url = protocol.address(settings)
        proxy_for(parse_address(self.url))  # refuses an unusable address or proxy at once
        self._simulated = simulated
        self._protocol = protocol
        self._refusals = Refusals(settings.products, symbol=protocol.symbol)
        self._inbox = Inbox(settings.queue_frames, settings.queue_bytes)
        self._intake = FrameIntake(settings, protocol, self._inbox)
        self._decoder = EventDecoder(
            protocol,
            protocol.requested_products(settings),
            protocol.data_names(settings.products),
            self._refusals,
            settings.protocol,
        )
        self._backoff = Backoff(settings.backoff_min_s, settings.backoff_max_s, jitter)
        self._connection_pace = Pace(protocol.limits.connections_per_s)
        self._message_pace = Pace(protocol.limits.messages_per_s)
        self._attempt = 0
        self._has_lasted = False
        self._retry_after_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event() if wake is None else wake

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def events(self) -> AsyncIterator[FeedEvent]:
        """The events of the session in order until it is closed; listening starts here, in the running event loop.

        Cancelling the wait for the next event, as a timeout does, loses no event and leaves the session open.

        Raises:
            UsageError: ``events`` was called before.
        """
        return read_sessions([self], self._wake)

    def listen(self) -> Reading:
        """Start listening; ``read_sessions`` and ``events`` call it.

        Raises:
            UsageError: it was called before.
        """
        if self._task is not None:
            raise UsageError("the events of a session can be read once; create a new session to listen again")
        self._task = asyncio.create_task(self._listen(), name=f"listen to {self.url}")
        self._task.add_done_callback(lambda _: self._wake.set())
        return Reading(self._inbox, self._decoder, self._task)

    async def aclose(self) -> None:
        """Stop listening and wait until the socket is closed; queued events can still be read."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.wait({self._task})

    @property
    def stats(self) -> FeedStats:
        """The counts at this moment."""
        intake, decoder = self._intake, self._decoder
        return FeedStats(
            frames=intake.frames,
            bytes=intake.bytes,
            ticks=decoder.ticks,
            malformed=decoder.malformed,
            errors=decoder.errors,
            ignored=decoder.ignored.copy(),
            connections=decoder.connections,
            reconnects=max(decoder.connections - 1, 0),
            gaps=decoder.gaps,
            lost=intake.lost,
            repeated=intake.repeated,
            unrequested=decoder.unrequested,
            refused=tuple(self._refusals.refused),
            overflows=self._inbox.dropped,
            queued=self._inbox.frames,
            last_received=intake.last_received,
            latency_ns=decoder.latency_ns,
        )

    async def _listen(self) -> None:
        """The reconnect loop; a connection that sent data resets the backoff."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._connection_pace.delay_s(loop.time()))
            self._attempt += 1
            self._retry_after_s = 0.0
            reason = await self._run_connection()
            self._note_state(is_connected=False, reason=reason)
            if self._has_lasted:
                self._has_lasted = False
                self._attempt = 0
                self._backoff.reset()
            await asyncio.sleep(max(self._backoff.delay_s(), self._retry_after_s))

    async def _run_connection(self) -> str:
        """One connection from opening to closing; returns why it ended or could not be opened."""
        try:
            connection = await open_connection(self.url, self.settings)
        except (OSError, WebSocketException) as error:  # a timeout is an OSError
            self._retry_after_s = handshake_wait_s(error)
            wait = f"; the next attempt is in {self._retry_after_s:.0f} s" if self._retry_after_s else ""
            return f"cannot connect: {error}{wait}"
        try:
            if self._simulated is not None and is_simulated(connection) != self._simulated:
                return _OTHER_MARKET[self._simulated]
            return await self._subscribe_and_receive(connection)
        finally:
            await close_connection(connection)

    async def _subscribe_and_receive(self, connection: ClientConnection) -> str:
        loop = asyncio.get_running_loop()
        connected = loop.time()
        within_s = self._protocol.limits.subscribe_within_s
        reason = "" if within_s is None else f"not subscribed within {within_s:g} s"
        ticks = self._decoder.ticks
        self._intake.begin_connection(time.time_ns())
        self._refusals.begin_connection()
        following = asyncio.create_task(self._follow_refusals(connection), name=f"request again from {self.url}")
        pinging = asyncio.create_task(self._send_pings(connection), name=f"ping {self.url}")
        try:
            async with asyncio.timeout(within_s) as limit:
                await self._subscribe(connection)
                limit.reschedule(None)
                reason = f"no frame for {self.settings.idle_timeout_s:g} s"
                settings = self.settings
                every_s = check_interval_s(
                    settings.heartbeat_timeout_s, settings.idle_timeout_s, settings.ack_timeout_s
                )
                with IdleTimer(self._idle_check(loop.time() + settings.ack_timeout_s), limit, every_s):
                    await self._receive(connection)
        except TimeoutError:
            return f"{reason}: the connection was closed on our side"
        except ConnectionClosed as closed:
            return close_reason(closed)
        finally:
            for task in (following, pinging):
                task.cancel()
            await asyncio.gather(following, pinging, return_exceptions=True)
            self._has_lasted = self._decoder.ticks > ticks or loop.time() - connected >= self.settings.lasting_s

    async def _subscribe(self, connection: ClientConnection) -> None:
        await self._request(connection, self._refusals.accepted)
        self._note_state(is_connected=True, reason="subscribed")

    async def _request(self, connection: ClientConnection, products: tuple[str, ...]) -> None:
        loop = asyncio.get_running_loop()
        for message in self._protocol.subscribe_messages(self.settings, products):
            await asyncio.sleep(self._message_pace.delay_s(loop.time()))
            await connection.send(message)

    async def _follow_refusals(self, connection: ClientConnection) -> None:
        """Send the requests that refusals of the exchange make necessary, while the connection lasts."""
        while True:
            for products in await self._refusals.next_requests():
                await self._request(connection, products)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.settings.ack_timeout_s):
                    await self._refusals.wait()
                    continue
            self._inbox.note(AckDeadline(time.time_ns()))
            self._wake.set()

    async def _send_pings(self, connection: ClientConnection) -> None:
        """Send what the protocol wants a client to send regularly, while the connection lasts."""
        ping = self._protocol.ping
        while ping is not None:
            await asyncio.sleep(ping.every_s)
            await connection.send(ping.message)

    async def _receive(self, connection: ClientConnection) -> NoReturn:
        """Take frames as they come; nothing here waits for the reader."""
        receive, add, now, wake = connection.recv, self._intake.add, time.time_ns, self._wake.set
        while True:
            for _ in range(_FRAMES_PER_TURN):
                data = await receive(decode=False)
                add(now(), data)
                wake()
            await asyncio.sleep(0)  # frames that are already here arrive without a pause: let other tasks run

    def _idle_check(self, ack_deadline: float) -> Callable[[], bool]:
        """The check made while a connection lasts; returns true if the connection is idle and should be closed."""
        loop = asyncio.get_running_loop()
        is_ack_pending = True

        def check() -> bool:
            nonlocal is_ack_pending
            now = time.time_ns()
            if is_ack_pending and loop.time() >= ack_deadline:
                is_ack_pending = False
                self._inbox.note(AckDeadline(now))
            is_idle = self._intake.check_silence(now)
            self._wake.set()
            return is_idle

        return check

    def _note_state(self, *, is_connected: bool, reason: str) -> None:
        state = FeedState(
            received=time.time_ns(),
            is_connected=is_connected,
            reason=reason,
            url=self.url,
            attempt=self._attempt,
            feed=self.settings.protocol,
        )
        self._inbox.note(state)
        self._wake.set()


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The queue of a session that listens, its decoder, and its task."""

    inbox: Inbox
    decoder: EventDecoder
    listening: asyncio.Task[None]


def read_sessions(sessions: Iterable[FeedSession], wake: asyncio.Event) -> AsyncIterator[FeedEvent]:
    """The events of sessions that share ``wake``, in the order in which their frames were received.

    This is the order in which a replay of their tapes reads the ticks.

    Raises:
        UsageError: the events of a session were read before.
    """
    return SessionEvents([session.listen() for session in sessions], wake)


class SessionEvents:
    """Iterates over the events of sessions by the time of receipt; ends after their tasks and the last event.

    All sessions stamp frames in the same event loop, so whatever arrives later has a later stamp than the oldest
    entry of the queues. It is an object and not a generator, so that a loop left early leaves nothing to clean up.
    """

    def __init__(self, readings: Sequence[Reading], wake: asyncio.Event) -> None:
        self._readings = list(readings)
        self._wake = wake
        self._ready: deque[FeedEvent] = deque()
        self._turn = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> FeedEvent:
        self._turn += 1
        if self._turn % _EVENTS_PER_TURN == 0:  # a full queue must not keep the socket and other tasks waiting
            await asyncio.sleep(0)
        while not self._ready:
            readings = self._readings
            oldest = readings[0] if len(readings) == 1 else min(readings, key=_head_of, default=None)
            if oldest is None:
                raise StopAsyncIteration
            entry = oldest.inbox.take()
            if entry is not None:
                self._ready.extend(oldest.decoder.decode(entry))
            elif not self._finish_ended():
                self._wake.clear()
                await self._wake.wait()
        return self._ready.popleft()

    def _finish_ended(self) -> bool:
        """Emit the gaps that are still open in sessions that have ended; raises the error that ended one, if any.

        All queues are empty. Returns whether a session has ended.
        """
        ended = [reading for reading in self._readings if reading.listening.done()]
        for reading in ended:
            gaps = reading.decoder.finish(time.time_ns())
            self._ready.extend(gaps)
            if not gaps:
                self._readings.remove(reading)
                if not reading.listening.cancelled():
                    reading.listening.result()
        return bool(ended)


def _head_of(reading: Reading) -> int:
    return reading.inbox.oldest


class IdleTimer:
    """Calls ``check`` every ``every_s`` while the context lasts; once it returns true, ``limit`` expires at once.

    ``limit`` is the ``asyncio.timeout`` around the context. If a check runs late because the event loop was busy, it
    is skipped once: frames may be waiting in the socket, so the connection may not be idle.
    """

    def __init__(self, check: Callable[[], bool], limit: asyncio.Timeout, every_s: float) -> None:
        self._check = check
        self._limit = limit
        self._every_s = every_s
        self._was_late = False
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        self._schedule()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _schedule(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._run)

    def _run(self) -> None:
        is_late = self._loop.time() > self._timer.when() + self._every_s
        self._was_late = is_late and not self._was_late
        if not self._was_late and self._check():
            self._limit.reschedule(self._loop.time())
        else:
            self._schedule()


def check_interval_s(*timeouts_s: float) -> float:
    """The interval of checks at which each timeout is noticed within a tenth of it, and within a second.

    >>> check_interval_s(10.0, 5.0)
    0.5
    """
    return max(min(1.0, *(timeout / 10 for timeout in timeouts_s)), 0.005)
