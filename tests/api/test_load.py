"""The load test: what it counts, and from when it times."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from volspike.api.load_test import LoadConnection, LoadPlan, Measured, Target, bodies, load, reported, served_by
from volspike.errors import UsageError
from volspike.models import TEN_FEATURES

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WELL = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nOK"


async def asked(talk: Talk, plan: LoadPlan) -> Measured:
    """A load test of a server that talks like this."""
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], None)
        return await load(target, [target.request("POST", "/predict", b"{}")], plan)


def saying(*answers: bytes, pause_at: int = -1, pause_s: float = 0.0) -> Talk:
    """Answers each request with the next of the answers, the last again and again; once it takes its time."""
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


def test_every_request_is_answered_once(process: Any) -> None:
    """As many requests as were asked for, of rows of the served model's features, all scored by it."""
    server = process(rate_limit=0)
    target = Target.of(f"http://127.0.0.1:{server.port}")

    async def run() -> Measured:
        version = await served_by(target, None, 5.0)
        assert tuple(version.features) == TEN_FEATURES
        requests = [
            target.request("POST", "/predict", body)
            for body in (*bodies(version.features, 1), *bodies(version.features, 3))
        ]
        return await load(target, requests, LoadPlan(requests=205, concurrent=7))

    found = asyncio.run(run())
    assert (len(found.seconds), dict(found.errors)) == (205, {})
    with server.connect() as connection:
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        told = connection.makefile("rb").read().decode()
    assert "prediction_latency_seconds_count 205.0" in told


def test_refusals_are_errors_by_their_names(process: Any) -> None:
    """What the rate limit turns away is counted as that, and its time is no latency."""
    server = process(rate_limit=20)
    target = Target.of(f"http://127.0.0.1:{server.port}/")
    requests = [target.request("POST", "/predict", body) for body in bodies(TEN_FEATURES, 1)]
    plan = LoadPlan(requests=50, concurrent=5)
    found = asyncio.run(load(target, requests, plan))
    assert 20 <= len(found.seconds) <= 22
    assert dict(found.errors) == {"status 429": 50 - len(found.seconds)}
    facts = {"url": "u", "timestamp": "t", "model_version": "m", "model_digest": "d", "rows_per_request": 1}
    report = reported(found, plan, **facts)
    assert report.success_rate == len(found.seconds) / 50
    assert report.failed_requests == report.errors["status 429"]
    ms = 1e3 * np.array(found.seconds)
    assert report.latency_ms.p95 == pytest.approx(np.percentile(ms, 95), abs=1e-3)
    assert report.latency_ms.min == pytest.approx(ms.min(), abs=1e-3)


def test_nothing_answered_has_no_latency() -> None:
    """Figures that are not known are null, and nothing is divided by none."""
    plan = LoadPlan(requests=3, concurrent=1)
    found = asyncio.run(asked(saying(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"), plan))
    facts = {"url": "u", "timestamp": "t", "model_version": "m", "model_digest": "d", "rows_per_request": 1}
    report = reported(found, plan, **facts)
    assert (report.success_rate, report.latency_ms.p99, report.errors) == (0.0, None, {"status 503": 3})


def test_an_open_loop_times_from_when_a_request_was_due() -> None:
    """A server that stops for a moment delays all that was due meanwhile; a closed loop sees one slow request."""
    clock, turns = LoadPlan(requests=100, concurrent=1, rate=100.0), LoadPlan(requests=100, concurrent=1)
    by_clock, in_turn = (asyncio.run(asked(saying(WELL, pause_at=10, pause_s=0.4), plan)) for plan in (clock, turns))
    assert sum(second > 0.05 for second in by_clock.seconds) > 25
    assert sum(second > 0.05 for second in in_turn.seconds) < 10
    assert min(by_clock.seconds) >= 0.0
    assert by_clock.late_s > 0.3


def test_an_answer_in_pieces_is_one() -> None:
    """Chunked, after a 100 Continue, or before the connection ends: each is an answer, and a new connection follows."""
    chunked = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nOK\r\n0\r\n\r\n"
    last = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nOK"
    found = asyncio.run(asked(saying(chunked, last, WELL), LoadPlan(requests=6, concurrent=1)))
    assert (len(found.seconds), dict(found.errors)) == (6, {})


HALF = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 9\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"SSH-2.0\r\n\r\n", "ConnectionAbortedError"), (HALF, "ConnectionResetError"), (b"", "timeout")],
    ids=["no HTTP", "half an answer", "none"],
)
def test_what_is_no_answer_is_an_error(answer: bytes, error: str) -> None:
    """Another protocol, half an answer, silence: each is counted under its name, and the test goes on."""
    found = asyncio.run(asked(saying(answer, WELL), LoadPlan(requests=4, concurrent=1, timeout_s=0.2)))
    assert (len(found.seconds), dict(found.errors)) == (3, {error: 1})


def test_a_server_that_is_not_there_is_counted_out() -> None:
    """Where nobody answers, every request fails by name."""

    async def run() -> Measured:
        server = await asyncio.start_server(saying(WELL), "127.0.0.1", 0)
        target = Target("127.0.0.1", server.sockets[0].getsockname()[1], None)
        server.close()
        await server.wait_closed()
        with pytest.raises(UsageError, match="start one with `volspike serve`"):
            await served_by(target, None, 1.0)
        with pytest.raises(ConnectionRefusedError):
            await LoadConnection.open(target)
        return await load(target, [b""], LoadPlan(requests=3, concurrent=2))

    assert dict(asyncio.run(run()).errors) == {"ConnectionRefusedError": 3}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n", "status 401"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", "another server"),
    ],
)
def test_a_server_of_another_kind_is_told(answer: bytes, told: str) -> None:
    """What is no volspike, or wants a key, is an error of usage that says so."""

    async def run() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            await served_by(Target("127.0.0.1", server.sockets[0].getsockname()[1], None), None, 5.0)

    with pytest.raises(UsageError, match=told):
        asyncio.run(run())


@pytest.mark.parametrize(
    "url", ["", "localhost:8000", "ftp://host", "http://", "http://host/other", "http://[::1", "http://h:x"]
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    """Only addresses of servers of the web are taken."""
    with pytest.raises(UsageError, match="no address"):
        Target.of(url)


def test_addresses_and_requests() -> None:
    """Schemes have their ports, IPv6 its brackets, and a key its header."""
    assert Target.of("http://[::1]:8000/predict").port == 8000
    assert Target.of("https://host").port == 443
    request = Target.of("http://[::1]:8000").request("POST", "/predict", b"{}", "a-key")
    assert request.startswith(b"POST /predict HTTP/1.1\r\nHost: [::1]:8000\r\nContent-Length: 2\r\n")
    assert b"\r\nX-API-Key: a-key\r\n" in request
    assert request.endswith(b"\r\n\r\n{}")


def test_rows_are_made_for_whatever_model_is_served() -> None:
    """One row alone or several in a list, with every feature, each a positive number."""
    one, many = json.loads(bodies(["a", "b"], 1)[3]), json.loads(bodies(["a", "b"], 2)[3])
    assert set(one["features"]) == {"a", "b"}
    assert [set(row) for row in many["rows"]] == [{"a", "b"}] * 2
    assert all(value > 0 for row in many["rows"] for value in row.values())
