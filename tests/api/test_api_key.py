"""The API key, and what every answer tells a browser."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from volspike.api.edge import keys_told
from volspike.config import Secret

KEY = "correct-horse-battery"
ROW = {"spread_mean_60s": 0.2, "log_return_60s": -1.0, "trade_intensity_60s": 7}
PATHS = ("/", "/docs", "/openapi.json", "/version", "/metrics", "/nowhere")


@pytest.fixture
def locked(served: Any) -> Any:
    """A client of an application that asks for the key."""
    return served(api_key=Secret(KEY))


def test_health_needs_no_key(locked: Any) -> None:
    """Whoever restarts the process can ask whether it lives."""
    for path in ("/health", "/health/live", "/health/ready"):
        assert locked.get(path).status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": KEY.upper()},
        {"Authorization": "Bearer nothing"},
        {"Authorization": f"Token {KEY}"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic"},
    ],
)
def test_everything_else_does(locked: Any, path: str, headers: dict[str, str]) -> None:
    """Without the key, or with another, nothing is told, not even what there is."""
    refused = locked.get(path, headers=headers)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert set(refused.json()) == {"detail"}
    assert KEY not in refused.text


def test_the_key_opens_in_each_of_its_forms(locked: Any) -> None:
    """As a header, as a Bearer token, as a Basic password."""
    for options in (
        {"headers": {"X-API-Key": KEY}},
        {"headers": {"Authorization": f"bearer {KEY}"}},
        {"auth": ("anybody", KEY)},
    ):
        answer = locked.ask("POST", "/predict", json={"features": ROW}, **options)
        assert answer.status_code == 200
        assert locked.get("/version", **options).status_code == 200
    assert locked.get("/nowhere", headers={"X-API-Key": KEY}).status_code == 404


def test_a_body_without_a_key_is_not_read(locked: Any) -> None:
    """A refused request's body stays where it is."""

    async def asked() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            raise AssertionError("the body was asked for")

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "client": ("192.0.2.1", 1)}
        await locked.app(scope, receive, send)
        return sent

    assert asyncio.run(asked())[0]["status"] == 401


def test_keys_are_not_logged(served: Any) -> None:
    """Neither a right nor a wrong key is in any log line, and each line of a request has its correlation id."""
    with capture_logs() as logged:
        client = served(api_key=Secret(KEY), log_requests=True)
        client.get("/version", headers={"X-API-Key": KEY, "X-Correlation-ID": "one"})
        client.get("/version", headers={"X-API-Key": "wrong-horse-battery", "X-Correlation-ID": "two"})
    assert "horse" not in str(logged)
    requests = [event for event in logged if event["event"] == "request"]
    assert [(event["status"], event["endpoint"]) for event in requests] == [(200, "/version"), (401, "/version")]
    assert all(event["ms"] >= 0.0 for event in requests)


def test_an_answer_is_not_logged_unless_asked_for(client: Any) -> None:
    """A request that goes well leaves no line."""
    with capture_logs() as logged:
        client.get("/version")
    assert logged == []


def test_several_keys_are_each_looked_at() -> None:
    """A wrong header beside a right one does not lock anybody out."""
    assert list(keys_told([(b"x-api-key", b"a"), (b"accept", b"*/*"), (b"authorization", b"Bearer b")])) == [b"a", b"b"]


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/metrics", "/openapi.json", "/nowhere"])
def test_every_answer_has_its_headers(client: Any, path: str) -> None:
    """No answer is guessed at or taken in by another site; a page cannot be framed."""
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    if headers["content-type"].startswith("text/html"):
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "microphone=()" in headers["permissions-policy"]
