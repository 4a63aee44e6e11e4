"""The server process: uvicorn with bounded connections, stopped gracefully by SIGTERM or SIGINT.

Uvicorn limits neither the size of a request's head nor the time for it, and waits forever for a client that does not
read its response. The application sees none of this, so the limits are in a subclass of uvicorn's protocol.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
from collections.abc import Callable
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
from volspike.api.app import create_app
from volspike.api.edge import RejectionLog, client_of
from volspike.api.schema import Problem, encode
from volspike.api.service import Load
from volspike.config import ServingSettings
from volspike.errors import UsageError
from volspike.logs import configure_logs
from volspike.models import Artifact

BACKLOG: Final = 2048
KEEP_ALIVE_SECONDS: Final = 65  # longer than the 60 s for which proxies commonly keep a connection
GRACE_SECONDS: Final = 10
"""How long requests in flight may take after the server receives a signal to stop."""

LAST_REQUESTS_SECONDS: Final = 0.25
"""How long idle connections stay open for requests that were sent before the client could notice the stop."""

log = structlog.get_logger(__name__)


def serve(settings: ServingSettings, load: Load = Artifact.load) -> None:
    """Serve ``settings.model`` on ``settings.host`` and ``settings.port`` (0: any free port) until SIGTERM or SIGINT.

    Raises:
        UsageError: the address cannot be bound, or the log level is unknown.
    """
    configure_logs(settings.log_level)
    with listen(settings.host, settings.port) as listener:
        warn_if_open(settings, listener)
        Server(server_config(create_app(settings, load), settings)).run(sockets=[listener])
    log.info("server_stopped")


def warn_if_open(settings: ServingSettings, listener: socket.socket) -> None:
    """Log a warning if other machines can connect and no API key is required."""
    host = str(listener.getsockname()[0])
    if settings.api_key is None and not ip_address(host.partition("%")[0]).is_loopback:
        advice = "set API_KEY, or listen on 127.0.0.1 behind a proxy that authenticates"
        log.warning("no_api_key", host=host, risk="every client that reaches it can use the API", advice=advice)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host`` (a name, or an IPv4 or IPv6 address) and ``port``.

    Raises:
        UsageError: the port is in use or not allowed, or the host is not an address of this machine.
    """
    if not 0 <= port <= 65535:  # the resolver would take the rest modulo 65536
        raise UsageError(f"cannot listen on {host}:{port}: a port is 1 to 65535, or 0 for any free port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UsageError(f"cannot listen on {host}:{port}: {error}") from error
    try:
        _claim(listener)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise UsageError(
                f"port {port} on {host} is in use; stop the program that uses it or choose another --port"
            ) from error
        raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener


def _claim(listener: socket.socket) -> None:
    """Lets a restart use the port again at once, and no second server use it at the same time."""
    if sys.platform == "win32":  # where SO_REUSEADDR lets another process take over a port that is in use
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def server_config(app: FastAPI, settings: ServingSettings) -> uvicorn.Config:
    """Uvicorn's configuration."""
    return uvicorn.Config(
        app,
        loop="auto",  # uvloop if the platform has it
        http=bounded_protocol(ConnectionLimits.of(settings)),
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


class Server(uvicorn.Server):
    """Uvicorn's server with start and stop events in the log; it returns normally after a signal.

    Uvicorn raises the signal again after its shutdown, which would end a graceful stop with an error status and skip
    the cleanup of its caller.

    Args:
        config: uvicorn's configuration.
        on_stop: ends responses that would otherwise never end, such as event streams; called when the stop begins.
    """

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None] | None = None) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Stop gracefully; at once after a second SIGINT."""
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and log the addresses."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            log.info("server_started", host=host, port=port, version=volspike.__version__)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests in flight and accept no more."""
        log.info("server_stopping", connections=len(self.server_state.connections))
        if self._on_stop is not None:
            self._on_stop()
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            if isinstance(connection, BoundedConnection):
                connection.finish()
        # closing a connection now would lose a request that the kernel has already received
        await asyncio.sleep(LAST_REQUESTS_SECONDS)
        await super().shutdown(sockets)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Bytes and seconds for a request's head, seconds without progress for a response, and open connections."""

    head_bytes: int
    head_s: float
    stalled_s: float
    connections: int

    @classmethod
    def of(cls, settings: ServingSettings) -> ConnectionLimits:
        """The limits in the settings."""
        return cls(settings.max_head_bytes, settings.head_s, settings.stalled_s, settings.max_connections)


def bounded_protocol(limits: ConnectionLimits) -> type[asyncio.Protocol]:
    """The protocol class that uvicorn instantiates for each connection; all of them share one ``RejectionLog``."""
    rejections = RejectionLog()
    logging.getLogger("uvicorn.error").addFilter(_is_not_of_one_request)

    class Bounded(BoundedConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(limits, rejections, *args, **options)

    return Bounded


def _is_not_of_one_request(record: logging.LogRecord) -> bool:
    """Uvicorn logs each malformed request without a bound; ``BoundedConnection`` logs them with one."""
    return not str(record.msg).startswith("Invalid HTTP request received")


class BoundedConnection(HttpToolsProtocol):
    """Uvicorn's connection with limits: 503 for too many connections, 431 for a large head, 408 for a late head."""

    def __init__(self, limits: ConnectionLimits, rejections: RejectionLog, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limits = limits
        self._rejections = rejections
        self._is_last = False
        self._in_body = False
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept or reject the connection; its first head must arrive in time."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self._reject(HTTPStatus.SERVICE_UNAVAILABLE, "too many open connections; try again later")
        else:
            self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers."""
        self._stop_head_timer()
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Process received bytes, and reject a head over the limit."""
        if self.transport.is_closing():
            return
        if self._head_timer is None and self._is_idle:
            self._start_head_timer()
        if not self._in_body:
            self._head_bytes += len(data)
        super().data_received(data)
        if not self._in_body and self._head_bytes > self._limits.head_bytes:
            self._reject_head()

    def on_headers_complete(self) -> None:
        """Pass the request on, unless its head was too large."""
        self._in_body, self._head_bytes = True, 0
        self._stop_head_timer()
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self._limits.head_bytes:
            self._reject_head()
        if not self.transport.is_closing():
            super().on_headers_complete()
            self.cycle.keep_alive = self.cycle.keep_alive and not self._is_last

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body of an accepted request."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Pass on the end of an accepted request."""
        self._in_body = False
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The response is in the write buffer, which the client must read."""
        super().on_response_complete()
        self._start_stall_timer()

    def pause_writing(self) -> None:
        """The client reads more slowly than the application writes."""
        super().pause_writing()
        self._start_stall_timer()

    def finish(self) -> None:
        """Answer the requests received so far, the last one with ``Connection: close``."""
        self._is_last = True
        if not self._is_idle:
            self.cycle.keep_alive = False

    @property
    def _is_idle(self) -> bool:
        """Whether no response is pending; the rest of a rejected body may still arrive."""
        return self.cycle is None or self.cycle.response_complete

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.head_s, self._head_timed_out)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self._head_bytes:
            detail = f"the request head did not arrive within {self._limits.head_s:g} s"
            self._reject(HTTPStatus.REQUEST_TIMEOUT, detail)
        else:
            self.transport.close()

    def _reject_head(self) -> None:
        detail = f"the request head is over {self._limits.head_bytes} bytes"
        self._reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail)

    def send_400_response(self, msg: str) -> None:
        """Answer a request that is not HTTP."""
        self._log_rejection(HTTPStatus.BAD_REQUEST)
        super().send_400_response(msg)

    def _log_rejection(self, status: HTTPStatus) -> None:
        if self._rejections.has_room():
            log.warning("request_rejected", status=status.value, client=client_of({"client": self.client}))

    def _reject(self, status: HTTPStatus, detail: str) -> None:
        """Send an error without the application, and close."""
        if self.transport.is_closing():
            return
        self._log_rejection(status)
        if self._is_idle:  # else it would be written into the middle of a response
            content = encode(Problem(detail))
            head = (
                f"HTTP/1.1 {status.value} {status.phrase}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(content)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + content)
        self.transport.close()

    def _start_stall_timer(self) -> None:
        """Check after ``stalled_s`` that the write buffer has shrunk, for as long as it is not empty."""
        if self._stall_timer is None and (left := self.transport.get_write_buffer_size()):
            self._stall_timer = self.loop.call_later(self._limits.stalled_s, self._check_progress, left)

    def _check_progress(self, before: int) -> None:
        self._stall_timer = None
        if before <= self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self._start_stall_timer()
