"""``GET /stream``: server-sent events for many readers, none of whom can slow down the pipeline or fill the memory.

An event is a name and one JSON object on one line (UTF-8). Unknown numbers are null; times are milliseconds since the
epoch, UTC.

- ``snapshot``: everything that a page needs to draw a product: sent first, after a change of the model, and when a
  market has sent its past at once, in place of all rows of that past
- ``tick``: a product's newest row: price, spread, probability, threshold, features; at most 4 per second
- ``alert``: an alert opened or closed, or its outcome became known
- ``spike``: a past second whose following minute was a spike
- ``health``: connection, latency, data loss, recording; once per second
- ``markets``: a row of the overview for each product; ``explanation``: what followed the probabilities of a product;
  every 2 s
- ``snooze``: the present snoozes, after each change
- ``performance``: precision, recall and others from delayed labels; every 10 s
- ``lost``: how many events this reader was too slow for, so that it can request a new snapshot

The format is that of the HTML standard, section 9.2 "Server-sent events". The response class is our own: FastAPI's has
a fixed ping interval and no send timeout, and sse-starlette replaces uvicorn's signal handler when it is imported and
cancels streams at shutdown, where these end with a complete response.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from volspike.api.schema import Problem, encode
from volspike.errors import UsageError

QUEUE_EVENTS: Final = 256
RETRY_MS: Final = 2000
_SNAPSHOT: Final = ("snapshot", b"")
"""The place in a queue of a snapshot that is made when it is sent."""

_HEADERS: Final = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),  # nginx would hold events back until its buffer is full
]

Snapshot: TypeAlias = Callable[[str | None], dict[str, Any]]
"""The current state of a product, the first for None; raises UsageError for an unknown product."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """The events of one ``product``, or of all for None; with ``all_alerts`` also the alerts of other products."""

    product: str | None = None
    all_alerts: bool = False

    def matches(self, event: str, product: str | None) -> bool:
        """Whether to send an event of a product; one without a product is always sent."""
        return self.product is None or product in {None, self.product} or (self.all_alerts and event == "alert")


class EventQueue:
    """One reader's events, oldest first, iterated until ``close``. ``lost`` counts those that it was too slow for."""

    def __init__(self, publisher: Publisher, only: EventFilter) -> None:
        self._publisher = publisher
        self.filter = only
        self._events: deque[tuple[str, bytes]] = deque(maxlen=QUEUE_EVENTS)
        self._changed = asyncio.Event()
        self._closed = False
        self.lost = 0

    def put(self, event: str, data: bytes) -> None:
        """Add an event; never waits. A full queue drops its oldest, but all after a snapshot that was not sent yet."""
        if len(self._events) == QUEUE_EVENTS:
            if self._events[0] == _SNAPSHOT:
                self.refresh()  # it will contain the event
                return
            self.lost += 1
        self._events.append((event, data))
        self._changed.set()

    def refresh(self) -> None:
        """Replace the queued events by a snapshot, which the reader's response makes when it sends it."""
        self._events.clear()
        self.put(*_SNAPSHOT)

    async def __aiter__(self) -> AsyncIterator[tuple[str, bytes]]:
        while True:
            while self._events:
                yield self._events.popleft()
            if self._closed:
                return
            self._changed.clear()
            await self._changed.wait()

    def close(self) -> None:
        """End the iteration after the queued events, and receive no more."""
        self._closed = True
        self._publisher.unsubscribe(self)
        self._changed.set()


class Publisher:
    """Sends each event to the queues of all current readers; ``lost`` counts the lost events of former readers."""

    def __init__(self) -> None:
        self._queues: set[EventQueue] = set()
        self.lost = 0

    @property
    def readers(self) -> int:
        """The number of current readers."""
        return len(self._queues)

    def subscribe(self, only: EventFilter = EventFilter()) -> EventQueue:
        """The queue of a new reader of some events, from the next one on."""
        queue = EventQueue(self, only)
        self._queues.add(queue)
        return queue

    def unsubscribe(self, queue: EventQueue) -> None:
        """Send no more events to a queue."""
        if queue in self._queues:
            self._queues.discard(queue)
            self.lost += queue.lost

    def is_wanted(self, event: str, product: str | None = None) -> bool:
        """Whether a reader receives such events of a product."""
        return any(queue.filter.matches(event, product) for queue in self._queues)

    def publish(self, event: str, data: bytes, product: str | None = None) -> None:
        """Send an event, of a product or of all, to every reader whose filter it matches; never waits."""
        for queue in self._queues:
            if queue.filter.matches(event, product):
                queue.put(event, data)

    def refresh(self) -> None:
        """Send every reader a new snapshot instead of the events that it has not received."""
        for queue in self._queues:
            queue.refresh()

    def close(self) -> None:
        """End every reader's stream; call it when the server stops, which would otherwise wait for them."""
        for queue in list(self._queues):
            queue.close()


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Limits of ``/stream``.

    Attributes:
        readers: readers at the same time.
        heartbeat_s: interval of comments; proxies commonly close a connection that is silent for 30 to 60 s.
        stalled_s: a reader that accepts nothing for so long is dropped, whatever the state of its connection.
    """

    readers: int = 100
    heartbeat_s: float = 15.0
    stalled_s: float = 60.0


class EventStreamResponse(Response):
    """The response to one reader: a snapshot, then every event that its filter matches, until one side ends it.

    503 if there are too many readers, 404 for an unknown product.
    """

    def __init__(self, publisher: Publisher, snapshot: Snapshot, limits: StreamLimits, only: EventFilter) -> None:
        super().__init__()
        self._publisher, self._snapshot, self._limits, self._filter = publisher, snapshot, limits, only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream; the reader's queue is removed however it ends."""
        limits = self._limits
        if self._publisher.readers >= limits.readers:
            problem = _problem(503, f"{limits.readers} readers are connected, which is the limit; try again later")
            await problem(scope, receive, send)
            return
        queue = self._publisher.subscribe(self._filter)  # before the snapshot, so that no event is lost between the two
        try:
            await self._serve(queue, self._encode_snapshot(), receive, send)
        except UsageError as error:
            await _problem(404, str(error))(scope, receive, send)
        except TimeoutError:
            log.info("reader_stalled", seconds=limits.stalled_s, lost=queue.lost)
        except OSError:
            log.debug("reader_disconnected")
        finally:
            queue.close()

    def _encode_snapshot(self) -> bytes:
        return msgspec.json.encode(self._snapshot(self._filter.product))

    async def _serve(self, queue: EventQueue, snapshot: bytes, receive: Receive, send: Send) -> None:
        """Send events and heartbeats until the queue is closed, the reader disconnects, or the reader stalls."""
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await self._send(send, b"retry: %d\n%b" % (RETRY_MS, encode_event("snapshot", snapshot)))
        events = asyncio.create_task(self._send_events(queue, send))
        tasks: list[asyncio.Task[None]] = [
            events,
            asyncio.create_task(self._send_heartbeats(send)),
            asyncio.create_task(_wait_for_disconnect(receive)),
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

    async def _send_events(self, queue: EventQueue, send: Send) -> None:
        reported = 0
        events = aiter(queue)
        try:
            async for event, data in events:
                if queue.lost > reported:
                    reported = queue.lost
                    await self._send(send, encode_event("lost", b'{"lost":%d}' % reported))
                is_snapshot = (event, data) == _SNAPSHOT
                await self._send(send, encode_event(event, self._encode_snapshot() if is_snapshot else data))
        finally:
            if isinstance(events, AsyncGenerator):  # otherwise it would wait for the garbage collector
                await events.aclose()

    async def _send_heartbeats(self, send: Send) -> None:
        while True:
            await asyncio.sleep(self._limits.heartbeat_s)
            await self._send(send, b": heartbeat\n\n")

    async def _send(self, send: Send, body: bytes) -> None:
        async with asyncio.timeout(self._limits.stalled_s):
            await send({"type": "http.response.body", "body": body, "more_body": True})


def encode_event(event: str, data: bytes) -> bytes:
    """One server-sent event.

    >>> encode_event("tick", b'{"price":1}')
    b'event: tick\\ndata: {"price":1}\\n\\n'
    """
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


async def _wait_for_disconnect(receive: Receive) -> None:
    message: Any = {}
    while message.get("type") != "http.disconnect":
        message = await receive()


def _problem(status: int, detail: str) -> Response:
    headers = {"Retry-After": "10"} if status == 503 else None
    return Response(encode(Problem(detail)), status, headers, media_type="application/json")
