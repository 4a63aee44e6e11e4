"""Middleware for the target of a request: the names of the server, the prefix of its paths, and HEAD.

All of it is pure ASGI.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from volspike.api.edge import reject

ANY_HOST: Final = "*"
LOOPBACK_NAMES: Final = ("localhost", "*.localhost")

_PORT: Final = re.compile(r":\d*$")
_LAST: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}


def server_names(host: str, allowed: Iterable[str]) -> frozenset[str]:
    """The names under which a server that listens on ``host`` may be addressed: loopback, its own, and ``allowed``.

    A server on all interfaces also has the name of its machine.
    """
    names = [*LOOPBACK_NAMES, host, *allowed]
    if is_address(host) and ip_address(host).is_unspecified:
        names.append(socket.gethostname())
    return frozenset(name.lower().rstrip(".") for name in names)


def is_address(host: str) -> bool:
    """Whether a host is an IP address, with or without the brackets of IPv6."""
    try:
        ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True


class HostCheck:
    """Answers only requests whose ``Host`` is an IP address or one of ``names``, against DNS rebinding; else 421.

    In such an attack, a page of another site lets its own name resolve to this machine, and the browser then treats
    both as one site. The request still has that name, and never an address. ``*.example.org`` in ``names`` allows all
    names below ``example.org``, and ``*`` allows all. Requests without the header (HTTP/1.0) are not a browser's.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self.app = app
        self._names = frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or reject it."""
        for name, value in scope["headers"] if scope["type"] == "http" else ():
            if name == b"host" and not self.is_allowed(value.decode("latin-1")):
                host = value.decode("ascii", "backslashreplace")[:100]
                detail = f"this server does not answer as {host!r}; if it should, start it with --allowed-host"
                await reject(send, 421, detail)
                return
        await self.app(scope, receive, send)

    def is_allowed(self, header: str) -> bool:
        """Whether the value of a ``Host`` header names this server.

        >>> check = HostCheck(None, {"localhost", "*.example.org"})
        >>> [check.is_allowed(host) for host in ("LOCALHOST:80", "[::1]:8000", "a.example.org", "example.org")]
        [True, True, True, False]
        """
        host = _PORT.sub("", header.strip()).lower().rstrip(".")
        if ANY_HOST in self._names or host in self._names or is_address(host):
            return True
        labels = host.split(".")
        return any(f"*.{'.'.join(labels[start:])}" in self._names for start in range(1, len(labels)))


class PathPrefix:
    """Removes ``prefix`` from paths that a proxy has passed on with it; paths without it stay as they are.

    The address of the front page without its slash is redirected, since links on pages are relative. ``prefix`` begins
    with a slash and does not end with one.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its path below the prefix."""
        if scope["type"] == "http":
            path = scope["path"]
            if path == self._prefix:
                location = f"{self._prefix}/".encode()
                await send({"type": "http.response.start", "status": 308, "headers": [(b"location", location)]})
                await send(_LAST)
                return
            if path.startswith(f"{self._prefix}/"):
                scope = {**scope, "path": path.removeprefix(self._prefix)}
        await self.app(scope, receive, send)


class HeadAsGet:
    """Answers HEAD as GET without the body. A response that would not end, such as a stream, ends after its head."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on as a GET of a client that disconnects at once."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def disconnected() -> Message:
            return {"type": "http.disconnect"}

        async def send_head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)

        await self.app({**scope, "method": "GET"}, disconnected, send_head)
        await send(_LAST)
