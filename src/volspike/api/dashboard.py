"""The dashboard's files, read once from the package and sent compressed. All are ours; none comes from elsewhere."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Final

from starlette.responses import Response

from volspike.api.edge import ON_PAGES

DASHBOARD_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy: nothing inline, nothing from elsewhere."""

PAGE: Final = "dashboard.html"
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS: Final = ON_PAGES | {
    "Content-Security-Policy": DASHBOARD_POLICY,
    "Cache-Control": "no-cache",  # asked for anew each time, sent only where the tag has changed
    "Vary": "Accept-Encoding",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """One file as it is sent."""

    body: bytes
    packed: bytes
    media_type: str
    tag: str

    def reply(self, headers: Mapping[str, str]) -> Response:
        """The file for a request with these headers: 304 where the client has it, compressed where it may be."""
        answer = _HEADERS | {"ETag": self.tag}
        if self.tag in headers.get("if-none-match", ""):
            return Response(status_code=304, headers=answer)
        if "gzip" not in headers.get("accept-encoding", ""):
            return Response(self.body, headers=answer, media_type=self.media_type)
        return Response(self.packed, headers=answer | {"Content-Encoding": "gzip"}, media_type=self.media_type)


def dashboard_assets() -> dict[str, Asset]:
    """Path → file: the page at ``/``, the rest under ``/static/``."""
    assets = {}
    for entry in sorted(files("volspike.api").joinpath("static").iterdir(), key=lambda entry: entry.name):
        media_type = _TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None:
            path = "/" if entry.name == PAGE else f"/static/{entry.name}"
            assets[path] = _asset(entry.read_bytes(), media_type)
    return assets


def _asset(body: bytes, media_type: str) -> Asset:
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'  # weak: compressed and plain share it
    return Asset(body, gzip.compress(body, mtime=0), media_type, tag)
