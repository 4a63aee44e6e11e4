"""Middleware without a socket: correlation id, errors, body limit, API key, rate limit, response headers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from volspike.api.edge import BodyLimit, RejectionLog, TokenBuckets, client_of, correlation_id, keys_of
from volspike.config import Secret

ROW = {"spread_mean_60s": 0.2, "log_return_60s": -1.0, "trade_intensity_60s": 7}
HEADER = "X-Correlation-ID"
KEY = "correct-horse-battery"
PATHS = ("/", "/docs", "/openapi.json", "/version", "/metrics", "/nowhere")


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/docs"])
def test_the_correlation_id_is_returned(client: Any, path: str) -> None:
    """Every response has the client's id in its headers."""
    assert client.get(path, headers={HEADER: "trace-7/~!"}).headers[HEADER] == "trace-7/~!"


@pytest.mark.parametrize("given", ["", "a b", "é".encode(), "x" * 129, b"a\x7f"])
def test_unacceptable_correlation_ids_are_replaced(given: str | bytes) -> None:
    """An id that is empty, too long or not visible ASCII is replaced by a new one."""
    raw = given if isinstance(given, bytes) else given.encode()
    made = correlation_id([(b"x-correlation-id", raw)])
    assert made != raw
    assert len(made) == 32


def test_correlation_ids_are_unique() -> None:
    """Requests without an id receive different ones, and an id of the maximum length is kept."""
    assert correlation_id([]) != correlation_id([])
    assert correlation_id([(b"x-correlation-id", b"x" * 128)]) == b"x" * 128


def test_an_exception_in_the_model_is_a_json_error(served: Any, fake: Any) -> None:
    """An exception in the model is a 500 with a detail and the correlation id, counted once and logged."""

    class Broken(type(fake)):  # type: ignore[misc]
        def probability_of(self, row: Any) -> float:
            if row[0] == ROW["spread_mean_60s"]:
                raise RuntimeError("broken graph")
            return float(super().probability_of(row))

    client = served(Broken())
    with capture_logs() as logged:
        body = json.dumps({"features": ROW})
        failed = client.request("POST", "/predict", content=body, headers={HEADER: "abc"})
    assert failed.status_code == 500
    assert failed.headers[HEADER] == "abc"
    assert "abc" in failed.json()["detail"]
    assert [event["event"] for event in logged] == ["request_failed"]
    assert client.metric('http_requests_total{endpoint="/predict",method="POST",status="500"}') == 1


def test_bodies_over_the_limit_are_rejected(served: Any) -> None:
    """A body at the limit is read; one byte more is a 413, with Content-Length or in chunks, counted on its route."""
    client = served(max_body_bytes=256)
    body = json.dumps({"features": ROW}).encode()
    assert client.predict(body.ljust(256)).status_code == 200

    async def chunks() -> Any:
        for start in range(0, 257, 100):
            yield body.ljust(257)[start : start + 100]

    for content in (body.ljust(257), chunks()):
        refused = client.request("POST", "/predict", content=content)
        assert refused.status_code == 413
        assert refused.json() == {"detail": "the body is over 256 bytes; send fewer rows per request"}
        assert refused.headers["connection"] == "close"
        assert HEADER in refused.headers
    assert client.metric('http_requests_total{endpoint="/predict",method="POST",status="413"}') == 2


def _limited(messages: Iterator[dict[str, Any]], **options: Any) -> tuple[list[dict[str, Any]], list[bytes]]:
    """What ``BodyLimit`` with 10 bytes sends, and the bodies that reach the application; no message follows."""
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


def test_a_body_in_parts_is_passed_on_complete() -> None:
    """The application receives one message, in however many parts the body arrived."""
    last = {"type": "http.request", "body": b"ef", "more_body": False}
    assert _limited(iter([_part(b"ab"), _part(b"cd"), last])) == ([], [b"abcdef"])


def test_an_endless_body_is_not_read_to_the_end() -> None:
    """After the rejection only a bounded part of the rest is read and discarded."""
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield _part(b"12345")

    sent, reached = _limited(endless())
    assert sent[0]["status"] == 413
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert reached == []
    assert taken <= 3 + 16 * 10 // 5


def test_an_incomplete_body_times_out() -> None:
    """A client that stops in the middle of a body receives 408 after the deadline."""
    sent, reached = _limited(iter([_part(b"ab")]), seconds=0.01)
    assert sent[0]["status"] == 408
    assert b"0.01 s" in sent[1]["body"]
    assert reached == []


def test_a_disconnect_in_a_body_ends_the_request() -> None:
    """A connection that closes in the middle of a body receives no response."""
    assert _limited(iter([_part(b"ab"), {"type": "http.disconnect"}])) == ([], [])


@pytest.fixture
def locked(served: Any) -> Any:
    """A client of an application that requires the key."""
    return served(api_key=Secret(KEY))


def test_health_needs_no_key(locked: Any) -> None:
    """Process monitoring works without the key."""
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
def test_every_other_path_needs_the_key(locked: Any, path: str, headers: dict[str, str]) -> None:
    """Without the key, or with a wrong one, every path is a 401, whether it exists or not."""
    refused = locked.get(path, headers=headers)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Basic ")
    assert set(refused.json()) == {"detail"}
    assert KEY not in refused.text


def test_the_key_is_accepted_in_three_forms(locked: Any) -> None:
    """As a header, as a Bearer token, and as a Basic password."""
    for options in (
        {"headers": {"X-API-Key": KEY}},
        {"headers": {"Authorization": f"bearer {KEY}"}},
        {"auth": ("anybody", KEY)},
    ):
        answer = locked.request("POST", "/predict", json={"features": ROW}, **options)
        assert answer.status_code == 200
        assert locked.get("/version", **options).status_code == 200
    assert locked.get("/nowhere", headers={"X-API-Key": KEY}).status_code == 404


def test_a_body_without_a_key_is_not_read(locked: Any) -> None:
    """The body of a rejected request is not read."""

    async def send_request() -> list[Any]:
        sent: list[Any] = []

        async def receive() -> Any:
            raise AssertionError("the body was read")

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": [], "client": ("192.0.2.1", 1)}
        await locked.app(scope, receive, send)
        return sent

    assert asyncio.run(send_request())[0]["status"] == 401


def test_keys_are_not_logged(served: Any) -> None:
    """No log line contains a key, valid or not."""
    with capture_logs() as logged:
        client = served(api_key=Secret(KEY), log_requests=True)
        client.get("/version", headers={"X-API-Key": KEY, "X-Correlation-ID": "one"})
        client.get("/version", headers={"X-API-Key": "wrong-horse-battery", "X-Correlation-ID": "two"})
    assert "horse" not in str(logged)
    requests = [event for event in logged if event["event"] == "request"]
    assert [(event["status"], event["endpoint"]) for event in requests] == [(200, "/version"), (401, "/version")]
    assert all(event["ms"] >= 0.0 for event in requests)


def test_the_log_of_rejected_requests_is_bounded(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty rejected requests a minute are logged and the others counted; answered requests are all logged."""
    ends: list[Callable[[], None]] = []
    with capture_logs() as logged:
        client = served(api_key=Secret(KEY), log_requests=True)
        for _ in range(50):
            client.get("/version")
            client.get("/health")
    requests = [event["status"] for event in logged if event["event"] == "request"]
    assert (requests.count(401), requests.count(200)) == (20, 50)

    async def counted() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", lambda _, end: ends.append(end))
        bound = RejectionLog(most=2)
        assert [bound.has_room() for _ in range(5)] == [True, True, False, False, False]
        with capture_logs() as told:
            ends[0]()
        assert [(event["event"], event["suppressed"]) for event in told] == [("request_rejections_suppressed", 3)]
        assert bound.has_room()

    asyncio.run(counted())


def test_requests_without_the_key_use_up_no_limit(served: Any) -> None:
    """The holder of the key has its own limit left, however many others were rejected at the same address."""
    client = served(api_key=Secret(KEY), rate_limit=2)
    assert [client.predict({"features": ROW}).status_code for _ in range(5)] == [401] * 5
    headers = {"X-API-Key": KEY}
    statuses = [client.request("POST", "/predict", json={"features": ROW}, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in statuses] == [200, 200, 429]


def test_requests_are_not_logged_by_default(client: Any) -> None:
    """A successful request writes no log line."""
    with capture_logs() as logged:
        client.get("/version")
    assert logged == []


def test_each_of_several_keys_is_checked() -> None:
    """A wrong key in one header does not invalidate the right key in another."""
    assert list(keys_of([(b"x-api-key", b"a"), (b"accept", b"*/*"), (b"authorization", b"Bearer b")])) == [b"a", b"b"]


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/metrics", "/openapi.json", "/nowhere"])
def test_every_response_has_security_headers(client: Any, path: str) -> None:
    """No response is sniffed or embedded by another site, and no page can be framed."""
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    if headers["content-type"].startswith("text/html"):
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-opener-policy"] == "same-origin"
        assert "microphone=()" in headers["permissions-policy"]


def test_a_bucket_empties_and_refills() -> None:
    """A burst of a minute's requests, then one per refill interval; the returned wait is exact."""
    buckets = TokenBuckets(60)
    assert [buckets.take("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert buckets.take("a", 0.25) == pytest.approx(0.75)
    assert buckets.take("b", 0.25) == 0.0
    assert buckets.take("a", 1.0) == 0.0
    assert buckets.take("a", 1.0) == pytest.approx(1.0)
    assert [buckets.take("a", 1000.0) for _ in range(61)][-2:] == [0.0, pytest.approx(1.0)]


@given(st.integers(1, 300), st.lists(st.floats(0.0, 30.0), min_size=1, max_size=200))
def test_no_interval_exceeds_the_limit(per_minute: int, pauses: list[float]) -> None:
    """A client never takes more tokens than the initial ones and those refilled since."""
    buckets, now, taken = TokenBuckets(per_minute), 0.0, 0
    for pause in pauses:
        now += pause
        taken += buckets.take("a", now) == 0.0
        assert taken <= per_minute + now * per_minute / 60 + 1e-6


def test_memory_is_bounded_and_the_least_recent_client_is_forgotten() -> None:
    """The number of remembered clients is limited, and a client that is active is not forgotten."""
    buckets = TokenBuckets(2, clients=100)
    assert [buckets.take("regular", 0.0) for _ in range(2)] == [0.0, 0.0]
    for number in range(1000):
        buckets.take(f"passing {number}", 0.0)
        assert buckets.take("regular", 0.0) > 0.0
        assert len(buckets) <= 100


def test_a_client_is_an_ipv4_address_or_an_ipv6_network() -> None:
    """Addresses in one /64 are one client, an IPv4-mapped address is its IPv4 address, other names are unchanged."""

    def client(host: str) -> str:
        return client_of({"client": (host, 1)})

    assert client("2001:db8:0:1::1") == client("2001:db8:0:1:ffff::2") != client("2001:db8:0:2::1")
    assert client("::ffff:192.0.2.7") == client("192.0.2.7")
    assert client("a:b") == "a:b"
    assert client_of({"client": None}) == ""


def test_requests_over_the_rate_limit_are_rejected(served: Any) -> None:
    """The request over the limit is a 429 with Retry-After and is counted; monitoring is never rejected."""
    client = served(rate_limit=3)
    assert [client.predict({"features": ROW}).status_code for _ in range(3)] == [200] * 3
    refused = client.predict({"features": ROW})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert "exceeds 3 requests a minute" in refused.json()["detail"]
    assert len(refused.headers["x-correlation-id"]) == 32
    for path in ("/health", "/health/ready", "/version", "/metrics"):
        assert client.get(path).status_code == 200
    assert client.metric('http_requests_total{endpoint="/predict",method="POST",status="429"}') == 1
    assert client.metric("prediction_latency_seconds_count") == 3


def test_a_rate_limit_of_zero_is_no_limit(served: Any) -> None:
    """With 0 no request is rejected."""
    client = served(rate_limit=0)
    assert {client.predict({"features": ROW}).status_code for _ in range(1100)} == {200}
