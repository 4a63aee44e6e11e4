"""Backoff, request limits and proxies."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds.connection import Backoff, Pace, Reachability, check_reachability, parse_address, proxy_for
from volspike.feeds.rest import TradesClient, http_client
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.venues import all_protocols
from volspike.live.sources import _is_any_reachable


def test_backoff_doubles_up_to_its_limit() -> None:
    """The ceiling of the wait goes from 250 ms to 30 s by doubling, and a reset brings it back."""
    backoff = Backoff(0.25, 30.0, lambda: 1.0)
    assert [backoff.delay_s() for _ in range(9)] == [0.25, 0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.delay_s() == 0.25


@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=20))
def test_backoff_stays_within_its_ceiling(draws: list[float]) -> None:
    """For any jitter, a wait is between 0 and the ceiling of its attempt."""
    left = iter(draws)
    backoff = Backoff(0.25, 30.0, lambda: next(left))
    for attempt in range(len(draws)):
        assert 0 <= backoff.delay_s() <= min(30.0, 0.25 * 2**attempt)


@given(st.lists(st.floats(0, 3), max_size=60), st.integers(1, 8))
def test_pace_keeps_the_limit_of_every_second(steps: list[float], limit: int) -> None:
    """However requests come, the one ``limit`` later is at least a second later."""
    pace, now, turns = Pace(limit), 0.0, []
    for step in steps:
        now += step / 10
        turns.append(now + pace.delay_s(now))
    assert all(later - earlier >= 1 - 1e-9 for earlier, later in zip(turns, turns[limit:], strict=False))


def test_pace_delays_only_a_full_second() -> None:
    """A request waits only if the last second is full."""
    pace = Pace(3)
    assert [pace.delay_s(now) for now in (0.0, 0.1, 0.2, 0.5, 2.0)] == [0, 0, 0, 0.5, 0]


PROXY = "http://proxy.example:3128"
EXCHANGE = "wss://exchange.invalid"


def use_proxies(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """Sets these proxy variables and removes all others."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("ws://127.0.0.1:8000/coinbase", None),
        ("ws://localhost:8000", None),
        ("ws://[::1]:8000", None),
        ("ws://inside.example", None),
        ("ws://10.0.0.1:8000", PROXY),
        ("wss://advanced-trade-ws.coinbase.com", PROXY),
    ],
)
def test_no_proxy_to_this_machine(url: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's proxy is used for every host except this machine and the exceptions."""
    for name in ("HTTPS_PROXY", "all_proxy", "https_proxy"):
        use_proxies(monkeypatch, **{name: PROXY, "no_proxy": "inside.example"})
        assert proxy_for(parse_address(url)) == proxy


def test_a_proxy_without_a_scheme_is_an_http_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in other programs."""
    use_proxies(monkeypatch, HTTPS_PROXY="proxy.example:3128")
    assert proxy_for(parse_address(EXCHANGE)) == PROXY


@pytest.mark.parametrize("name", ["ALL_PROXY", "https_proxy", "wss_proxy"])
@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_a_missing_package_for_a_socks_proxy_is_named(name: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session, a client for REST and a check for reachability refuse the proxy and name the package to install."""
    use_proxies(monkeypatch, **{name: f"{scheme}://me:hunter2@proxy.example:1080"})
    monkeypatch.setattr("volspike.feeds.connection.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="needs the package python-socks: pip install python-socks") as refused:
        FeedSession(FeedSettings(url=EXCHANGE))
    assert f"{scheme}://proxy.example:1080" in str(refused.value)
    assert "hunter2" not in str(refused.value)
    with pytest.raises(UsageError, match="python-socks"):
        asyncio.run(check_reachability(EXCHANGE, FeedSettings()))
    FeedSession(FeedSettings(url="ws://127.0.0.1:9"))  # this machine needs no proxy


@pytest.mark.parametrize(
    "proxy",
    ["ftp://me:hunter2@proxy.example", "http://me:hunter2@proxy.example:abc", "http://", "http://[::1", "http://a/b"],
)
def test_an_invalid_proxy_is_refused_without_its_password(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the proxy and the variables to correct, for websockets and for REST."""
    use_proxies(monkeypatch, HTTPS_PROXY=proxy)
    with pytest.raises(UsageError, match="correct HTTPS_PROXY") as refused:
        FeedSession(FeedSettings(url=EXCHANGE))
    assert "hunter2" not in str(refused.value)


def test_rest_clients_refuse_an_unusable_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is named, an invalid address is refused, and a server on this machine needs no proxy."""
    use_proxies(monkeypatch, ALL_PROXY="socks5://me:hunter2@proxy.example:1080")
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(UsageError, match="needs the package socksio: pip install socksio"):
        TradesClient("https://exchange.invalid")
    http_client(httpx.Client, "http://127.0.0.1:8000").close()
    use_proxies(monkeypatch, ALL_PROXY="ftp://me:hunter2@proxy.example:1080")
    with pytest.raises(UsageError, match="correct HTTPS_PROXY") as refused:
        TradesClient("https://exchange.invalid")
    assert "hunter2" not in str(refused.value)


class ConnectProxy:
    """A small HTTP proxy: it connects every CONNECT to one port of this machine, or answers with ``status``."""

    def __init__(self, port: int, status: int = 200) -> None:
        self.port, self.status = port, status
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.split(b"\r\n")[0].decode())
        writer.write(b"HTTP/1.1 %d x\r\n\r\n" % self.status)
        if self.status == 200:
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            await asyncio.gather(copy(reader, back), copy(there, writer))
        writer.close()


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Passes on bytes until one side ends."""
    with suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
    target.close()


async def proxied(status: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Reachability, list[str], bool]:
    """The answer of a simulated exchange through the proxy, the proxy's requests, and whether auto uses it."""
    async with SimulatedExchange(SimulatedExchangeSettings(products=("BTC-USD",), seed=3)) as exchange:
        url = urlsplit(exchange.url())
        assert url.port is not None
        proxy = ConnectProxy(url.port, status)
        async with await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server:
            use_proxies(monkeypatch, http_proxy=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            address = f"ws://exchange.invalid{url.path}"
            answer = await check_reachability(address, FeedSettings())
            coinbase = dataclasses.replace(all_protocols()["coinbase"], url=address)
            protocols = {**all_protocols(), "coinbase": coinbase}
            monkeypatch.setattr("volspike.live.sources.all_protocols", lambda: protocols)
            return answer, proxy.requests, await _is_any_reachable([FeedSettings()])


def test_an_exchange_behind_a_proxy_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the proxy can resolve the name; the check for reachability and ``auto`` use it as a session does."""
    answer, requests, is_used = asyncio.run(proxied(200, monkeypatch))
    assert answer == Reachability(is_reachable=True, is_simulated=True)
    assert requests == ["CONNECT exchange.invalid:80 HTTP/1.1"] * 2
    assert is_used


def test_a_proxy_that_refuses_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` uses the simulated market, and the log has the reason."""
    with capture_logs() as logs:
        answer, _, is_used = asyncio.run(proxied(407, monkeypatch))
    assert (answer.is_reachable, is_used) == (False, False)
    assert "407" in answer.reason
    (event,) = (entry for entry in logs if entry["event"] == "exchange_unreachable")
    assert event["reason"] == answer.reason


@pytest.mark.parametrize(("now", "delay"), [(0.75, 0.25), (1.0, 0.0), (1.25, 0.0)])
def test_pace_at_the_end_of_the_second(now: float, delay: float) -> None:
    """Exactly one second after the first of two requests, the third does not wait."""
    pace = Pace(2)
    assert [pace.delay_s(0.0), pace.delay_s(0.5)] == [0.0, 0.0]
    assert pace.delay_s(now) == delay
