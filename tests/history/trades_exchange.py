"""A fake exchange with a REST API for trades and configurable faults, in process or behind a socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

import httpx

from volspike.feeds.rest import TradesClient
from volspike.market import SECOND_NS, Kind, Side, Tick, format_time

NOON = 1_700_000_000 * SECOND_NS
LATER = NOON + 10**6 * SECOND_NS
"""A moment at which everything here is long over."""


def trade_at(trade_id: int, time: int) -> Tick:
    """A trade whose price, size and side follow from its id."""
    return Tick(
        time=time,
        received=time,
        kind=Kind.TRADE,
        product_id="BTC-USD",
        price=(6_000_000 + trade_id % 997) / 100,
        last_size=(1 + trade_id % 13) / 1e8,
        side=Side.BUY if trade_id % 3 else Side.SELL,
        trade_id=trade_id,
    )


def market(count: int, *, step_ns: int = 250_000_123_000, first_id: int = 1) -> list[Tick]:
    """``count`` trades with consecutive ids, ``step_ns`` apart (in full microseconds)."""
    return [trade_at(first_id + i, NOON + i * step_ns) for i in range(count)]


def encode_trade(tick: Tick) -> dict[str, object]:
    """A trade as the exchange encodes it: decimals as text, and the maker's side."""
    return {
        "trade_id": tick.trade_id,
        "side": "sell" if tick.side == Side.BUY else "buy",
        "size": f"{tick.last_size:.8f}",
        "price": f"{tick.price:.2f}",
        "time": format_time(tick.time),
    }


@dataclass(slots=True)
class Answer:
    """The response to one request."""

    status: int = 200
    body: bytes = b"[]"
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Exchange:
    """Serves ``trades`` (by id, one product), at most ``longest_page`` per page; ids in ``repeated`` are sent twice.

    ``faults`` maps the number of a request (from 0) to what happens instead of an answer; ``queries`` keeps all.
    """

    trades: Sequence[Tick]
    longest_page: int = 1000
    repeated: frozenset[int] = frozenset()
    faults: dict[int, Answer | httpx.TransportError] = field(default_factory=dict)
    queries: list[dict[str, int]] = field(default_factory=list)

    def answer(self, address: str) -> Answer:
        """The answer to ``GET address``; raises where a fault says that none comes."""
        parts = urlsplit(address)
        query = {name: int(values[0]) for name, values in parse_qs(parts.query).items()}
        self.queries.append(query)
        fault = self.faults.get(len(self.queries) - 1)
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            return fault
        if parts.path != "/products/BTC-USD/trades":
            return Answer(404, b'{"message":"NotFound"}')
        return self._page(query.get("after"), min(query.get("limit", 1000), self.longest_page))

    def _page(self, after: int | None, limit: int) -> Answer:
        meant = [tick for tick in self.trades if after is None or tick.trade_id < after]
        meant = [tick for tick in meant for _ in range(1 + (tick.trade_id in self.repeated))]
        page = meant[::-1][:limit]
        headers = {}
        if page:
            headers = {"cb-before": str(page[0].trade_id), "cb-after": str(page[-1].trade_id)}
        return Answer(200, json.dumps([encode_trade(tick) for tick in page]).encode(), headers)


class FakeTime:
    """A clock that only sleeping moves, in seconds; ``slept`` keeps every nap."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        """What it is now."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Lets time pass."""
        self.slept.append(seconds)
        self.now += seconds


def client_of(exchange: Exchange, time: FakeTime | None = None, *, rate: float = 8.0) -> TradesClient:
    """A client of the exchange in this process, in a time of its own."""

    def handle(request: httpx.Request) -> httpx.Response:
        answer = exchange.answer(str(request.url))
        return httpx.Response(answer.status, content=answer.body, headers=answer.headers)

    passing = time or FakeTime()
    transport = httpx.MockTransport(handle)
    return TradesClient("https://here", rate=rate, transport=transport, clock=passing.clock, sleep=passing.sleep)


class Answering(Protocol):
    """Anything that answers requests."""

    def answer(self, address: str) -> Answer:
        """The answer to ``GET address``."""
        ...


@contextmanager
def served(exchange: Answering) -> Iterator[str]:
    """The exchange behind a real socket of this machine; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = exchange.answer(self.path)
            self.send_response(answer.status)
            for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
