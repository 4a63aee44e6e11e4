"""Middleware in front of the application: correlation id, logging, metrics, API key, rate limit, body limit.

All of it is pure ASGI and rejects requests with a JSON body before the application reads them.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from binascii import Error as Base64Error
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

from volspike.api.metrics import ApiMetrics
from volspike.api.schema import Problem, encode
from volspike.config import Secret
from volspike.telemetry import OTHER

SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Headers of every response: no content sniffing, no embedding by other sites."""

PAGE_HEADERS: Final = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Headers of HTML pages, in addition to their Content-Security-Policy. ``X-Frame-Options`` is for old browsers."""

CORRELATION_HEADER: Final = "X-Correlation-ID"
CORRELATION_KEY: Final = "volspike.correlation_id"
"""Key of the request's correlation id (bytes) in the ASGI scope."""

KEY_HEADER: Final = "X-API-Key"
OPEN_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready"})
"""Paths that need no API key, for process monitoring; they contain no market data."""

CLIENTS: Final = 10_000
"""How many clients the rate limit remembers, at about 200 bytes each."""

LINGER_SECONDS: Final = 2.0
LINGER_BODIES: Final = 16
"""How much is read and discarded after a rejected body, at most, in multiples of the limit."""

BODILESS_METHODS: Final = frozenset({"GET", "HEAD"})

_RAW_CORRELATION_HEADER: Final = CORRELATION_HEADER.lower().encode()
_CORRELATION_ID: Final = re.compile(rb"[\x21-\x7e]{1,128}")
_RAW_KEY_HEADER: Final = KEY_HEADER.lower().encode()
_CHALLENGE: Final = (b"www-authenticate", b'Basic realm="volspike", charset="UTF-8"')
_NO_KEY: Final = f"an API key is required: send it in {KEY_HEADER}, as a Bearer token, or as the Basic password"
_LAST: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}
_NETWORK_BITS: Final = 64

log = structlog.get_logger(__name__)


class Edge:
    """The outermost middleware: correlation id, response headers, request metrics and request log.

    ``endpoints`` are the paths that may be metric labels. Every log line of a request has its ``correlation_id``; with
    ``log_requests`` each response is logged, rejected requests (4xx) within the bound of ``RejectionLog``.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ApiMetrics,
        endpoints: Collection[str],
        *,
        log_requests: bool = False,
    ) -> None:
        self.app = app
        self._rejections = RejectionLog()
        self._metrics = metrics
        self._endpoints = endpoints
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with its correlation id in the header, and count it once by its status."""
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

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [
                    *message.get("headers", ()),
                    *SECURITY_HEADERS,
                    (_RAW_CORRELATION_HEADER, identity),
                ]
                self._metrics.count_request(scope["method"], endpoint, message["status"])
                is_rejected = 400 <= message["status"] < 500
                if self._log_requests and (not is_rejected or self._rejections.has_room()):
                    _log_request(scope, endpoint, message["status"], perf_counter() - began)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception:
            if not started:
                self._metrics.count_request(scope["method"], endpoint, 500)
            log.exception("request_failed", endpoint=endpoint, correlation_id=identity.decode())
            raise
        finally:
            unbind_contextvars("correlation_id")


class RejectionLog:
    """Bounds the log lines of rejected requests to ``most`` in ``every_s`` seconds, so that they cannot fill a disk.

    The others are counted, and their number is logged at the end of that time. ``http_requests_total`` has them all.
    Used in one event loop.
    """

    def __init__(self, most: int = 20, every_s: float = 60.0) -> None:
        self._most, self._every_s = most, every_s
        self._logged = self._suppressed = 0
        self._end: asyncio.TimerHandle | None = None

    def has_room(self) -> bool:
        """Whether to log a rejected request, which counts it; False if there were too many."""
        if self._end is None:
            self._end = asyncio.get_running_loop().call_later(self._every_s, self._finish)
        if self._logged == self._most:
            self._suppressed += 1
            return False
        self._logged += 1
        return True

    def _finish(self) -> None:
        if self._suppressed:
            log.warning("request_rejections_suppressed", suppressed=self._suppressed, seconds=self._every_s)
        self._logged = self._suppressed = 0
        self._end = None


def _log_request(scope: Scope, endpoint: str, status: int, seconds: float) -> None:
    """Log a response with the request's method, route and client address, but none of its headers."""
    method, client = scope["method"], client_of(scope)
    log.info("request", method=method, endpoint=endpoint, status=status, ms=round(1e3 * seconds, 3), client=client)


def correlation_id(headers: Collection[tuple[bytes, bytes]]) -> bytes:
    """The client's id if it is 1 to 128 visible ASCII characters, else a new one."""
    for name, value in headers:
        if name == _RAW_CORRELATION_HEADER and _CORRELATION_ID.fullmatch(value):
            return value
    return uuid4().hex.encode()


class ApiKey:
    """Requires the API key, except for ``open_paths``; rejects with 401.

    A request may send the key in three ways: ``X-API-Key`` (programs), ``Authorization: Bearer`` (Prometheus), or
    ``Authorization: Basic`` with the key as password and any user name (browsers, which then send it with every
    request, including ``/stream``, where a page cannot set a header).
    """

    def __init__(self, app: ASGIApp, key: Secret, open_paths: Collection[str] = OPEN_PATHS) -> None:
        self.app = app
        self._key = key.reveal().encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or reject it before its body is read."""
        if scope["type"] != "http" or scope["path"] in self._open_paths or self._has_key(scope["headers"]):
            await self.app(scope, receive, send)
        else:
            await reject(send, 401, _NO_KEY, _CHALLENGE)

    def _has_key(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Compares in constant time."""
        return any(compare_digest(key, self._key) for key in keys_of(headers))


def keys_of(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The API keys in a request's headers, in any of the three forms.

    >>> list(keys_of([(b"x-api-key", b"a"), (b"authorization", b"Bearer b"), (b"authorization", b"Basic YW55Om0=")]))
    [b'a', b'b', b'm']
    """
    for name, value in headers:
        if name == _RAW_KEY_HEADER:
            yield value
        elif name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                yield credentials.strip()
            elif scheme.lower() == b"basic":
                yield _password_of(credentials)


def _password_of(credentials: bytes) -> bytes:
    try:
        return b64decode(credentials.strip(), validate=True).partition(b":")[2]
    except Base64Error:
        return b""


class RateLimit:
    """Limits each client to ``per_minute`` requests to ``paths``, with bursts up to the same number."""

    def __init__(
        self, app: ASGIApp, per_minute: int, paths: Collection[str], clock: Callable[[], float] = monotonic
    ) -> None:
        self.app = app
        self._per_minute = per_minute
        self._paths = paths
        self._clock = clock
        self._buckets = TokenBuckets(per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on while its client has tokens; else 429 with ``Retry-After``, without reading the body."""
        if scope["type"] == "http" and scope["path"] in self._paths:
            wait_s = self._buckets.take(client_of(scope), self._clock())
            if wait_s > 0.0:
                seconds = ceil(wait_s)
                detail = f"this client exceeds {self._per_minute} requests a minute; try again in {seconds} s"
                await reject(send, 429, detail, (b"retry-after", str(seconds).encode()))
                return
        await self.app(scope, receive, send)


class TokenBuckets:
    """A token bucket per client: ``per_minute`` tokens at first, one per request, refilled at ``per_minute`` a minute.

    Memory is bounded: with more than ``clients`` the least recently seen is forgotten and starts with a full bucket.
    """

    def __init__(self, per_minute: int, clients: int = CLIENTS) -> None:
        self._capacity = float(per_minute)
        self._per_s = per_minute / 60.0
        self._clients = clients
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # client → tokens, time of that count

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str, now_s: float) -> float:
        """Take a token: 0.0 if there was one, else the seconds until the next. ``now_s`` never decreases."""
        bucket = self._buckets.get(client)
        if bucket is None:
            tokens = self._capacity
            if len(self._buckets) >= self._clients:
                self._buckets.popitem(last=False)
        else:
            tokens = min(self._capacity, bucket[0] + (now_s - bucket[1]) * self._per_s)
        wait_s = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._per_s
        self._buckets[client] = (tokens if wait_s else tokens - 1.0, now_s)
        self._buckets.move_to_end(client)
        return wait_s


def client_of(scope: Scope) -> str:
    """The client's IPv4 address, or the /64 network of its IPv6 address, which belongs to one household.

    Behind a trusted proxy (see ``ServingSettings``) it is the address that the proxy reports; empty if unknown.

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
        parsed = IPv6Address(address)
    except ValueError:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    network = int(parsed) >> _NETWORK_BITS << _NETWORK_BITS
    return f"{IPv6Address(network)}/{_NETWORK_BITS}"


class BodyLimit:
    """Reads each body and passes it on in one message; 413 for a body over ``limit`` bytes, 408 for a late one.

    After a 413 the rest of the body is read and discarded for a short while: closing a socket with unread bytes resets
    it, and the client would lose the response (RFC 9112, section 9.6). Starlette's ``max_body_size`` cannot replace
    this: for a declared length it sends its own plain text, and nothing reads on after its response.
    """

    def __init__(self, app: ASGIApp, limit: int, seconds: float) -> None:
        self.app = app
        self._limit = limit
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its complete body, or reject it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif _content_length(scope) > self._limit:
            await self._reject_large(receive, send)
        elif scope["method"] in BODILESS_METHODS:
            await self.app(scope, receive, send)
        else:
            await self._read_body(scope, receive, send)

    async def _read_body(self, scope: Scope, receive: Receive, send: Send) -> None:
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
            await _begin_rejection(send, 408, f"the body did not arrive within {self._seconds:g} s")
            await send(_LAST)
            return
        if len(body) > self._limit:
            await self._reject_large(receive if more else None, send)
        else:
            await self.app(scope, _replay(bytes(body), receive), send)

    async def _reject_large(self, receive: Receive | None, send: Send) -> None:
        await _begin_rejection(send, 413, f"the body is over {self._limit} bytes; send fewer rows per request")
        if receive is not None:
            await _discard(receive, LINGER_BODIES * self._limit)
        await send(_LAST)


def _content_length(scope: Scope) -> int:
    """The Content-Length, 0 without one; the HTTP parser has rejected anything that is not a number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that returns the complete body once, and then the messages of the connection."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


async def _discard(receive: Receive, max_bytes: int) -> None:
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while max_bytes > 0:
                message = await receive()
                max_bytes -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def reject(send: Send, status: int, detail: str, *headers: tuple[bytes, bytes]) -> None:
    """Send an error without reading the body, which uvicorn discards; the connection stays open."""
    await _send_problem(send, status, detail, headers, more_body=False)


async def _begin_rejection(send: Send, status: int, detail: str) -> None:
    """Send a complete error, but leave the response open: ``_LAST`` ends it, and closes the connection."""
    await _send_problem(send, status, detail, [(b"connection", b"close")], more_body=True)


async def _send_problem(
    send: Send, status: int, detail: str, headers: Iterable[tuple[bytes, bytes]], *, more_body: bool
) -> None:
    content = encode(Problem(detail))
    all_headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})
    await send({"type": "http.response.body", "body": content, "more_body": more_body})
