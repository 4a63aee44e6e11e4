"""Events for whoever watches: each reader has a short queue of its own, and a slow one loses the oldest, counted.

What the pages need of a live pipeline, whatever is behind it: how things are now, and what happens from now on.

Events are pairs of a name and one JSON object on one line (UTF-8). Numbers that are not known are null, times are
milliseconds since the epoch, UTC.

- ``tick``: one product's newest row: price, spread, probability, threshold, features; at most 4 a second
- ``alert``: an episode opened or closed
- ``spike``: a minute later, that the market really moved
- ``health``: connection, latency, losses, recording; once a second
- ``performance``: precision, recall and others from delayed labels; every 10 s

``GET /stream``: server-sent events for many readers, none of whom can slow the pipeline or fill the memory.

The format is that of the HTML standard, section 9.2 "Server-sent events". What a reader is too slow for is lost in its
own queue; an event ``lost`` then tells it how much, so that it can ask for a new snapshot.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from volspike.api.answers import Problem, encode
from volspike.errors import UsageError

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


class LiveSource(Protocol):
    """A live pipeline as its watchers see it."""

    def snapshot(self, product: str | None) -> dict[str, Any]:
        """Everything that a page needs to draw ``product`` at once; the first product for None.

        Holds ``source, simulated, products, product, model, points, alerts, spikes, health, performance``.

        Raises:
            UsageError: there is no such product.
        """
        ...

    def subscribe(self) -> Subscription:
        """What happens from now on, in every product."""
        ...


READERS: Final = 100
HEARTBEAT_SECONDS: Final = 15.0
"""Proxies commonly end a connection that is silent for 30 to 60 s."""

STALLED_SECONDS: Final = 60.0
"""A reader that takes nothing for so long is gone, whatever its connection says."""

RETRY_MS: Final = 2000

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back until its buffer is full
]

log = structlog.get_logger(__name__)


class _Of(msgspec.Struct):
    """All that a filter reads of an event."""

    product: str | None = None


_product = msgspec.json.Decoder(_Of).decode


@dataclass(frozen=True, slots=True)
class Wish:
    """What a reader wants: one ``product`` or all; with ``all_alerts`` the others' alerts as well."""

    product: str | None = None
    all_alerts: bool = False

    def has(self, event: str, data: bytes) -> bool:
        """Whether the event is wanted; what belongs to no product always is."""
        if self.product is None or (self.all_alerts and event == "alert"):
            return True
        return _product(data).product in {None, self.product}


@dataclass(slots=True)
class Readers:
    """Those who watch now, at most ``limit``; ``lost`` is what those who left were too slow for, since the start."""

    source: LiveSource
    limit: int = READERS
    heartbeat_s: float = HEARTBEAT_SECONDS
    stalled_s: float = STALLED_SECONDS
    lost: int = 0
    _watching: set[Subscription] = field(default_factory=set)

    @property
    def open(self) -> int:
        """How many are watching."""
        return len(self._watching)

    def enter(self) -> Subscription:
        """One more reader."""
        subscription = self.source.subscribe()
        self._watching.add(subscription)
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """The reader's place and its queue are free."""
        subscription.close()
        self._watching.discard(subscription)
        self.lost += subscription.lost

    def close(self) -> None:
        """Ends every stream properly; call it when the server stops, which else waits for streams that never end."""
        for subscription in self._watching:
            subscription.close()


class EventStream(Response):
    """The answer to one reader: a snapshot, then every event that it wants, until it or the source ends.

    503 where there are too many readers, 404 for a product that is not watched.
    """

    def __init__(self, readers: Readers, wish: Wish) -> None:
        super().__init__()
        self._readers = readers
        self._wish = wish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the reader; whatever happens, its place and its queue are free afterwards."""
        readers = self._readers
        if readers.open >= readers.limit:
            refusal = _refusal(503, f"{readers.limit} readers are watching, which is the limit; try again later")
            await refusal(scope, receive, send)
            return
        subscription = readers.enter()  # before the snapshot, so that nothing falls between the two
        try:
            snapshot = msgspec.json.encode(readers.source.snapshot(self._wish.product))
            await self._serve(subscription, snapshot, receive, send)
        except UsageError as error:
            await _refusal(404, str(error))(scope, receive, send)
        except TimeoutError:
            log.info("reader_stalled", seconds=readers.stalled_s, lost=subscription.lost)
        except OSError:
            log.debug("reader_left")  # in the middle of an event
        finally:
            readers.leave(subscription)

    async def _serve(self, subscription: Subscription, snapshot: bytes, receive: Receive, send: Send) -> None:
        """Events and heartbeats until the first of: the source ends, the reader leaves, the reader stalls."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._send(send, b"retry: %d\n%b" % (RETRY_MS, framed("snapshot", snapshot)))
        events = asyncio.create_task(self._tell(subscription, send))
        tasks: list[asyncio.Task[None]] = [
            events,
            asyncio.create_task(self._beat(send)),
            asyncio.create_task(_until_gone(receive)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()
        if events in done:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, subscription: Subscription, send: Send) -> None:
        told = 0
        events = aiter(subscription)
        try:
            async for event, data in events:
                if subscription.lost > told:
                    told = subscription.lost
                    await self._send(send, framed("lost", b'{"lost":%d}' % told))
                if self._wish.has(event, data):
                    await self._send(send, framed(event, data))
        finally:
            if isinstance(events, AsyncGenerator):  # left in the middle, it would wait for the garbage collector
                await events.aclose()

    async def _beat(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._readers.heartbeat_s)
            await self._send(send, b": heartbeat\n\n")

    async def _send(self, send: Send, body: bytes) -> None:
        async with asyncio.timeout(self._readers.stalled_s):
            await send({"type": "http.response.body", "body": body, "more_body": True})


def framed(event: str, data: bytes) -> bytes:
    """One server-sent event.

    >>> framed("tick", b'{"price":1}')
    b'event: tick\\ndata: {"price":1}\\n\\n'
    """
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


async def _until_gone(receive: Receive) -> None:
    message: Any = {}
    while message.get("type") != "http.disconnect":
        message = await receive()


def _refusal(status: int, detail: str) -> Response:
    headers = {"Retry-After": "10"} if status == 503 else None
    return Response(encode(Problem(detail)), status, headers, media_type="application/json")
