"""Who a request comes from, as far as the server can tell: the other end of its connection.

What every answer tells a browser to refuse, and what pages tell besides.

A refusal by what stands before the application: one sentence as JSON, and the connection goes on.

Token buckets, one a client, in bounded memory: who has been away longest is forgotten first.

Pure: knows of names and of times that it is told, not of HTTP or clocks.

How often a client may ask: 429 with ``Retry-After`` for who asks more, before anything of the request is read.

The API key: who does not tell it gets 401, for everything but the questions whether the service lives.

Three ways to tell it, for three kinds of clients: ``X-API-Key`` (programs), ``Authorization: Bearer`` (Prometheus), and
``Authorization: Basic`` with the key as password and any name (browsers, which ask for it and then send it everywhere,
to ``/stream`` as well, where a page can set no header).

Bodies are read here, up to a limit and a deadline, and handed on whole: nothing behind this holds more.

A body that is too large is answered at once; what the client still sends is then thrown away for a short while, because
closing a socket on unread bytes resets it, and a client would lose the answer (RFC 9112, section 9.6).

What every request passes first: its correlation id is settled, its answer marked, counted and, if asked, logged.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator
from hmac import compare_digest
from ipaddress import IPv6Address
from math import ceil
from time import monotonic, perf_counter
from typing import Final
from uuid import uuid4

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, unbind_contextvars

from volspike.api.answers import Problem, encode
from volspike.api.metrics import Metrics
from volspike.config import Secret
from volspike.telemetry import OTHER

_NETWORK_BITS: Final = 64


def client_of(scope: Scope) -> str:
    """The client's IPv4 address, or the /64 network of its IPv6 address, which one household has whole.

    Behind a proxy that is trusted (see ``ServingSettings``) it is who the proxy says; empty where nobody knows.

    >>> client_of({"client": ("192.0.2.7", 1234)}), client_of({"client": ("2001:db8::1", 1)}), client_of({})
    ('192.0.2.7', '2001:db8::/64', '')
    """
    client = scope.get("client")
    if client is None:
        return ""
    address: str = client[0]
    return _network_of(address) if ":" in address else address


def _network_of(address: str) -> str:
    try:
        found = IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    kept = int(found) >> _NETWORK_BITS << _NETWORK_BITS
    return f"{IPv6Address(kept)}/{_NETWORK_BITS}"


ALWAYS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Nobody guesses what an answer is, and no other site's page takes it in."""

ON_PAGES: Final = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Beside a page's own Content-Security-Policy. ``X-Frame-Options`` repeats ``frame-ancestors`` for old browsers."""


async def refuse(send: Send, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
    """Answer without having read the body; what of it still comes is thrown away by whoever holds the connection."""
    content = encode(Problem(detail))
    told = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": content, "more_body": False})


CLIENTS: Final = 10_000
"""How many clients are remembered, of about 200 bytes each."""


class TokenBuckets:
    """Every client begins with ``per_minute`` tokens, takes one a request, and gets ``per_minute`` back each minute.

    A client that was forgotten begins anew; that takes ``clients`` others since it was last seen.
    """

    def __init__(self, per_minute: int, clients: int = CLIENTS) -> None:
        self._most = float(per_minute)
        self._per_s = per_minute / 60.0
        self._clients = clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → tokens, and when that was so

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, now_s: float) -> float:
        """Take a token: 0.0 where there was one, else the seconds until there is. ``now_s`` never runs backwards."""
        kept = self._buckets.get(client)
        if kept is None:
            tokens = self._most
            if len(self._buckets) >= self._clients:
                self._buckets.popitem(last=False)
        else:
            tokens = min(self._most, kept[0] + (now_s - kept[1]) * self._per_s)
        wait_s = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._per_s
        self._buckets[client] = (tokens if wait_s else tokens - 1.0, now_s)
        self._buckets.move_to_end(client)
        return wait_s


class RateLimit:
    """Pure ASGI middleware: ``per_minute`` requests a client to ``paths``, as many at once at most."""

    def __init__(
        self, app: ASGIApp, per_minute: int, paths: Collection[str], clock: Callable[[], float] = monotonic
    ) -> None:
        self.app = app
        self._per_minute = per_minute
        self._paths = paths
        self._clock = clock
        self._buckets = TokenBuckets(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on while its client has tokens."""
        if scope["type"] == "http" and scope["path"] in self._paths:
            wait_s = self._buckets.take(client_of(scope), self._clock())
            if wait_s > 0.0:
                seconds = ceil(wait_s)
                told = f"this client has asked more than {self._per_minute} times a minute; ask again in {seconds} s"
                await refuse(send, 429, told, (b"retry-after", str(seconds).encode()))
                return
        await self.app(scope, receive, send)


OPEN_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready"})
"""What whoever watches over the process must be able to ask without a secret; none of it tells of the market."""

KEY_HEADER: Final = "X-API-Key"
_RAW_HEADER: Final = KEY_HEADER.lower().encode()
_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="volspike", charset="UTF-8"')
_DETAIL: Final = f"this needs the API key: tell it in {KEY_HEADER}, or as a Bearer token, or as a Basic password"


class ApiKey:
    """Pure ASGI middleware: hands on what has the key, or needs none."""

    def __init__(self, app: ASGIApp, key: Secret, open_paths: Collection[str] = OPEN_PATHS) -> None:
        self.app = app
        self._key = key.reveal().encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or refuse it before its body is read."""
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._has_key(scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await refuse(send, 401, _DETAIL, _CHALLENGE)

    def _has_key(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Compares what is told in a time that does not depend on where it differs."""
        return any(compare_digest(told, self._key) for told in keys_told(headers))


def keys_told(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The keys that a request tells, in whatever way.

    >>> list(keys_told([(b"x-api-key", b"a"), (b"authorization", b"Bearer b"), (b"authorization", b"Basic YW55Om0=")]))
    [b'a', b'b', b'm']
    """
    for name, value in headers:
        if name == _RAW_HEADER:
            yield value
        elif name == b"authorization":
            scheme, _, told = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield told.strip()
            elif scheme.lower() == b"basic":
                yield _password(told)


def _password(told: bytes) -> bytes:
    try:
        return b64decode(told.strip(), validate=True).partition(b":")[2]
    except NotBase64:
        return b""


LINGER_SECONDS: Final = 2.0
LINGER_BODIES: Final = 16
"""What is thrown away after a refusal, at most: so many times the limit."""

BODILESS: Final = frozenset({"GET", "HEAD"})


class BodyLimit:
    """Pure ASGI middleware: 413 for a body over ``limit`` bytes, 408 for one that does not arrive in time."""

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self.app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on with its whole body, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif _declared_length(scope) > self._limit:
            await self._refuse_large(receive, send)
        elif scope["method"] in BODILESS:
            await self.app(scope, receive, send)
        else:
            await self._collect(scope, receive, send)

    async def _collect(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._limit:
                        break
        except TimeoutError:
            await _refuse(send, 408, f"the body did not arrive within {self._seconds:g} s")
            await send(_LAST)
            return
        if len(body) > self._limit:
            await self._refuse_large(receive if more else None, send)
        else:
            await self.app(scope, _replay(bytes(body), receive), send)

    async def _refuse_large(self, receive: Receive | None, send: Send) -> None:
        await _refuse(send, 413, f"the body is over {self._limit} bytes; send fewer rows at a time")
        if receive is not None:
            await _throw_away(receive, LINGER_BODIES * self._limit)
        await send(_LAST)


def _declared_length(scope: Scope) -> int:
    """What Content-Length says, 0 where nothing does; the HTTP parser has refused what is no number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that tells the whole body once, and then whatever the connection tells."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _throw_away(receive: Receive, most: int) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while most > 0:
                message = await receive()
                most -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def _refuse(send: Send, status: int, detail: str) -> None:
    """Tell the whole answer, but leave it open, for ``_LAST`` to end it and with it the connection."""
    content = encode(Problem(detail))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})


_LAST: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}


CORRELATION_HEADER: Final = "X-Correlation-ID"
CORRELATION_KEY: Final = "volspike.correlation_id"
"""Where the scope keeps the request's correlation id (bytes)."""

_RAW_HEADER_EDGE: Final = CORRELATION_HEADER.lower().encode()
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
                message["headers"] = [*message.get("headers", ()), *ALWAYS, (_RAW_HEADER_EDGE, identity)]
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
        if name == _RAW_HEADER_EDGE and _ACCEPTABLE.fullmatch(value):
            return value
    return uuid4().hex.encode()
