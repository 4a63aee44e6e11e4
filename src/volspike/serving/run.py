"""The serving process: one socket, one event loop, stopped gracefully by SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from ipaddress import ip_address
from types import FrameType
from typing import Final

import structlog
import uvicorn
from fastapi import FastAPI

import volspike
from volspike.config import ServingSettings
from volspike.errors import UsageError
from volspike.logs import configure_logs
from volspike.serving.app import create_app
from volspike.serving.connection import BoundedConnection, ConnectionLimits, bounded
from volspike.serving.scorer import Load, load_artifact
from volspike.serving.stream import Readers

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
