"""One kept connection of a load test: a request out, its whole answer in, and the time between.

Made of asyncio's protocols and httptools, which the server parses with as well: httpx takes longer for a request than
the server for its answer, and would measure itself.

A load test of ``/predict``: so many requests, by so many clients, one after the other or by the clock.

Closed loop: each client asks anew once it is answered, so that a slow server is asked less. Open loop (``rate``):
requests are due by the clock whether or not the server keeps up, and each is timed from when it was due, not from when
a client was free for it; else the slowest moments would hide what waited behind them (coordinated omission).

What a load test found, as the file that is kept of it.
"""

from __future__ import annotations

import asyncio
import ssl
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Final, Literal, cast
from urllib.parse import urlsplit

import httptools
import msgspec
import numpy as np

from volspike.api.answers import Version
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


OnAnswer = Callable[[Answer], None]
OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """How much is asked, by how many clients at once; ``rate`` is requests a second, None for a closed loop."""

    requests: int = 1000
    concurrent: int = 10
    rate: float | None = None
    timeout_s: float = 30.0


@dataclass(slots=True)
class Measured:
    """What was found: seconds of each request that was answered well, why the others were not, and the clocks."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    client_cpu_s: float = 0.0
    late_s: float = 0.0
    """How long after it was due the latest request was sent; 0 in a closed loop."""


async def served_by(target: Target, key: str | None, within_s: float) -> Version:
    """What the server says it serves.

    Raises:
        UsageError: nobody answers, it wants a key, or it is no volspike.
    """
    try:
        connection = await LoadConnection.open(target)
        answer = await connection.ask(target.request("GET", "/version", key=key), within_s)
        connection.close()
    except OSError as error:
        raise UsageError(
            f"no server at {target.host}:{target.port}: {error}; start one with `volspike serve`"
        ) from error
    if answer.status != OK:
        raise UsageError(f"{target.host}:{target.port} answers /version with status {answer.status}; is the key right?")
    try:
        version = msgspec.json.decode(answer.body, type=Version)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{target.host}:{target.port} is another server: its /version is not ours ({error})"
        ) from error
    if version.model is None:
        raise UsageError(f"{target.host}:{target.port} serves no model; its /health says why")
    return version


def bodies(features: Sequence[str], rows: int, variety: int = 16) -> list[bytes]:
    """``variety`` bodies of ``rows`` rows each (1: one row alone) of made-up values, the same in every run."""
    made = []
    for number in range(variety):
        told = [_row(features, number * rows + index) for index in range(rows)]
        made.append(msgspec.json.encode({"features": told[0]} if rows == 1 else {"rows": told}))
    return made


def _row(features: Sequence[str], number: int) -> dict[str, float]:
    """Small positive numbers, which every feature can be: a volatility of nothing has no logarithm."""
    return {name: round(1e-4 * (1 + (7 * number + 3 * place) % 97), 7) for place, name in enumerate(features)}


async def load(
    target: Target, requests: Sequence[bytes], plan: LoadPlan, on_answer: OnAnswer | None = None
) -> Measured:
    """Send the plan's number of requests, the given ones in turn; ``on_answer`` is told of each answer."""
    found = Measured()
    due = _due(plan)
    began, cpu = perf_counter(), process_time()
    clients = (_client(target, requests, plan, due, began, found, on_answer) for _ in range(plan.concurrent))
    await asyncio.gather(*clients)
    found.wall_s, found.client_cpu_s = perf_counter() - began, process_time() - cpu
    return found


def _due(plan: LoadPlan) -> Iterator[tuple[int, float | None]]:
    """Each request's number, and the seconds after the beginning at which it is due."""
    for number in range(plan.requests):
        yield number, None if plan.rate is None else number / plan.rate


async def _client(
    target: Target,
    requests: Sequence[bytes],
    plan: LoadPlan,
    due: Iterator[tuple[int, float | None]],
    began: float,
    found: Measured,
    on_answer: OnAnswer | None,
) -> None:
    """One client: takes the next request that nobody has, waits until it is due, asks, and notes what came of it."""
    connection: LoadConnection | None = None
    for number, after_s in due:
        start = perf_counter()
        if after_s is not None:
            await asyncio.sleep(max(0.0, began + after_s - start))
            start = min(began + after_s, perf_counter())  # a loop's clock is coarse, and may be early
            found.late_s = max(found.late_s, perf_counter() - start)
        try:
            if connection is None or not connection.is_open:
                async with asyncio.timeout(plan.timeout_s):
                    connection = await LoadConnection.open(target)
            answer = await connection.ask(requests[number % len(requests)], plan.timeout_s)
        except TimeoutError:
            found.errors["timeout"] += 1
        except OSError as error:
            found.errors[type(error).__name__] += 1
        else:
            if answer.status == OK:
                found.seconds.append(answer.at - start)
            else:
                found.errors[f"status {answer.status}"] += 1
            if on_answer is not None:
                on_answer(answer)
    if connection is not None:
        connection.close()


class LatencyMs(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of the requests that were answered well; null where none was."""

    min: float | None
    mean: float | None
    median: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """A load test. ``latency_ms`` is from when a request was sent, or, in an open loop, from when it was due."""

    url: str
    timestamp: str
    model_version: str
    model_digest: str
    mode: Literal["closed", "open"]
    concurrent: int
    rate: float | None
    rows_per_request: int
    total_requests: int
    successful_requests: int
    failed_requests: int
    success_rate: float
    errors: dict[str, int]
    total_time_seconds: float
    requests_per_second: float
    latency_ms: LatencyMs
    latest_start_ms: float
    client_cpu_share: float


def reported(measured: Measured, plan: LoadPlan, **facts: object) -> LoadReport:
    """The report; ``facts`` are its fields that neither the plan nor the measurement knows."""
    successful = len(measured.seconds)
    failed = measured.errors.total()
    told = {
        "mode": "closed" if plan.rate is None else "open",
        "concurrent": plan.concurrent,
        "rate": plan.rate,
        "total_requests": successful + failed,
        "successful_requests": successful,
        "failed_requests": failed,
        "success_rate": successful / (successful + failed),
        "errors": dict(measured.errors),
        "total_time_seconds": round(measured.wall_s, 6),
        "requests_per_second": round(successful / measured.wall_s, 2),
        "latency_ms": _latency(measured),
        "latest_start_ms": round(1e3 * measured.late_s, 4),
        "client_cpu_share": round(measured.client_cpu_s / measured.wall_s, 4),
        **facts,
    }
    return msgspec.convert(told, LoadReport, from_attributes=True)


def _latency(measured: Measured) -> LatencyMs:
    if not measured.seconds:
        return LatencyMs(min=None, mean=None, median=None, p50=None, p95=None, p99=None, max=None)
    ms = 1e3 * np.frombuffer(measured.seconds)
    middle, high, highest = (round(float(value), 4) for value in np.percentile(ms, [50, 95, 99]))
    return LatencyMs(
        min=round(float(ms.min()), 4),
        mean=round(float(ms.mean()), 4),
        median=middle,
        p50=middle,
        p95=high,
        p99=highest,
        max=round(float(ms.max()), 4),
    )
