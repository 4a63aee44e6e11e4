"""Pages of trades over REST: what they say, how often they are asked for, and what happens when none comes."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from tests.history.trades_exchange import NOON, Answer, Exchange, FakeTime, client_of, market, served, told, trade_at
from volspike.errors import DataError, MalformedTick, UsageError
from volspike.feeds.rest import TradesClient, decode_trades
from volspike.market import Kind, Side, Tick, parse_time

PAGE = (
    b'[{"time":"2014-11-07T22:19:28.578544Z","trade_id":74,"price":"10.00000000","size":"0.01000000","side":"buy"},'
    b'{"time":"2014-11-07T01:08:43.642366Z","trade_id":73,"price":"100.00000000","size":"0.01000000","side":"sell"}]'
)


def test_a_page_is_trades_oldest_first_with_the_takers_side() -> None:
    """The maker's side told becomes the taker's, times are exact to the microsecond, and the order is the market's."""
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
    page = [told(trade_at(7, NOON)), told(trade_at(6, NOON)) | change]
    with pytest.raises(MalformedTick) as caught:
        decode_trades(json.dumps(page), "BTC-USD")
    assert caught.value.path == path


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"message":"hi"}', b'[{"trade_id":1}]', b"[[]]", b"\xff"])
def test_what_is_no_page_is_malformed(body: bytes) -> None:
    """A page that cannot be read says whose it is, and is never taken for an empty one."""
    exchange = Exchange(market(3), faults={0: Answer(200, body)})
    with client_of(exchange) as client, pytest.raises(MalformedTick, match="a page of trades from https://here"):
        client.trades("BTC-USD")


def test_pages_are_asked_for_by_trade_id() -> None:
    """``after`` gives what is older than an id, ``limit`` how many; without ``after`` the newest come."""
    exchange = Exchange(market(10))
    with client_of(exchange) as client:
        newest = client.trades("BTC-USD", limit=3)
        older = client.trades("BTC-USD", after=4)
    assert [tick.trade_id for tick in newest] == [8, 9, 10]
    assert [tick.trade_id for tick in older] == [1, 2, 3]
    assert exchange.asked == [{"limit": 3}, {"limit": 1000, "after": 4}]


def test_a_server_that_does_not_heed_the_cursor_is_refused() -> None:
    """A page with ids that were not asked for is no page: following it would never end."""
    body = json.dumps([told(trade_at(9, NOON))]).encode()
    with (
        client_of(Exchange([], faults={0: Answer(200, body)})) as client,
        pytest.raises(MalformedTick, match="below 9"),
    ):
        client.trades("BTC-USD", after=9)


def test_requests_keep_the_rate() -> None:
    """However fast the answers come, requests are not closer than the rate allows."""
    clock = FakeTime()
    with client_of(Exchange(market(3)), clock, rate=8.0) as client:
        for _ in range(17):
            client.trades("BTC-USD")
    assert clock.now == pytest.approx(2.0)


def test_retry_after_is_respected() -> None:
    """After a 429 nothing is asked before the time that the exchange named, in seconds or as a date."""
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
    """Where the exchange names no time, the wait is the usual one."""
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
def test_what_may_pass_is_asked_again(fault: Answer | httpx.TransportError) -> None:
    """Server errors, timeouts and lost connections are asked again, with longer and longer waits."""
    clock = FakeTime()
    faults: dict[int, Answer | httpx.TransportError] = dict.fromkeys(range(4), fault)
    with client_of(Exchange(market(3), faults=faults), clock) as client:
        assert len(client.trades("BTC-USD")) == 3
    assert clock.slept == [0.5, 1.0, 2.0, 4.0]


def test_it_gives_up_in_the_end() -> None:
    """An exchange that goes on failing is a DataError that names its last words, after eight attempts."""
    faults: dict[int, Answer | httpx.TransportError] = dict.fromkeys(range(20), Answer(503, b'{"message":"closed"}'))
    exchange = Exchange(market(3), faults=faults)
    with client_of(exchange) as client, pytest.raises(DataError, match="503 closed"):
        client.trades("BTC-USD")
    assert len(exchange.asked) == 8


def test_a_refusal_is_not_asked_again() -> None:
    """What the exchange refuses for good is told with its own reason, at once."""
    exchange = Exchange(market(3), faults={0: Answer(403, b'{"message":"not from your country"}')})
    with client_of(exchange) as client, pytest.raises(DataError, match="403 not from your country"):
        client.trades("BTC-USD")
    assert len(exchange.asked) == 1


@pytest.mark.parametrize("product_id", ["DOGE-USD", "btc-usd", "../accounts", ""])
def test_an_unknown_product_is_a_wrong_call(product_id: str) -> None:
    """Neither a product that the exchange does not have nor a text that is none can be fetched."""
    with client_of(Exchange(market(3))) as client, pytest.raises(UsageError, match="product"):
        client.trades(product_id)


def test_nobody_there_is_told_at_once() -> None:
    """Without a network nothing is tried eight times: one line says what could not be reached."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening: connections are refused
        clock = FakeTime()
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with TradesClient(url, sleep=clock.sleep) as client, pytest.raises(DataError, match=f"cannot reach {url}"):
            client.trades("BTC-USD")
    assert client.requests == 1


def test_a_network_that_goes_away_is_waited_for() -> None:
    """Once the exchange has answered, a refused connection may pass."""
    exchange = Exchange(market(3), faults={1: httpx.ConnectError("refused")})
    with client_of(exchange) as client:
        client.trades("BTC-USD")
        assert len(client.trades("BTC-USD")) == 3


@pytest.mark.parametrize("url", ["ftp://here", "here", "", "http://", "https://h:port"])
def test_what_is_no_address_is_a_wrong_call(url: str) -> None:
    """An address that no request can go to is refused before any is tried."""
    with pytest.raises(UsageError, match="address"):
        TradesClient(url)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_a_positive_number(rate: float) -> None:
    """No rate, or an endless one, is a wrong call."""
    with pytest.raises(UsageError, match="rate"):
        TradesClient(rate=rate)


def test_a_slow_answer_is_a_timeout() -> None:
    """A server that accepts and says nothing is given up after the timeout, and asked again."""
    clock = FakeTime()
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with TradesClient(url, timeout_s=0.02, sleep=clock.sleep) as client:
            begun = time.monotonic()
            with pytest.raises(DataError, match="ReadTimeout"):
                client.trades("BTC-USD")
            assert time.monotonic() - begun < 5.0
    assert client.requests == 8


def test_it_speaks_over_a_real_socket() -> None:
    """The same pages come through a real HTTP server."""
    exchange = Exchange(market(5))
    with served(exchange) as url, TradesClient(url + "/") as client:
        assert [tick.trade_id for tick in client.trades("BTC-USD", after=4, limit=2)] == [2, 3]
