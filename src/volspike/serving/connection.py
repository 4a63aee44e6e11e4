"""What one connection may take of the server before there is a request, and after there is an answer.

Uvicorn bounds neither the head of a request nor the time for it, and waits without end for a client that does not read
its answer. The application behind sees nothing of all that, so that it is bounded here, in uvicorn's own protocol.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from volspike.config import ServingSettings
from volspike.serving.answers import Problem, encode


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bytes and seconds for a request's head, seconds without progress for an answer, and connections at once."""

    head_bytes: int
    head_s: float
    stalled_s: float
    connections: int

    @classmethod
    def of(cls, settings: ServingSettings) -> ConnectionLimits:
        """The limits that the settings tell."""
        return cls(settings.max_head_bytes, settings.head_s, settings.stalled_s, settings.max_connections)


def bounded(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """The protocol that uvicorn makes for each connection, with these limits."""

    class Bounded(BoundedConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(limits, *args, **options)

    return Bounded


class BoundedConnection(HttpToolsProtocol):
    """Uvicorn's connection: 503 where there are too many, 431 for a large head, 408 for a late one."""

    def __init__(self, limits: ConnectionLimits, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._is_last = False
        self._in_body = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Let it in, or not; its first head has to come in time."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._end(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections are open; try again later")
        else:
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_head_timer()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless it is more head than there may be."""
        if self.transport.is_closing():
            return
        if self._head_timer is None and self._is_idle:
            self._await_head()
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_body and self._head_bytes > self._limits.head_bytes:
            self._refuse_head()

    def on_headers_complete(self) -> None:
        """The head is there: hand the request on, unless the head was too large."""
        self._in_body, self._head_bytes = True, 0
        self._stop_head_timer()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self._limits.head_bytes:
            self._refuse_head()
        if not self.transport.is_closing():
            super().on_headers_complete()
            self.cycle.keep_alive = self.cycle.keep_alive and not self._is_last

    def on_body(self, body: bytes) -> None:
        """A part of the body of a request that was handed on."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of the body of a request that was handed on."""
        self._in_body = False
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer was handed to the socket, which its client has to empty."""
        super().on_response_complete()
        self._watch_writing()

    def pause_writing(self) -> None:
        """The client reads more slowly than it is answered."""
        super().pause_writing()
        self._watch_writing()

    def finish(self) -> None:
        """Answer what was asked and what is on its way, the last of it with ``Connection: close``."""
        self._is_last = True
        if not self._is_idle:
            self.cycle.keep_alive = False

    @property
    def _is_idle(self) -> bool:
        """Whether no answer is owed; the rest of a body that was refused may still come."""
        return self.cycle is None or self.cycle.response_complete

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.head_s, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            self._end(HTTPStatus.REQUEST_TIMEOUT, f"the request's head did not come within {self._limits.head_s:g} s")
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        told = f"the request's head is over {self._limits.head_bytes} bytes"
        self._end(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, told)

    def _end(self, status: HTTPStatus, detail: str) -> None:
        """Answer past the application, and close."""
        if self.transport.is_closing():
            return
        if self._is_idle:  # else the answer under way would be torn apart
            content = encode(Problem(detail))
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + content)
        self.transport.close()

    def _watch_writing(self) -> None:
        """See to it that what waits for the client becomes less, as long as there is any."""
        if self._stall_timer is None and (left := self.transport.get_write_buffer_size()):
            self._stall_timer = self.loop.call_later(self._limits.stalled_s, self._look_at_writing, left)

    def _look_at_writing(self, before: int) -> None:
        self._stall_timer = None
        if before <= self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._watch_writing()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
