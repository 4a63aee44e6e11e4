"""One client of the simulated exchange: its speaker, its faults, and a bounded buffer in front of its socket."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from volspike.feeds.simulation.faults import Close, Delay, Fault, Injector, Item, Record
from volspike.feeds.simulation.protocols import Outgoing, Speaker

AHEAD_BYTES = 1 << 16
CLOSE_TIMEOUT_S = 1.0
_POLICY_VIOLATION = 1008


class SimulatedConnection:
    """Takes frames at once and writes them when the client reads; one that falls ``buffer_bytes`` behind is expelled.

    ``stir`` is called whenever something changes for whoever waits on clients: room, a subscription, the end.
    """

    def __init__(
        self,
        number: int,
        socket: ServerConnection,
        speaker: Speaker,
        injector: Injector,
        record: Record,
        *,
        buffer_bytes: int,
        stir: Callable[[], None],
    ) -> None:
        self.number = number
        self.speaker = speaker
        self.injector = injector
        self._socket = socket
        self._record = record
        self._buffer_bytes = buffer_bytes
        self._stir = stir
        self._queue: deque[Item] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._expulsion: asyncio.Task[None] | None = None

    @property
    def has_room(self) -> bool:
        """Whether the client keeps up with a market that waits for it."""
        return self._bytes <= AHEAD_BYTES

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is to be said."""
        return self.injector.has_closed

    def say(self, frames: Iterable[Outgoing], now: int) -> None:
        """Frames on their way through the faults."""
        for frame in frames:
            self.push(self.injector.through(frame, now), now)

    def push(self, items: Iterable[Item], now: int) -> None:
        """Puts what goes to the socket behind what waits for it."""
        for item in items:
            self._queue.append(item)
            self._bytes += len(item) if isinstance(item, bytes) else 0
            if isinstance(item, Close):
                self._stir()
        self._wake.set()
        if self._bytes > self._buffer_bytes:
            self.expel(now)

    def expel(self, now: int) -> None:
        """Disconnects a client that does not read, as Coinbase does (ErrSlowConsume)."""
        if not self.has_ended:
            self.injector.close(_POLICY_VIOLATION, "", now, Fault.SLOW_READER)
            self.end(_POLICY_VIOLATION, "ErrSlowConsume", now)

    def end(self, code: int, reason: str, now: int) -> None:
        """Ends the connection now, whatever waits to be written."""
        self.injector.has_closed = True
        self._forget(now)
        if self._expulsion is None:
            self._expulsion = asyncio.create_task(self._cut(code, reason))
        self._stir()

    async def serve(self, subscribe_within_s: float, now: Callable[[], int]) -> None:
        """Hears the client until the connection ends, however it does; one that asks for nothing is sent away."""
        self._writer = asyncio.create_task(self._write())
        try:
            async with asyncio.timeout(subscribe_within_s) as deadline:
                async for message in self._socket:
                    self.say(self.speaker.hear(message, now()), now())
                    if self.speaker.asked:
                        deadline.reschedule(None)
                    self._stir()
        except TimeoutError:
            self.end(_POLICY_VIOLATION, "nothing was subscribed to", now())
        except ConnectionClosed:
            pass
        finally:
            self.injector.has_closed = True
            self._forget(now())
            await self.finish()

    async def finish(self) -> None:
        """Waits until nothing of this connection runs any more."""
        tasks = [task for task in (self._writer, self._expulsion) if task is not None]
        if self._writer is not None:
            self._writer.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, now: int) -> None:
        """Counts and lets go what was never written."""
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
                        self._stir()
                elif isinstance(item, Delay):
                    await asyncio.sleep(item.seconds)
                else:
                    await self._close(item.code, item.reason)
                    return

    async def _cut(self, code: int, reason: str) -> None:
        if self._writer is not None:
            self._writer.cancel()
        await self._close(code, reason)

    async def _close(self, code: int, reason: str) -> None:
        """Closes the socket, with a close frame if ``code`` is one, and by force where the client does not read."""
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
