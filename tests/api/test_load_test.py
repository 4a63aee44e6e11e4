"""The load test: counts, latencies, and the connections of its clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from volspike.api.load_test import (
    LoadConnection,
    LoadMeasurement,
    LoadPlan,
    Target,
    build_report,
    example_bodies,
    fetch_version,
    run_load,
)
from volspike.errors import UsageError
from volspike.models import TEN_FEATURES

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"


async def run_against(talk: Talk, plan: LoadPlan) -> LoadMeasurement:
    """A load test of a server with this connection handler."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], None)
        return await run_load(target, [target.request("POST", "/predict", b"{}")], plan)


def respond(*answers: bytes, pause_at: int = -1, pause_s: float = 0.0) -> Talk:
    """Answers each request with the next response, repeating the last; pauses once before ``pause_at``."""
    count = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while True:
                await reader.readuntil(b"{}")
                number, count = count, count + 1
                if number == pause_at:
                    await asyncio.sleep(pause_s)
                writer.write(answers[min(number, len(answers) - 1)])
                if b"connection: close" in answers[min(number, len(answers) - 1)]:
                    break
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    return talk


def test_every_request_is_scored_once(process: Any) -> None:
    """The planned number of requests, with the features of the served model, is scored."""
    server = process(rate_limit=0)
    target = Target.of(f"http://127.0.0.1:{server.port}")

    async def run() -> LoadMeasurement:
        version = await fetch_version(target, None, 5.0)
        assert tuple(version.features) == TEN_FEATURES
        requests = [
            target.request("POST", "/predict", body)
            for body in (*example_bodies(version.features, 1), *example_bodies(version.features, 3))
        ]
        return await run_load(target, requests, LoadPlan(requests=205, concurrent=7))

    found = asyncio.run(run())
    assert (len(found.seconds), dict(found.errors)) == (205, {})
    with server.connect() as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        told = connection.makefile("rb").read().decode()
    assert "prediction_latency_seconds_count 205.0" in told


def test_rejected_requests_are_counted_by_status(process: Any) -> None:
    """Requests over the rate limit are errors, and their times are not latencies."""
    server = process(rate_limit=20)
    target = Target.of(f"http://127.0.0.1:{server.port}/")
    requests = [target.request("POST", "/predict", body) for body in example_bodies(TEN_FEATURES, 1)]
    plan = LoadPlan(requests=50, concurrent=5)
    found = asyncio.run(run_load(target, requests, plan))
    assert 20 <= len(found.seconds) <= 22
    assert dict(found.errors) == {"status 429": 50 - len(found.seconds)}
    facts = {"url": "u", "timestamp": "t", "model_version": "m", "model_digest": "d", "rows_per_request": 1}
    report = build_report(found, plan, **facts)
    assert report.success_rate == len(found.seconds) / 50
    assert report.failed_requests == report.errors["status 429"]
    ms = 1e3 * np.array(found.seconds)
    assert report.latency_ms.p95 == pytest.approx(np.percentile(ms, 95), abs=1e-3)
    assert report.latency_ms.min == pytest.approx(ms.min(), abs=1e-3)


def test_without_successful_requests_there_is_no_latency() -> None:
    """Undefined latencies are null."""
    plan = LoadPlan(requests=3, concurrent=1)
    found = asyncio.run(run_against(respond(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"), plan))
    facts = {"url": "u", "timestamp": "t", "model_version": "m", "model_digest": "d", "rows_per_request": 1}
    report = build_report(found, plan, **facts)
    assert (report.success_rate, report.latency_ms.p99, report.errors) == (0.0, None, {"status 503": 3})


def test_an_open_loop_counts_latency_from_the_due_time() -> None:
    """A pause of the server delays every request due in it; a closed loop has one slow request."""
    plans = [LoadPlan(requests=100, concurrent=1, rate=rate) for rate in (100.0, None)]
    by_clock, in_turn = (asyncio.run(run_against(respond(OK, pause_at=10, pause_s=0.4), plan)) for plan in plans)
    assert sum(second > 0.05 for second in by_clock.seconds) > 25
    assert sum(second > 0.05 for second in in_turn.seconds) < 10
    assert min(by_clock.seconds) >= 0.0
    assert by_clock.late_s > 0.3


def test_responses_in_parts_are_complete() -> None:
    """A chunked response, one after 100 Continue, and one before the connection closes are each counted once."""
    chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"
    last = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nOK"
    found = asyncio.run(run_against(respond(chunked, last, OK), LoadPlan(requests=6, concurrent=1)))
    assert (len(found.seconds), dict(found.errors)) == (6, {})


HALF = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"SSH-2.0\r\n\r\n", "ConnectionAbortedError"), (HALF, "ConnectionResetError"), (b"", "timeout")],
    ids=["not HTTP", "half a response", "no response"],
)
def test_invalid_responses_are_errors(answer: bytes, error: str) -> None:
    """Another protocol, half a response and no response are counted by name, and the test continues."""
    found = asyncio.run(run_against(respond(answer, OK), LoadPlan(requests=4, concurrent=1, timeout_s=0.2)))
    assert (len(found.seconds), dict(found.errors)) == (3, {error: 1})


def test_a_missing_server_fails_every_request() -> None:
    """Without a server every request fails with the name of the error."""

    async def run() -> LoadMeasurement:
        server = await asyncio.start_server(respond(OK), "127.0.0.1", 0)
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], None)
        server.close()
        await server.wait_closed()
        with pytest.raises(UsageError, match="start one with `volspike serve`"):
            await fetch_version(target, None, 1.0)
        with pytest.raises(ConnectionRefusedError):
            await LoadConnection.open(target)
        return await run_load(target, [b""], LoadPlan(requests=3, concurrent=2))

    assert dict(asyncio.run(run()).errors) == {"ConnectionRefusedError": 3}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "status 401"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "not a volspike server"),
    ],
)
def test_another_server_is_a_usage_error(answer: bytes, told: str) -> None:
    """A server that is not volspike, or requires a key, is named in the error."""

    async def run() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            await fetch_version(Target("127.0.0.1", server.sockets[0].getsockname()[1], None), None, 5.0)

    with pytest.raises(UsageError, match=told):
        asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host", "http://", "http://host/other", "http://[::1", "http://h:x"]
)
def test_an_invalid_url_is_refused(url: str) -> None:
    """Only http and https URLs of a server are accepted."""
    with pytest.raises(UsageError, match=r"is not (a|the) URL"):
        Target.of(url)


def test_urls_and_requests() -> None:
    """Schemes have default ports, IPv6 hosts brackets, and a key its header."""
    assert Target.of("http://[::1]:8000/predict").port == 8000
    assert Target.of("https://host").port == 443
    request = Target.of("http://[::1]:8000").request("POST", "/predict", b"{}", "a-key")
    assert request.startswith(b"POST /predict HTTP/1.1\r\nHost: [::1]:8000\r\nContent-Length: 2\r\n")
    assert b"\r\nX-API-Key: a-key\r\n" in request
    assert request.endswith(b"\r\n\r\n{}")


def test_example_rows_have_the_features_of_any_model() -> None:
    """A single row or a list of rows, with every feature, each a positive number."""
    one, many = json.loads(example_bodies(["a", "b"], 1)[3]), json.loads(example_bodies(["a", "b"], 2)[3])
    assert set(one["features"]) == {"a", "b"}
    assert [set(row) for row in many["rows"]] == [{"a", "b"}] * 2
    assert all(value > 0 for row in many["rows"] for value in row.values())
