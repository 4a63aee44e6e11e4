"""Load test of ``/predict``: a number of requests from concurrent clients, and the report of their latencies.

Closed loop: each client sends its next request once it has the response, so a slow server receives fewer. Open loop
(``rate``): requests are due by the clock whether or not the server keeps up, and latency counts from the time a request
was due, not from when a client was free; otherwise the slowest moments would hide the wait behind them (coordinated
omission).

The client is made of asyncio protocols and httptools, which the server uses as well: httpx needs more time for a
request than the server for its response, and would measure itself.
"""

from __future__ import annotations

import asyncio
import ssl
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter, process_time
from typing import Final, Literal, TypeAlias, cast
from urllib.parse import urlsplit

import httptools
import msgspec
import numpy as np

from volspike.api.schema import Version
from volspike.errors import UsageError

MAX_ANSWER_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a server, and TLS settings for https."""

    host: str
    port: int
    tls: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str) -> Target:
        """The server at a URL.

        Raises:
            UsageError: not an http or https URL, or one with another path.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise UsageError(f"{url!r} is not a URL: {error}") from error
        if parts.scheme not in {"http", "https"} or not host or parts.path not in {"", "/", "/predict"}:
            raise UsageError(f"{url!r} is not the URL of a server; use one such as http://127.0.0.1:8000")
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        return cls(host, port or (443 if tls else 80), tls)

    def request(self, method: str, path: str, body: bytes = b"", key: str | None = None) -> bytes:
        """The bytes of a request."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}:{self.port}", f"Content-Length: {len(body)}"]
        lines += ["Content-Type: application/json"] if body else []
        lines += [f"X-API-Key: {key}"] if key is not None else []
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, and when it was complete (``perf_counter`` seconds)."""

    status: int
    body: bytes
    at: float


class LoadConnection(asyncio.Protocol):
    """A kept connection with at most one request in flight."""

    def __init__(self) -> None:
        self._answered: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self._size = 0

    @classmethod
    async def open(cls, target: Target) -> LoadConnection:
        """Connect.

        Raises:
            OSError: no server accepts the connection.
        """
        loop = asyncio.get_running_loop()
        make: Callable[[], LoadConnection] = cls
        _, connection = await loop.create_connection(make, target.host, target.port, ssl=target.tls)
        return connection

    @property
    def is_open(self) -> bool:
        """Whether a request can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, request: bytes, timeout_s: float) -> Answer:
        """Send a request and return the complete response.

        Raises:
            TimeoutError: the response did not arrive in time; the connection is closed.
            ConnectionError: the server closed the connection or did not respond in HTTP.
        """
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Answer] = loop.create_future()
        self._answered = answered
        self._parser = httptools.HttpResponseParser(self)
        timer = loop.call_later(timeout_s, self._fail, TimeoutError(f"no response within {timeout_s:g} s"))
        self._transport.write(request)
        try:
            return await answered
        finally:
            timer.cancel()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports share no base class with it

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail the pending request."""
        self._fail(
            exc if isinstance(exc, ConnectionError) else ConnectionResetError("the server closed the connection")
        )

    def data_received(self, data: bytes) -> None:
        """Parse a part of a response."""
        if self._answered is None or self._answered.done():
            self.close()  # no request is pending
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail(ConnectionAbortedError("the response is not HTTP"))

    def on_message_begin(self) -> None:
        """A response begins."""
        self._body, self._size = [], 0

    def on_body(self, body: bytes) -> None:
        """Collect a part of the body."""
        self._body.append(body)
        self._size += len(body)
        if self._size > MAX_ANSWER_BYTES:
            self._fail(ConnectionAbortedError("the response is too large"))

    def on_message_complete(self) -> None:
        """Complete the request; close the connection if the server says so."""
        at, status = perf_counter(), self._parser.get_status_code()
        if status < 200:  # 100 Continue precedes the response
            return
        if not self._parser.should_keep_alive():
            self.close()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result(Answer(status, b"".join(self._body), at))

    def _fail(self, error: Exception) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error)
            self.close()


OnAnswer: TypeAlias = Callable[[Answer], None]
OK = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """Number of requests and concurrent clients; ``rate`` is requests per second, None for a closed loop."""

    requests: int = 1000
    concurrent: int = 10
    rate: float | None = None
    timeout_s: float = 30.0


@dataclass(slots=True)
class LoadMeasurement:
    """Seconds of each successful request, the number of failures by cause, and the elapsed times."""

    seconds: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    wall_s: float = 0.0
    client_cpu_s: float = 0.0
    late_s: float = 0.0
    """The longest delay between the time a request was due and its start; 0 in a closed loop."""


async def fetch_version(target: Target, key: str | None, timeout_s: float) -> Version:
    """The server's ``/version``.

    Raises:
        UsageError: no server responds, it requires another key, it is not volspike, or it serves no model.
    """
    try:
        connection = await LoadConnection.open(target)
        answer = await connection.send(target.request("GET", "/version", key=key), timeout_s)
        connection.close()
    except OSError as error:
        raise UsageError(
            f"no server at {target.host}:{target.port}: {error}; start one with `volspike serve`"
        ) from error
    if answer.status != OK:
        raise UsageError(
            f"{target.host}:{target.port} responds to /version with status {answer.status}; check --api-key-file"
        )
    try:
        version = msgspec.json.decode(answer.body, type=Version)
    except msgspec.DecodeError as error:
        raise UsageError(
            f"{target.host}:{target.port} is not a volspike server: its /version is not valid ({error})"
        ) from error
    if version.model is None:
        raise UsageError(f"{target.host}:{target.port} serves no model; its /health has the reason")
    return version


def example_bodies(features: Sequence[str], rows: int, variety: int = 16) -> list[bytes]:
    """``variety`` bodies of ``rows`` rows each (1: a single row) with artificial values, the same in every run."""
    bodies = []
    for number in range(variety):
        values = [_row(features, number * rows + index) for index in range(rows)]
        bodies.append(msgspec.json.encode({"features": values[0]} if rows == 1 else {"rows": values}))
    return bodies


def _row(features: Sequence[str], number: int) -> dict[str, float]:
    """Small positive numbers, valid for every feature: a volatility of 0 has no logarithm."""
    return {name: round(1e-4 * (1 + (7 * number + 3 * place) % 97), 7) for place, name in enumerate(features)}


async def run_load(
    target: Target,
    requests: Sequence[bytes],
    plan: LoadPlan,
    on_answer: OnAnswer | None = None,
    found: LoadMeasurement | None = None,
) -> LoadMeasurement:
    """Send the planned number of requests, cycling through ``requests``; ``on_answer`` receives each response.

    Results are added to ``found``, so that the progress can be read there.
    """
    found = LoadMeasurement() if found is None else found
    due = _due_times(plan)
    began, cpu = perf_counter(), process_time()
    clients = (_client(target, requests, plan, due, began, found, on_answer) for _ in range(plan.concurrent))
    await asyncio.gather(*clients)
    found.wall_s, found.client_cpu_s = perf_counter() - began, process_time() - cpu
    return found


def _due_times(plan: LoadPlan) -> Iterator[tuple[int, float | None]]:
    """Each request's number, and the seconds after the start at which it is due."""
    for number in range(plan.requests):
        yield number, None if plan.rate is None else number / plan.rate


async def _client(
    target: Target,
    requests: Sequence[bytes],
    plan: LoadPlan,
    due: Iterator[tuple[int, float | None]],
    began: float,
    found: LoadMeasurement,
    on_answer: OnAnswer | None,
) -> None:
    """One client: takes the next request, waits until it is due, sends it, and records the result."""
    connection: LoadConnection | None = None
    for number, after_s in due:
        start = perf_counter()
        if after_s is not None:
            await asyncio.sleep(max(0.0, began + after_s - start))
            start = min(began + after_s, perf_counter())  # the loop's clock is coarse and may be early
            found.late_s = max(found.late_s, perf_counter() - start)
        try:
            if connection is None or not connection.is_open:
                async with asyncio.timeout(plan.timeout_s):
                    connection = await LoadConnection.open(target)
            answer = await connection.send(requests[number % len(requests)], plan.timeout_s)
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
    """Milliseconds of the successful requests; null if there was none."""

    min: float | None
    mean: float | None
    median: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a load test. ``latency_ms`` starts when a request is sent, or in an open loop when it is due."""

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


def build_report(measured: LoadMeasurement, plan: LoadPlan, **facts: object) -> LoadReport:
    """The report; ``facts`` are the fields that are in neither the plan nor the measurement."""
    successful = len(measured.seconds)
    failed = measured.errors.total()
    fields = {
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
    return msgspec.convert(fields, LoadReport, from_attributes=True)


def _latency(measured: LoadMeasurement) -> LatencyMs:
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
