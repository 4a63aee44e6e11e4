"""Routes of the dashboard: its page and files, and the event stream that they read.

The files are read once from the package and sent compressed. The page loads nothing from other hosts.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from volspike.api.docs import NO_KEY, operation, response
from volspike.api.edge import PAGE_HEADERS
from volspike.api.schema import Problem
from volspike.live.stream import EventFilter, EventStreamResponse, Publisher, Snapshot, StreamLimits

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing inline, nothing from other hosts."""

PAGE: Final = "dashboard.html"
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS: Final = PAGE_HEADERS | {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-cache",  # browsers ask each time, and receive the file only if its tag has changed
    "Vary": "Accept-Encoding",
}

STREAM: Final = operation(
    {
        "name": "product",
        "description": "Only events of this product (BTC-USD) and events without a product.",
        "schema": {"type": "string"},
    },
    {
        "name": "alerts",
        "description": "`all`: with `product`, also the alerts of other products.",
        "schema": {"type": "string", "enum": ["all"]},
    },
)


def dashboard_routes(publisher: Publisher, snapshot: Snapshot, limits: StreamLimits = StreamLimits()) -> APIRouter:  # noqa: B008  immutable
    """The page at ``/``, its files under ``/static/``, and ``/stream``."""
    router = APIRouter()
    assets = dashboard_assets()

    async def asset(request: Request) -> Response:
        return assets[request.url.path].respond(request.headers)

    for path in assets:  # one route each: routes are metric labels
        router.add_route(path, asset, methods=["GET"], include_in_schema=False)

    @router.get(
        "/stream",
        response_class=Response,
        openapi_extra=STREAM,
        responses={
            200: {"description": "Server-sent events, a snapshot first.", "content": {"text/event-stream": {}}},
            401: NO_KEY,
            404: response("Unknown product.", Problem),
            503: response("Too many readers.", Problem),
        },
    )
    async def stream(request: Request) -> Response:
        """Stream the market as it happens: ticks with probabilities, alerts, spikes, health."""
        query = request.query_params
        only = EventFilter(query.get("product"), all_alerts=query.get("alerts") == "all")
        return EventStreamResponse(publisher, snapshot, limits, only)

    return router


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, plain and compressed."""

    body: bytes
    compressed: bytes
    media_type: str
    tag: str

    def respond(self, headers: Mapping[str, str]) -> Response:
        """The response to a request with these headers: 304 if the client has the file, else compressed if possible."""
        answer = _HEADERS | {"ETag": self.tag}
        if self.tag in headers.get("if-none-match", ""):
            return Response(status_code=304, headers=answer)
        if "gzip" not in headers.get("accept-encoding", ""):
            return Response(self.body, headers=answer, media_type=self.media_type)
        return Response(self.compressed, headers=answer | {"Content-Encoding": "gzip"}, media_type=self.media_type)


def dashboard_assets() -> dict[str, Asset]:
    """The files by path: the page at ``/``, the others under ``/static/``."""
    assets = {}
    for entry in sorted(files("volspike.live").joinpath("static").iterdir(), key=lambda entry: entry.name):
        media_type = _TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None:
            path = "/" if entry.name == PAGE else f"/static/{entry.name}"
            body = entry.read_bytes()
            tag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'  # weak: plain and compressed share it
            assets[path] = Asset(body, gzip.compress(body, mtime=0), media_type, tag)
    return assets
