"""One client of the simulated exchange: a bounded send queue between the protocol with its faults and the socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from volspike.feeds.simulation.faults import Close, Delay, Fault, Injector, Item, Record
from volspike.feeds.simulation.protocols import Outgoing, ServerProtocol

AHEAD_BYTES = 1 << 16
CLOSE_TIMEOUT_S = 1.0
_POLICY_VIOLATION = 1008


def answer_pings_if(socket: ServerConnection, answers: Callable[[], bool]) -> None:
    """Leave pings of the client without an answer while ``answers`` is false, as a busy exchange may."""
    send_frame = socket.protocol.send_frame

    def send(frame: Frame) -> None:
        if frame.opcode is not Opcode.PONG or answers():
            send_frame(frame)

    socket.protocol.send_frame = send  # type: ignore[method-assign]


class SimulatedConnection:
    """Queues frames and sends them as fast as the client reads; disconnects a client ``buffer_bytes`` behind.

    ``notify`` is called when a client catches up, subscribes or ends, for the market that waits for clients.
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
        notify: Callable[[], None],
    ) -> None:
        self.number = number
        self.protocol = protocol
        self.injector = injector
        self._socket = socket
        self._record = record
        self._buffer_bytes = buffer_bytes
        self._notify = notify
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

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

    async def serve(self, subscribe_within_s: float, now: Callable[[], int]) -> None:
        """Answer the client until the connection ends; a client that does not subscribe in time is disconnected."""
        self._writer = asyncio.create_task(self._write())
        try:
            async with asyncio.timeout(subscribe_within_s) as deadline:
                async for message in self._socket:
                    self.send(self.protocol.answer(message, now()), now())
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

    async def finish(self) -> None:
        """Wait until no task of this connection runs."""
        tasks = [task for task in (self._writer, self._closing) if task is not None]
        if self._writer is not None:
            self._writer.cancel()
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
