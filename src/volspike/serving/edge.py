"""What every request passes first: its correlation id is settled, and its answer is counted."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from volspike.serving.metrics import Metrics
from volspike.telemetry import OTHER

CORRELATION_HEADER: Final = "X-Correlation-ID"
CORRELATION_KEY: Final = "volspike.correlation_id"
"""Where the scope keeps the request's correlation id (bytes)."""

_RAW_HEADER: Final = CORRELATION_HEADER.lower().encode()
_ACCEPTABLE: Final = re.compile(rb"[\x21-\x7e]{1,128}")

log = structlog.get_logger(__name__)


class Edge:
    """Pure ASGI middleware around everything else; ``endpoints`` are the paths that metrics may name."""

    def __init__(self, app: ASGIApp, metrics: Metrics, endpoints: Collection[str]) -> None:
        self.app = app
        self._metrics = metrics
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with its correlation id in the header, and count it once by its status."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        identity = correlation_id(scope["headers"])
        scope[CORRELATION_KEY] = identity
        path = scope["path"]
        endpoint = path if path in self._endpoints else OTHER

        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), (_RAW_HEADER, identity)]
                self._metrics.count_request(scope["method"], endpoint, message["status"])
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        except Exception:
            if not started:
                self._metrics.count_request(scope["method"], endpoint, 500)
            log.exception("request_failed", endpoint=endpoint, correlation_id=identity.decode())
            raise


def correlation_id(headers: Collection[tuple[bytes, bytes]]) -> bytes:
    """The client's own id where it is 1 to 128 visible ASCII characters, else a new one."""
    for name, value in headers:
        if name == _RAW_HEADER and _ACCEPTABLE.fullmatch(value):
            return value
    return uuid4().hex.encode()
