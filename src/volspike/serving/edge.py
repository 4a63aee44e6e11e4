"""What every request passes first: its correlation id is settled, its answer marked, counted and, if asked, logged."""

from __future__ import annotations

import re
from collections.abc import Collection
from time import perf_counter
from typing import Final
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, unbind_contextvars

from volspike.serving.client import client_of
from volspike.serving.metrics import Metrics
from volspike.serving.security_headers import ALWAYS
from volspike.telemetry import OTHER

CORRELATION_HEADER: Final = "X-Correlation-ID"
CORRELATION_KEY: Final = "volspike.correlation_id"
"""Where the scope keeps the request's correlation id (bytes)."""

_RAW_HEADER: Final = CORRELATION_HEADER.lower().encode()
_ACCEPTABLE: Final = re.compile(rb"[\x21-\x7e]{1,128}")

log = structlog.get_logger(__name__)


class Edge:
    """Pure ASGI middleware around everything else; ``endpoints`` are the paths that metrics may name.

    While a request is served every log line has its ``correlation_id``; with ``log_requests`` each answer is a line.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, endpoints: Collection[str], *, log_requests: bool = False
    ) -> None:
        self.app = app
        self._metrics = metrics
        self._endpoints = endpoints
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with its correlation id in the header, and count it once by its status."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        identity = correlation_id(scope["headers"])
        scope[CORRELATION_KEY] = identity
        path = scope["path"]
        endpoint = path if path in self._endpoints else OTHER
        bind_contextvars(correlation_id=identity.decode())
        began = perf_counter()
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *ALWAYS, (_RAW_HEADER, identity)]
                self._metrics.count_request(scope["method"], endpoint, message["status"])
                if self._log_requests:
                    _log_answer(scope, endpoint, message["status"], perf_counter() - began)
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        except Exception:
            if not started:
                self._metrics.count_request(scope["method"], endpoint, 500)
            log.exception("request_failed", endpoint=endpoint, correlation_id=identity.decode())
            raise
        finally:
            unbind_contextvars("correlation_id")


def _log_answer(scope: Scope, endpoint: str, status: int, seconds: float) -> None:
    """One line an answer; of what the client sent it holds the method, the route and its address, and no header."""
    method, client = scope["method"], client_of(scope)
    log.info("request", method=method, endpoint=endpoint, status=status, ms=round(1e3 * seconds, 3), client=client)


def correlation_id(headers: Collection[tuple[bytes, bytes]]) -> bytes:
    """The client's own id where it is 1 to 128 visible ASCII characters, else a new one."""
    for name, value in headers:
        if name == _RAW_HEADER and _ACCEPTABLE.fullmatch(value):
            return value
    return uuid4().hex.encode()
