"""Pages of trades over REST: decoding, request rate and retries."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from tests.history.trades_exchange import (
    NOON,
    Answer,
    Exchange,
    FakeTime,
    client_of,
    encode_trade,
    market,
    served,
    trade_at,
)
from volspike.errors import DataError, MalformedTick, UsageError
from volspike.feeds.rest import TradesClient, decode_trades
from volspike.market import Kind, Side, Tick, parse_time

PAGE = (
    b'[{"time":"2014-11-07T22:19:28.578544Z","trade_id":74,"price":"10.00000000","size":"0.01000000","side":"buy"},'
    b'{"time":"2014-11-07T01:08:43.642366Z","trade_id":73,"price":"100.00000000","size":"0.01000000","side":"sell"}]'
)


def test_a_page_is_trades_oldest_first_with_the_takers_side() -> None:
    """The maker's side becomes the taker's, times are exact to the microsecond, and trades are oldest first."""
    common: dict[str, Any] = {"kind": Kind.TRADE, "product_id": "BTC-USD", "last_size": 0.01}
    first, second = parse_time("2014-11-07T01:08:43.642366Z"), parse_time("2014-11-07T22:19:28.578544Z")
    expected = [
        Tick(**common, time=first, received=first, trade_id=73, price=100.0, side=Side.BUY),
        Tick(**common, time=second, received=second, trade_id=74, price=10.0, side=Side.SELL),
    ]
    assert list(map(str, decode_trades(PAGE, "BTC-USD"))) == list(map(str, expected))


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"price": "0"}, "$[1].price"),
        ({"price": "much"}, "$[1].price"),
        ({"size": "-1"}, "$[1].size"),
        ({"size": "nan"}, "$[1].size"),
        ({"side": "up"}, "$[1].side"),
        ({"time": "noon"}, "$[1].time"),
        ({"trade_id": 2**63}, "$[1].trade_id"),
        ({"trade_id": -1}, "$[1].trade_id"),
    ],
)
def test_a_malformed_trade_is_located(change: dict[str, object], path: str) -> None:
    """The path of the fault names the trade and the field."""
    page = [encode_trade(trade_at(7, NOON)), encode_trade(trade_at(6, NOON)) | change]
    with pytest.raises(MalformedTick) as caught:
        decode_trades(json.dumps(page), "BTC-USD")
    assert caught.value.path == path


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"message":"hi"}', b'[{"trade_id":1}]', b"[[]]", b"\xff"])
def test_an_unreadable_page_is_malformed(body: bytes) -> None:
    """The error of an unreadable page names the exchange; the page does not count as empty."""
    exchange = Exchange(market(3), faults={0: Answer(200, body)})
    with client_of(exchange) as client, pytest.raises(MalformedTick, match="a page of trades from https://here"):
        client.trades("BTC-USD")


def test_pages_are_requested_by_trade_id() -> None:
    """``after`` selects trades older than an id, ``limit`` their number; without ``after`` the newest are returned."""
    exchange = Exchange(market(10))
    with client_of(exchange) as client:
        newest = client.trades("BTC-USD", limit=3)
        older = client.trades("BTC-USD", after=4)
    assert [tick.trade_id for tick in newest] == [8, 9, 10]
    assert [tick.trade_id for tick in older] == [1, 2, 3]
    assert exchange.queries == [{"limit": 3}, {"limit": 1000, "after": 4}]


def test_a_server_that_ignores_the_cursor_is_refused() -> None:
    """A page with trades that were not requested is refused, because following it would never end."""
    body = json.dumps([encode_trade(trade_at(9, NOON))]).encode()
    with (
        client_of(Exchange([], faults={0: Answer(200, body)})) as client,
        pytest.raises(MalformedTick, match="below 9"),
    ):
        client.trades("BTC-USD", after=9)


def test_requests_keep_the_rate() -> None:
    """However fast the answers, requests keep the rate."""
    clock = FakeTime()
    with client_of(Exchange(market(3)), clock, rate=8.0) as client:
        for _ in range(17):
            client.trades("BTC-USD")
    assert clock.now == pytest.approx(2.0)


def test_retry_after_is_respected() -> None:
    """After a 429 there is no request before the time in ``Retry-After``, in seconds or as a date."""
    clock = FakeTime()
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    faults: dict[int, Answer | httpx.TransportError] = {
        0: Answer(429, b'{"message":"slow down"}', {"retry-after": "7"}),
        1: Answer(429, b"{}", {"retry-after": date}),
    }
    with client_of(Exchange(market(3), faults=faults), clock) as client:
        assert len(client.trades("BTC-USD")) == 3
    assert clock.slept[0] == 7.0
    assert 95.0 < clock.slept[1] <= 100.0
    assert client.requests == 3


@pytest.mark.parametrize("header", ["", "soon", "-5", "1.5e3"])
def test_an_unreadable_retry_after_is_none(header: str) -> None:
    """Without a readable time, the wait is the usual one."""
    clock = FakeTime()
    fault = Answer(429, b"{}", {"retry-after": header})
    with client_of(Exchange(market(1), faults={0: fault}), clock) as client:
        client.trades("BTC-USD")
    assert clock.slept == [0.5]


@pytest.mark.parametrize(
    "fault",
    [
        Answer(500, b""),
        Answer(503, b"<html>"),
        httpx.ReadTimeout("slow"),
        httpx.ConnectTimeout("slow"),
        httpx.RemoteProtocolError("gone"),
        httpx.ReadError("reset"),
    ],
)
def test_temporary_failures_are_retried(fault: Answer | httpx.TransportError) -> None:
    """Server errors, timeouts and lost connections are retried with increasing waits."""
    clock = FakeTime()
    faults: dict[int, Answer | httpx.TransportError] = dict.fromkeys(range(4), fault)
    with client_of(Exchange(market(3), faults=faults), clock) as client:
        assert len(client.trades("BTC-USD")) == 3
    assert clock.slept == [0.5, 1.0, 2.0, 4.0]


def test_eight_attempts_at_most() -> None:
    """An exchange that keeps failing is a DataError with its last message, after eight attempts."""
    faults: dict[int, Answer | httpx.TransportError] = dict.fromkeys(range(20), Answer(503, b'{"message":"closed"}'))
    exchange = Exchange(market(3), faults=faults)
    with client_of(exchange) as client, pytest.raises(DataError, match="503 closed"):
        client.trades("BTC-USD")
    assert len(exchange.queries) == 8


def test_a_refusal_is_not_retried() -> None:
    """A permanent refusal is raised at once, with the exchange's reason."""
    exchange = Exchange(market(3), faults={0: Answer(403, b'{"message":"not from your country"}')})
    with client_of(exchange) as client, pytest.raises(DataError, match="403 not from your country"):
        client.trades("BTC-USD")
    assert len(exchange.queries) == 1


@pytest.mark.parametrize("product_id", ["DOGE-USD", "btc-usd", "../accounts", ""])
def test_an_unknown_product_is_a_usage_error(product_id: str) -> None:
    """A product that the exchange does not have, or an invalid name, is a usage error."""
    with client_of(Exchange(market(3))) as client, pytest.raises(UsageError, match="product"):
        client.trades(product_id)


def test_no_network_is_reported_at_once() -> None:
    """Without a network there is no retry, and the error names the address."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening: connections are refused
        clock = FakeTime()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with TradesClient(url, sleep=clock.sleep) as client, pytest.raises(DataError, match=f"cannot reach {url}"):
            client.trades("BTC-USD")
    assert client.requests == 1


def test_a_lost_network_is_retried() -> None:
    """After a first answer, a refused connection is retried."""
    exchange = Exchange(market(3), faults={1: httpx.ConnectError("refused")})
    with client_of(exchange) as client:
        client.trades("BTC-USD")
        assert len(client.trades("BTC-USD")) == 3


@pytest.mark.parametrize("url", ["ftp://here", "here", "", "http://", "https://h:port"])
def test_an_invalid_address_is_a_usage_error(url: str) -> None:
    """An invalid address is refused before any request."""
    with pytest.raises(UsageError, match="address"):
        TradesClient(url)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_an_invalid_rate_is_a_usage_error(rate: float) -> None:
    """A rate of zero, or an infinite one, is a usage error."""
    with pytest.raises(UsageError, match="rate"):
        TradesClient(rate=rate)


def test_a_slow_answer_is_a_timeout() -> None:
    """A server that accepts and does not answer is a timeout, and is retried."""
    clock = FakeTime()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with TradesClient(url, timeout_s=0.02, sleep=clock.sleep) as client:
            begun = time.monotonic()
            with pytest.raises(DataError, match="ReadTimeout"):
                client.trades("BTC-USD")
            assert time.monotonic() - begun < 5.0
    assert client.requests == 8


def test_pages_over_a_real_socket() -> None:
    """The same pages come through a real HTTP server."""
    exchange = Exchange(market(5))
    with served(exchange) as url, TradesClient(url + "/") as client:
        assert [tick.trade_id for tick in client.trades("BTC-USD", after=4, limit=2)] == [2, 3]


@pytest.mark.parametrize(("rate", "is_valid"), [(0.0, False), (1e-9, True), (1000.0, True), (1000.0001, False)])
def test_rate_at_its_limits(rate: float, is_valid: bool) -> None:
    """A rate above 0 and up to exactly 1000 per second is accepted."""
    if is_valid:
        with TradesClient(rate=rate) as client:
            assert client.requests == 0
    else:
        with pytest.raises(UsageError, match="rate"):
            TradesClient(rate=rate)


@pytest.mark.parametrize(("after", "is_valid"), [(9, False), (10, True)])
def test_cursor_equal_to_the_newest_trade(after: int, is_valid: bool) -> None:
    """A page may contain ids below ``after`` and not ``after`` itself."""
    body = json.dumps([encode_trade(trade_at(9, NOON))]).encode()
    with client_of(Exchange([], faults={0: Answer(200, body)})) as client:
        if is_valid:
            assert [tick.trade_id for tick in client.trades("BTC-USD", after=after)] == [9]
        else:
            with pytest.raises(MalformedTick, match="below 9"):
                client.trades("BTC-USD", after=after)


@pytest.mark.parametrize(("status", "requests"), [(428, 1), (429, 2), (430, 1), (499, 1), (500, 2)])
def test_status_codes_that_are_retried(status: int, requests: int) -> None:
    """429 and everything from exactly 500 is retried, other errors are not."""
    exchange = Exchange(market(1), faults={0: Answer(status, b"{}")})
    with client_of(exchange) as client:
        if requests == 1:
            with pytest.raises(DataError):
                client.trades("BTC-USD")
        else:
            client.trades("BTC-USD")
    assert len(exchange.queries) == requests


@pytest.mark.parametrize(("header", "wait"), [("0", 0.5), ("599", 599.0), ("600", 600.0), ("601", 600.0)])
def test_retry_after_at_its_limit(header: str, wait: float) -> None:
    """The exchange's wait is kept up to exactly 600 s, and is never shorter than the usual one."""
    clock = FakeTime()
    fault = Answer(429, b"{}", {"retry-after": header})
    with client_of(Exchange(market(1), faults={0: fault}), clock) as client:
        client.trades("BTC-USD")
    assert clock.slept == [wait]
