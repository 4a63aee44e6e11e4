"""How often a client may ask."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.api.edge import TokenBuckets, client_of

ROW = {"spread_mean_60s": 0.2, "log_return_60s": -1.0, "trade_intensity_60s": 7}


def test_a_bucket_is_emptied_and_fills_again() -> None:
    """As many at once as a minute has; then one for every so many seconds, and the wait told is the wait needed."""
    buckets = TokenBuckets(60)
    assert [buckets.take("a", 0.0) for _ in range(60)] == [0.0] * 60
    assert buckets.take("a", 0.25) == pytest.approx(0.75)
    assert buckets.take("b", 0.25) == 0.0
    assert buckets.take("a", 1.0) == 0.0
    assert buckets.take("a", 1.0) == pytest.approx(1.0)
    assert [buckets.take("a", 1000.0) for _ in range(61)][-2:] == [0.0, pytest.approx(1.0)]


@given(st.integers(1, 300), st.lists(st.floats(0.0, 30.0), min_size=1, max_size=200))
def test_no_time_has_more_than_its_share(per_minute: int, pauses: list[float]) -> None:
    """Whenever a client asks, it gets at most what it began with and what has come since."""
    buckets, now, given_away = TokenBuckets(per_minute), 0.0, 0
    for pause in pauses:
        now += pause
        given_away += buckets.take("a", now) == 0.0
        assert given_away <= per_minute + now * per_minute / 60 + 1e-6


def test_memory_is_bounded_and_the_longest_away_is_forgotten() -> None:
    """However many clients come, so many are remembered; one that asks all the time is not forgotten."""
    buckets = TokenBuckets(2, clients=100)
    assert [buckets.take("regular", 0.0) for _ in range(2)] == [0.0, 0.0]
    for number in range(1000):
        buckets.take(f"passing {number}", 0.0)
        assert buckets.take("regular", 0.0) > 0.0
        assert len(buckets) <= 100


def test_a_client_is_an_address_or_a_network() -> None:
    """Addresses of one IPv6 network are one client, an IPv4 address written as IPv6 is itself, and odd names stay."""

    def told(host: str) -> str:
        return client_of({"client": (host, 1)})

    assert told("2001:db8:0:1::1") == told("2001:db8:0:1:ffff::2") != told("2001:db8:0:2::1")
    assert told("::ffff:192.0.2.7") == told("192.0.2.7")
    assert told("a:b") == "a:b"
    assert client_of({"client": None}) == ""


def test_who_asks_too_often_is_refused(served: Any) -> None:
    """The request over the limit gets 429, when to come back, and is counted; who watches is never refused."""
    client = served(rate_limit=3)
    assert [client.predict({"features": ROW}).status_code for _ in range(3)] == [200] * 3
    refused = client.predict({"features": ROW})
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert "more than 3 times a minute" in refused.json()["detail"]
    assert len(refused.headers["x-correlation-id"]) == 32
    for path in ("/health", "/health/ready", "/version", "/metrics"):
        assert client.get(path).status_code == 200
    assert client.metric('http_requests_total{endpoint="/predict",method="POST",status="429"}') == 1
    assert client.metric("prediction_latency_seconds_count") == 3


def test_a_limit_of_none_is_none(served: Any) -> None:
    """With 0 nobody is refused."""
    client = served(rate_limit=0)
    assert {client.predict({"features": ROW}).status_code for _ in range(1100)} == {200}
