"""One live session with an exchange: connect, subscribe, receive, reconnect, until it is closed.

    async with FeedSession(FeedSettings(products=("BTC-USD",))) as session:
        async for event in session.events():
            ...

A task reads the socket (``FrameReceiver``), stamps each frame with its time of receipt and puts it, undecoded, into the
bounded ``Inbox`` (``FrameIntake``); it never waits for the reader. The reader takes frames out of the inbox and decodes
them (``EventDecoder``). A reader that is too slow loses frames, marked by one gap, but never the connection.

Before a connection reaches the end of its lifetime at the venue, and when the exchange announces that it will close
it, the session opens the next one. Both receive for ``overlap_s``; the frames of the new one wait in an inbox of its
own. Then the old one is closed, and the reader gets what the new one has received, without the trades and quotes that
the old one had delivered. Only what is missing then is a gap.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from random import SystemRandom
from typing import Self

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import WebSocketException

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.connection import (
    Backoff,
    Pace,
    close_connection,
    handshake_wait_s,
    is_simulated,
    open_connection,
    parse_address,
    proxy_for,
)
from volspike.feeds.decoder import EventDecoder
from volspike.feeds.events import FeedEvent, FeedState, FeedStats
from volspike.feeds.inbox import ChangeoverNote, ChangeoverStage, FrameIntake, Inbox
from volspike.feeds.protocol import FeedProtocol
from volspike.feeds.receiver import FrameReceiver
from volspike.feeds.refusals import Refusals
from volspike.feeds.venues import protocol_named
from volspike.market import SECOND_NS

_EVENTS_PER_TURN = 16
"""Several venues end their batches at the same moment; 64 events of some 100 µs would hold up the other tasks."""
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
        UsageError: the url is not a websocket url, the proxy of the environment cannot be used, or one connection
            cannot carry that many products.
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
        _refuse_too_many(settings, protocol)
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
            self._replace_connection,
        )
        self._receiver: FrameReceiver | None = None
        self._jitter = jitter
        self._backoff = Backoff(settings.backoff_min_s, settings.backoff_max_s, jitter)
        self._connection_pace = Pace.per_second(protocol.limits.connections_per_s)
        self._message_pace = Pace.per_second(protocol.limits.messages_per_s)
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
            repeated=intake.repeated + decoder.repeated,
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
            reason = await self._run_connections()
            self._note_state(is_connected=False, reason=reason)
            if self._has_lasted:
                self._has_lasted = False
                self._attempt = 0
                self._backoff.reset()
            await asyncio.sleep(max(self._backoff.delay_s(), self._retry_after_s))

    async def _run_connections(self) -> str:
        """A connection and those that replace it as planned; returns why the last ended or the first did not open."""
        opened = await self._open("subscribed")
        if isinstance(opened, str):
            return opened
        self._refusals.begin_connection()
        try:
            while True:
                self._receiver = opened.receiver
                opened.receiver.follow_refusals()
                await self._wait_for_end(opened)
                if opened.task.done():
                    return opened.task.result()
                successor = await self._replace(opened)
                if successor is None:
                    return await opened.task
                opened = successor
        finally:
            await self._close(opened)

    async def _wait_for_end(self, opened: OpenConnection) -> None:
        """Wait until the connection ends or should be replaced.

        Where only answers to pings come while the market is calm, a subscription that has come to nothing looks the
        same; so a connection without a tick for long is replaced.
        """
        replacing = asyncio.create_task(opened.receiver.should_be_replaced.wait(), name=f"replace {self.url}")
        patience_s = None if self._protocol.ping is None else self.settings.data_timeout_s
        try:
            while True:
                ended, _ = await asyncio.wait(
                    {opened.task, replacing}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
                )
                if ended or patience_s is None:
                    return
                silent_s = (time.time_ns() - self._decoder.last_data) / SECOND_NS
                if silent_s >= self.settings.data_timeout_s:
                    return
                patience_s = self.settings.data_timeout_s - silent_s
        finally:
            replacing.cancel()
            await asyncio.gather(replacing, return_exceptions=True)

    def _replace_connection(self) -> None:
        """The exchange has announced that it will close the connection."""
        if self._receiver is not None:
            self._receiver.should_be_replaced.set()

    async def _open(self, reason: str, inbox: Inbox | None = None) -> OpenConnection | str:
        """A connection that subscribes and receives, into an ``inbox`` of its own if given; or why there is none."""
        try:
            connection = await open_connection(self.url, self.settings)
        except (OSError, WebSocketException) as error:  # a timeout is an OSError
            self._retry_after_s = handshake_wait_s(error)
            wait = f"; the next attempt is in {self._retry_after_s:.0f} s" if self._retry_after_s else ""
            return f"cannot connect: {error}{wait}"
        if self._simulated is not None and is_simulated(connection) != self._simulated:
            await close_connection(connection)
            return _OTHER_MARKET[self._simulated]
        receiver = self.receiver_of(connection, reason, inbox)
        task = asyncio.create_task(receiver.run(), name=f"receive from {self.url}")
        return OpenConnection(receiver, task, asyncio.get_running_loop().time(), self._decoder.ticks)

    def receiver_of(self, connection: ClientConnection, reason: str, inbox: Inbox | None = None) -> FrameReceiver:
        """Receives from an open connection, into ``inbox`` (None: that of the session)."""
        return FrameReceiver(
            connection,
            self.settings,
            self._protocol,
            self._intake if inbox is None else FrameIntake(self.settings, self._protocol, inbox),
            self._inbox if inbox is None else inbox,
            self._refusals,
            self._message_pace,
            self._wake,
            lambda: self._state(is_connected=True, reason=reason),
        )

    async def _close(self, opened: OpenConnection) -> None:
        try:
            await opened.stop()
        finally:
            age_s = asyncio.get_running_loop().time() - opened.since
            self._has_lasted |= self._decoder.ticks > opened.ticks or age_s >= self.settings.lasting_s
            await close_connection(opened.receiver.connection)

    async def _replace(self, old: OpenConnection) -> OpenConnection | None:
        """Open the next connection, let both receive for a while, and switch; None if none could be opened."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(self.settings.backoff_min_s, self.settings.backoff_max_s, self._jitter)
        while not old.task.done():
            await old.sleep(self._connection_pace.delay_s(loop.time()))
            self._retry_after_s = 0.0
            waiting = Inbox(self.settings.queue_frames, self.settings.queue_bytes)
            self._inbox.note(ChangeoverNote(time.time_ns(), ChangeoverStage.OPENED))
            new = await self._open("the connection was replaced as planned, without a pause", waiting)
            if isinstance(new, OpenConnection):
                try:
                    has_overlap = await self._overlap(old, new)
                    if not new.task.done():
                        if not has_overlap:
                            self._note_state(is_connected=False, reason=old.task.result())
                        await self._switch(old, new)
                        return new
                except BaseException:
                    await self._close(new)
                    raise
                await self._close(new)
            self._inbox.note(ChangeoverNote(time.time_ns(), ChangeoverStage.FAILED))
            await old.sleep(max(backoff.delay_s(), self._retry_after_s))
        return None

    async def _overlap(self, old: OpenConnection, new: OpenConnection) -> bool:
        """Wait until both have received for ``overlap_s``; whether the new one began before the old one ended."""
        live = asyncio.create_task(new.receiver.is_live.wait(), name=f"first frame from {self.url}")
        try:
            await asyncio.wait(
                {live, new.task, old.task},
                timeout=self.settings.connect_timeout_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            live.cancel()
            await asyncio.gather(live, return_exceptions=True)
        if old.task.done():
            return False
        if new.receiver.is_live.is_set():
            await asyncio.wait(
                {new.task, old.task}, timeout=self.settings.overlap_s, return_when=asyncio.FIRST_COMPLETED
            )
        return True

    async def _switch(self, old: OpenConnection, new: OpenConnection) -> None:
        """Queue what the new connection has received behind all that the old one has delivered."""
        await old.stop()
        receiver = new.receiver
        receiver.intake.succeed(self._intake, self._inbox)
        self._intake, receiver.inbox = receiver.intake, self._inbox
        self._receiver = receiver  # what it has received may announce its end already
        self._wake.set()
        await self._close(old)

    def _note_state(self, *, is_connected: bool, reason: str) -> None:
        self._inbox.note(self._state(is_connected=is_connected, reason=reason))
        self._wake.set()

    def _state(self, *, is_connected: bool, reason: str) -> FeedState:
        return FeedState(
            received=time.time_ns(),
            is_connected=is_connected,
            reason=reason,
            url=self.url,
            attempt=self._attempt,
            feed=self.settings.protocol,
        )


def _refuse_too_many(settings: FeedSettings, protocol: FeedProtocol) -> None:
    limit = protocol.limits.streams_per_connection
    channels = [each for each in protocol.requested_products(settings).values() if each]
    if limit is not None and len(settings.products) * len(channels) > limit:
        raise UsageError(
            f"{protocol.venue} allows {limit} streams on a connection, which is {limit // len(channels)} products, got "
            f"{len(settings.products)}: record the others in another process"
        )


@dataclass(frozen=True, slots=True, eq=False)
class OpenConnection:
    """A connection that was opened at ``since`` (s of the event loop), its receiving task, and the ticks before it."""

    receiver: FrameReceiver
    task: asyncio.Task[str]
    since: float
    ticks: int

    async def stop(self) -> None:
        """Stop receiving; the connection stays open."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def sleep(self, seconds: float) -> None:
        """Wait for some time, at most until the connection ends."""
        await asyncio.wait({self.task}, timeout=seconds)


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
