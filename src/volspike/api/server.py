"""What one connection may take of the server before there is a request, and after there is an answer.

Uvicorn bounds neither the head of a request nor the time for it, and waits without end for a client that does not read
its answer. The application behind sees nothing of all that, so that it is bounded here, in uvicorn's own protocol.

The serving process: one socket, one event loop, stopped gracefully by SIGTERM or SIGINT.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

import volspike
from volspike.api.answers import Problem, encode
from volspike.api.app import create_app
from volspike.api.served_model import Load, load_artifact
from volspike.api.stream import Readers
from volspike.config import ServingSettings
from volspike.errors import UsageError
from volspike.logs import configure_logs


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


BACKLOG: Final = 2048
KEEP_ALIVE_SECONDS: Final = 65  # longer than the 60 s for which proxies commonly keep a connection
GRACE_SECONDS: Final = 10
"""How long requests in flight may take to end once the server is told to stop."""

LAST_CALL_SECONDS: Final = 0.25
"""How long kept connections stay open for what their clients have sent before they could know."""

log = structlog.get_logger(__name__)


class Server(uvicorn.Server):
    """Uvicorn's server, which tells when it listens and returns when it has stopped.

    Uvicorn raises the signal anew after it has shut down, which would end a process that stopped as asked with a
    failure's status and skip what comes after.
    """

    def __init__(self, config: uvicorn.Config, readers: Readers | None = None) -> None:
        super().__init__(config)
        self.readers = readers

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Stop gracefully; on a second SIGINT at once."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, then tell where."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            log.info("server_started", host=host, port=port, version=volspike.__version__)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the requests in flight, and take no more."""
        log.info("server_stopping", connections=len(self.server_state.connections))
        if self.readers is not None:
            self.readers.close()  # a page that watches would otherwise keep its connection to the end of the grace
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedConnection):
                connection.finish()
        # a request that the kernel holds already was taken: closing its connection now would lose it
        await asyncio.sleep(LAST_CALL_SECONDS)
        await super().shutdown(sockets)


def serve(settings: ServingSettings, load: Load = load_artifact) -> None:
    """Serve ``settings.model`` on ``settings.host`` and ``settings.port`` (0: any free one) until told to stop.

    Raises:
        UsageError: the address cannot be listened on, or the log level is not known.
    """
    configure_logs(settings.log_level)
    with listen(settings.host, settings.port) as listener:
        warn_if_open(settings, listener)
        Server(server_config(create_app(settings, load), settings)).run(sockets=[listener])
    log.info("server_stopped")


def warn_if_open(settings: ServingSettings, listener: socket.socket) -> None:
    """Say so where others than this machine's own programs can ask, and nothing asks them who they are."""
    host = str(listener.getsockname()[0])
    if settings.api_key is None and not ip_address(host.partition("%")[0]).is_loopback:
        advice = "set API_KEY, or listen on 127.0.0.1 behind something that knows who may ask"
        log.warning("open_to_others", host=host, told="whoever reaches this address can ask without a key", do=advice)


def server_config(app: FastAPI, settings: ServingSettings) -> uvicorn.Config:
    """How uvicorn serves an application of ours."""
    return uvicorn.Config(
        app,
        loop="auto",  # uvloop where the platform has it
        http=bounded(ConnectionLimits.of(settings)),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host`` (a name or an address of either version) and ``port``.

    Raises:
        UsageError: the port is taken or not allowed, or the host is not one of this machine.
    """
    if not 0 <= port <= 65535:  # the resolver would take the rest modulo 65536
        raise UsageError(f"cannot listen on {host}:{port}: a port is 0 (any free one) to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} on {host} is taken: stop what listens there or give another") from error
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
