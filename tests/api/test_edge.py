"""Correlation ids, failures of the server's own, and the limit of bodies, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from volspike.api.edge import BodyLimit, correlation_id

ROW = {"spread_mean_60s": 0.2, "log_return_60s": -1.0, "trade_intensity_60s": 7}
HEADER = "X-Correlation-ID"


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/docs"])
def test_correlation_id_comes_back(client: Any, path: str) -> None:
    """The client's id is in the answer's headers, whatever the answer is."""
    assert client.get(path, headers={HEADER: "trace-7/~!"}).headers[HEADER] == "trace-7/~!"


@pytest.mark.parametrize("given", ["", "a b", "é".encode(), "x" * 129, b"a\x7f"])
def test_unacceptable_correlation_ids_are_replaced(given: str | bytes) -> None:
    """An id that is empty, long or not visible ASCII gives way to a new one."""
    raw = given if isinstance(given, bytes) else given.encode()
    made = correlation_id([(b"x-correlation-id", raw)])
    assert made != raw
    assert len(made) == 32


def test_correlation_ids_are_made_anew() -> None:
    """Requests without an id get different ones, and the longest allowed one stays."""
    assert correlation_id([]) != correlation_id([])
    assert correlation_id([(b"x-correlation-id", b"x" * 128)]) == b"x" * 128


def test_a_failing_model_is_told_in_json(served: Any, fake: Any) -> None:
    """A fault inside the model is 500 with a sentence and the correlation id, counted once and logged."""

    class Broken(type(fake)):  # type: ignore[misc]
        def probability_of(self, row: Any) -> float:
            if row[0] == ROW["spread_mean_60s"]:
                raise RuntimeError("broken graph")
            return float(super().probability_of(row))

    client = served(Broken())
    with capture_logs() as logged:
        body = json.dumps({"features": ROW})
        failed = client.ask("POST", "/predict", content=body, headers={HEADER: "abc"})
    assert failed.status_code == 500
    assert failed.headers[HEADER] == "abc"
    assert "abc" in failed.json()["detail"]
    assert [event["event"] for event in logged] == ["request_failed"]
    assert client.metric('http_requests_total{endpoint="/predict",method="POST",status="500"}') == 1


def test_bodies_over_the_limit_are_refused(served: Any) -> None:
    """A body of the limit is read, one byte more is 413, declared or in chunks; each is counted on its route."""
    client = served(max_body_bytes=256)
    body = json.dumps({"features": ROW}).encode()
    assert client.predict(body.ljust(256)).status_code == 200

    async def chunks() -> Any:
        for start in range(0, 257, 100):
            yield body.ljust(257)[start : start + 100]

    for content in (body.ljust(257), chunks()):
        refused = client.ask("POST", "/predict", content=content)
        assert refused.status_code == 413
        assert refused.json() == {"detail": "the body is over 256 bytes; send fewer rows at a time"}
        assert refused.headers["connection"] == "close"
        assert HEADER in refused.headers
    assert client.metric('http_requests_total{endpoint="/predict",method="POST",status="413"}') == 2


def _asked(messages: Iterator[dict[str, Any]], **options: Any) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What a limit of 10 bytes sends, and the bodies that reach the application; then silence."""
    sent: list[dict[str, Any]] = []
    reached: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append((await receive())["body"])

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": []}
    asyncio.run(BodyLimit(app, 10, **{"seconds": 30.0, **options})(scope, receive, send))
    return sent, reached


def _part(body: bytes) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": True}


def test_a_body_in_parts_is_handed_on_whole() -> None:
    """The application behind the limit gets one body, however it came."""
    last = {"type": "http.request", "body": b"ef", "more_body": False}
    assert _asked(iter([_part(b"ab"), _part(b"cd"), last])) == ([], [b"abcdef"])


def test_an_endless_body_is_not_read_to_the_end() -> None:
    """After a refusal a bounded part of what still comes is thrown away."""
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield _part(b"12345")

    sent, reached = _asked(endless())
    assert sent[0]["status"] == 413
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert reached == []
    assert taken <= 3 + 16 * 10 // 5


def test_a_body_that_does_not_arrive_is_given_up() -> None:
    """A client that stops in the middle of a body gets 408 after the deadline."""
    sent, reached = _asked(iter([_part(b"ab")]), seconds=0.01)
    assert sent[0]["status"] == 408
    assert b"0.01 s" in sent[1]["body"]
    assert reached == []


def test_a_client_that_leaves_gets_no_answer() -> None:
    """A connection that ends in the middle of a body ends the request quietly."""
    assert _asked(iter([_part(b"ab"), {"type": "http.disconnect"}])) == ([], [])
