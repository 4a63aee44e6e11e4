"""Events for whoever watches: each reader has a short queue of its own, and a slow one loses the oldest, counted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Final

QUEUE_EVENTS: Final = 256


class Subscription:
    """One reader's events, oldest first. Iterate until ``close``; ``lost`` counts what it was too slow for."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._events: deque[tuple[str, bytes]] = deque(maxlen=QUEUE_EVENTS)
        self._came = asyncio.Event()
        self._closed = False
        self.lost = 0

    def put(self, event: str, data: bytes) -> None:
        """Adds an event; never waits."""
        if len(self._events) == QUEUE_EVENTS:
            self.lost += 1
        self._events.append((event, data))
        self._came.set()

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            self._came.clear()
            await self._came.wait()

    def close(self) -> None:
        """No further events; an iteration that waits ends."""
        self._closed = True
        self._publisher.leave(self)
        self._came.set()


class Publisher:
    """Hands each event to every reader of the moment."""

    def __init__(self) -> None:
        self._readers: set[Subscription] = set()

    @property
    def readers(self) -> int:
        """How many are watching."""
        return len(self._readers)

    def subscribe(self) -> Subscription:
        """A new reader, from the next event on."""
        reader = Subscription(self)
        self._readers.add(reader)
        return reader

    def leave(self, reader: Subscription) -> None:
        """The reader gets no more."""
        self._readers.discard(reader)

    def publish(self, event: str, data: bytes) -> None:
        """One event to all."""
        for reader in self._readers:
            reader.put(event, data)

    def close(self) -> None:
        """Ends every reader's stream."""
        for reader in list(self._readers):
            reader.close()
