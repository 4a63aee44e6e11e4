"""One kept connection of a load test: a request out, its whole answer in, and the time between.

Made of asyncio's protocols and httptools, which the server parses with as well: httpx takes longer for a request than
the server for its answer, and would measure itself.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

from volspike.errors import UsageError

MOST_ANSWER_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """A server: where it is, and how it is spoken to."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str) -> Target:
        """The server of an address.

        Raises:
            UsageError: it is none of the web, or has a path of its own.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"no address {url!r}: {error}") from error
        if parts.scheme not in {"http", "https"} or not host or parts.path not in {"", "/", "/predict"}:
            raise UsageError(f"no address of a server: {url!r}; give one such as http://127.0.0.1:8000")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(host, port or (443 if tls else 80), tls)

    def request(self, method: str, path: str, body: bytes = b"", key: str | None = None) -> bytes:
        """A whole request, ready to be sent."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{self.port}", f"Content-Length: {len(body)}"]
        lines += ["Content-Type: application/json"] if body else []
        lines += [f"X-API-Key: {key}"] if key is not None else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and when the last of it did (``perf_counter`` seconds)."""

    status: int
    body: bytes
    at: float


class LoadConnection(asyncio.Protocol):
    """A client with one request in flight at most."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self._size = 0

    @classmethod
    async def open(cls, target: Target) -> LoadConnection:
        """Connect.

        Raises:
            OSError: nobody answers there.
        """
        loop = asyncio.get_running_loop()
        make: Callable[[], LoadConnection] = cls
        _, connection = await loop.create_connection(make, target.host, target.port, ssl=target.tls)
        return connection

    @property
    def is_open(self) -> bool:
        """Whether another request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def ask(self, request: bytes, within_s: float) -> Answer:
        """Send a request and wait for its whole answer.

        Raises:
            TimeoutError: it did not come in time; the connection is closed.
            ConnectionError: the server ended the connection, or told no HTTP.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        self._answered = answered
        self._parser = httptools.HttpResponseParser(self)
        late = loop.call_later(within_s, self._fail, TimeoutError(f"no answer within {within_s:g} s"))
        self._transport.write(request)
        try:
            return await answered
        finally:
            late.cancel()

    def close(self) -> None:
        """End the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports have no parent in common with it

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for an answer waits in vain."""
        self._fail(exc if isinstance(exc, ConnectionError) else ConnectionResetError("the server ended the connection"))

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        if self._answered is None or self._answered.done():
            self.close()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(ConnectionAbortedError("the answer is no HTTP"))

    def on_message_begin(self) -> None:
        """An answer begins."""
        self._body, self._size = [], 0

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._body.append(body)
        self._size += len(body)
        if self._size > MOST_ANSWER_BYTES:
            self._fail(ConnectionAbortedError("the answer has no end"))

    def on_message_complete(self) -> None:
        """Hand the answer over; the connection ends where the server says so."""
        at, status = perf_counter(), self._parser.get_status_code()
        if status < 200:  # 100 Continue comes before the answer
            return
        if not self._parser.should_keep_alive():
            self.close()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(Answer(status, b"".join(self._body), at))

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
            self.close()
