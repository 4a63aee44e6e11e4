"""One client of the simulated exchange: a bounded send queue between the protocol with its faults and the socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf
from typing import NamedTuple

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from volspike.feeds.simulation.faults import Close, Delay, Fault, Injector, Item, Record
from volspike.feeds.simulation.protocols import Outgoing, ServerProtocol

AHEAD_BYTES = 1 << 16
CLOSE_TIMEOUT_S = 1.0
_POLICY_VIOLATION = 1008
_GOING_AWAY = 1001
_NO_DATA = 4004
"""OKX's close code for a connection without traffic."""
_CONTROL = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG})


class Deadlines(NamedTuple):
    """The seconds of the rules of ``ConnectionRules``, in wall time."""

    subscribe_within_s: float = 5.0
    lifetime_s: float = 86_400.0
    ping_every_s: float = 20.0
    pong_within_s: float = 60.0
    traffic_within_s: float = 30.0


def answer_pings_if(socket: ServerConnection, answers: Callable[[], bool]) -> None:
    """Leave pings of the client without an answer while ``answers`` is false, as a busy exchange may."""
    send_frame = socket.protocol.send_frame

    def send(frame: Frame) -> None:
        if frame.opcode is not Opcode.PONG or answers():
            send_frame(frame)

    socket.protocol.send_frame = send  # type: ignore[method-assign]


def limit_messages(socket: ServerConnection, per_s: int, exceed: Callable[[], None]) -> None:
    """Call ``exceed`` when a client sends more than ``per_s`` messages, pings and pongs within a second."""
    recv_frame = socket.protocol.recv_frame
    newest: deque[float] = deque(maxlen=per_s + 1)

    def receive(frame: Frame) -> None:
        if frame.opcode in _CONTROL:
            newest.append(asyncio.get_running_loop().time())
            if len(newest) > per_s and newest[-1] - newest[0] < 1.0:
                exceed()
        recv_frame(frame)

    socket.protocol.recv_frame = receive  # type: ignore[method-assign]


class SimulatedConnection:
    """Queues frames and sends them as fast as the client reads; disconnects a client ``buffer_bytes`` behind.

    ``notify`` is called when a client catches up, subscribes or ends, for the market that waits for clients. Of the
    ``deadlines``, those apply that the rules of the protocol name. While ``answers_pings`` is false, pings of the
    protocol have no answer.
    """

    def __init__(
        self,
        number: int,
        socket: ServerConnection,
        protocol: ServerProtocol,
        injector: Injector,
        record: Record,
        *,
        buffer_bytes: int,
        deadlines: Deadlines,
        answers_pings: Callable[[], bool],
        notify: Callable[[], None],
    ) -> None:
        self.number = number
        self.protocol = protocol
        self.injector = injector
        self._socket = socket
        self._record = record
        self._buffer_bytes = buffer_bytes
        self._deadlines = deadlines
        self._answers_pings = answers_pings
        self._notify = notify
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._shutdown: asyncio.TimerHandle | None = None
        self._last_sent = 0.0

    @property
    def has_room(self) -> bool:
        """Whether the client is less than ``AHEAD_BYTES`` behind, so that a waiting market may go on."""
        return self._bytes <= AHEAD_BYTES

    @property
    def has_ended(self) -> bool:
        """Whether no more frames are sent."""
        return self.injector.has_closed

    def send(self, frames: Iterable[Outgoing], now: int) -> None:
        """Pass frames through the faults to the queue."""
        for frame in frames:
            self.push(self.injector.pass_frame(frame, now), now)

    def push(self, items: Iterable[Item], now: int) -> None:
        """Append items to the queue."""
        for item in items:
            self._queue.append(item)
            self._bytes += len(item) if isinstance(item, bytes) else 0
            if isinstance(item, Close):
                self._notify()
        self._wake.set()
        if self._bytes > self._buffer_bytes:
            self.disconnect_slow(now)

    def disconnect_slow(self, now: int) -> None:
        """Disconnect a client that does not read, as Coinbase does (ErrSlowConsume)."""
        if not self.has_ended:
            self.injector.close(_POLICY_VIOLATION, "", now, Fault.SLOW_READER)
            self.end(_POLICY_VIOLATION, "ErrSlowConsume", now)

    def end(self, code: int, reason: str, now: int) -> None:
        """End the connection now, without sending the queue."""
        self.injector.has_closed = True
        self._drop_queue(now)
        if self._closing is None:
            self._closing = asyncio.create_task(self._stop_and_close(code, reason))
        self._notify()

    def shut_down(self, notice_s: float, now: Callable[[], int]) -> None:
        """Announce a shutdown where the protocol has a notice, and close the connection ``notice_s`` later."""
        self.push(self.injector.announce_shutdown(notice_s, now()), now())

        def close() -> None:
            self.push(self.injector.close(_GOING_AWAY, "server shutdown", now()), now())

        self._shutdown = asyncio.get_running_loop().call_later(notice_s, close)

    async def serve(self, now: Callable[[], int]) -> None:
        """Answer the client until the connection ends; a client that breaks a rule is disconnected."""
        rules = self.protocol.rules
        self._writer = asyncio.create_task(self._write())
        if rules.pings or rules.has_lifetime or rules.needs_traffic:
            self._watch = asyncio.create_task(self._enforce_deadlines(now))
        if rules.messages_per_s:
            limit_messages(self._socket, rules.messages_per_s, lambda: self._punish("Too many requests", now()))
        self.send(self.protocol.opening_frames(now()), now())
        self._notify()  # the address of a connection may subscribe as well
        try:
            async with asyncio.timeout(
                self._deadlines.subscribe_within_s if rules.must_subscribe else None
            ) as deadline:
                async for message in self._socket:
                    if self.protocol.is_ping(message) and not self._answers_pings():
                        continue
                    self.send(self.protocol.answer(message, now()), now())
                    if self.protocol.violation:
                        self._punish(self.protocol.violation, now())
                    if self.protocol.subscribes:
                        deadline.reschedule(None)
                    self._notify()
        except TimeoutError:
            self.end(_POLICY_VIOLATION, "no subscription", now())
        except ConnectionClosed:
            pass
        finally:
            self.injector.has_closed = True
            self._drop_queue(now())
            await self.finish()

    def _punish(self, reason: str, now: int, code: int = _POLICY_VIOLATION) -> None:
        """Disconnect a client that broke a rule."""
        if not self.has_ended:
            self.injector.close(code, reason, now, Fault.RULE)
            self.end(code, reason, now)

    async def _enforce_deadlines(self, now: Callable[[], int]) -> None:
        """End the connection at its lifetime, without an answer to a ping, or without anything sent to the client."""
        rules, deadlines, loop = self.protocol.rules, self._deadlines, asyncio.get_running_loop()
        opened = self._last_sent = loop.time()
        ends = opened + deadlines.lifetime_s if rules.has_lifetime else inf
        pings = opened + deadlines.ping_every_s if rules.pings else inf
        unanswered: deque[tuple[float, asyncio.Future[float]]] = deque()
        with suppress(ConnectionClosed):
            while not self.has_ended:
                while unanswered and unanswered[0][1].done():
                    unanswered.popleft()
                pong_until = unanswered[0][0] + deadlines.pong_within_s if unanswered else inf
                traffic_until = self._last_sent + deadlines.traffic_within_s if rules.needs_traffic else inf
                time = loop.time()
                if time >= ends:
                    self.push(self.injector.close(_GOING_AWAY, "end of lifetime", now(), Fault.LIFETIME), now())
                elif time >= pong_until:
                    self._punish("no pong", now())
                elif time >= traffic_until:
                    seconds = deadlines.traffic_within_s
                    self._punish(f"No data received in {seconds:g}s.", now(), _NO_DATA)
                elif time >= pings:
                    pings = time + deadlines.ping_every_s
                    unanswered.append((time, asyncio.ensure_future(await self._socket.ping())))
                else:
                    await asyncio.sleep(min(ends, pings, pong_until, traffic_until) - time)

    async def finish(self) -> None:
        """Wait until no task of this connection runs."""
        if self._shutdown is not None:
            self._shutdown.cancel()
        tasks = [task for task in (self._writer, self._watch, self._closing) if task is not None]
        for task in (self._writer, self._watch):
            if task is not None:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _drop_queue(self, now: int) -> None:
        """Drop and count the frames that were not sent."""
        unsent = sum(isinstance(item, bytes) for item in self._queue)
        if unsent:
            self._record.fault(self.number, now, Fault.UNSENT, detail=f"{unsent} frames")
        self._queue.clear()
        self._bytes = 0

    async def _write(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                while not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                item = self._queue.popleft()
                if isinstance(item, bytes):
                    had_room = self.has_room
                    self._bytes -= len(item)
                    await self._socket.send(item, text=True)
                    self._last_sent = asyncio.get_running_loop().time()
                    if self.has_room and not had_room:
                        self._notify()
                elif isinstance(item, Delay):
                    await asyncio.sleep(item.seconds)
                else:
                    await self._close(item.code, item.reason)
                    return

    async def _stop_and_close(self, code: int, reason: str) -> None:
        if self._writer is not None:
            self._writer.cancel()
        await self._close(code, reason)

    async def _close(self, code: int, reason: str) -> None:
        """Close the socket, without a close frame if ``code`` is 0, and by force if the client does not read."""
        transport = self._socket.transport
        if code == 0:
            transport.close()
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT_S, transport.abort)
            return
        try:
            async with asyncio.timeout(2 * CLOSE_TIMEOUT_S):
                await self._socket.close(code, reason)
        except TimeoutError:
            transport.abort()
