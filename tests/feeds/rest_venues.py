"""The REST interfaces of three venues for past trades, in process or behind a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from msgspec.structs import replace as replaced

from tests.history.trades_exchange import Answer, FakeTime, encode_trade, trade_at
from volspike.feeds.trade_pages import trade_pages
from volspike.market import Side, Tick

VENUES = ["coinbase", "binance", "kraken"]
PRODUCTS = {"coinbase": "BTC-USD", "binance": "binance:BTC-USDT", "kraken": "kraken:BTC-USD"}


class Venue:
    """Answers for one venue as its documentation says; ``trades`` by id, at most 1000 per page."""

    def __init__(self, name: str, trades: list[Tick]) -> None:
        self.name = name
        self.trades = trades
        self.queries: list[dict[str, str]] = []
        self.headers: list[httpx.Headers] = []
        self.faults: dict[int, httpx.Response] = {}

    def handle(self, request: httpx.Request) -> httpx.Response:
        parts = urlsplit(str(request.url))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.queries.append(query)
        self.headers.append(request.headers)
        fault = self.faults.get(len(self.queries) - 1)
        return fault if fault is not None else getattr(self, f"_{self.name}")(parts.path, query)

    def answer(self, address: str) -> Answer:
        """The answer to ``GET address``, for a server on a socket."""
        response = self.handle(httpx.Request("GET", f"http://here{address}"))
        return Answer(response.status_code, response.content, {"content-type": "application/json"})

    def _coinbase(self, path: str, query: dict[str, str]) -> httpx.Response:
        if path != "/products/BTC-USD/trades":
            return httpx.Response(404, json={"message": "NotFound"})
        older = [tick for tick in self.trades if "after" not in query or tick.trade_id < int(query["after"])]
        return httpx.Response(200, json=[encode_trade(tick) for tick in older[::-1][: int(query["limit"])]])

    def _binance(self, path: str, query: dict[str, str]) -> httpx.Response:
        if path != "/api/v3/historicalTrades" or query["symbol"] != "BTCUSDT":
            return httpx.Response(400, json={"code": -1121, "msg": "Invalid symbol."})
        limit = int(query["limit"])
        if "fromId" in query:
            page = [tick for tick in self.trades if tick.trade_id >= int(query["fromId"])][:limit]
        else:
            page = self.trades[-limit:]
        return httpx.Response(200, json=[binance_trade(tick) for tick in page])

    def _kraken(self, path: str, query: dict[str, str]) -> httpx.Response:
        if path != "/0/public/Trades" or query["pair"] != "XBTUSD":
            return httpx.Response(200, json={"error": ["EQuery:Unknown asset pair"]})
        limit = int(query["count"])
        if "since" in query:
            page = [tick for tick in self.trades if tick.time > int(query["since"])][:limit]
        else:
            page = self.trades[-limit:]
        rows = ",".join(kraken_trade(tick) for tick in page)
        last = page[-1].time if page else int(query.get("since", 0))
        return httpx.Response(200, text=f'{{"error":[],"result":{{"XXBTZUSD":[{rows}],"last":"{last}"}}}}')


def binance_trade(tick: Tick) -> dict[str, Any]:
    return {
        "id": tick.trade_id,
        "price": f"{tick.price:.2f}",
        "qty": f"{tick.last_size:.8f}",
        "quoteQty": "1",
        "time": tick.time // 1000,
        "isBuyerMaker": tick.side == Side.SELL,
        "isBestMatch": True,
    }


def kraken_trade(tick: Tick) -> str:
    seconds, nanoseconds = divmod(tick.time, 10**9)
    side = "b" if tick.side == Side.BUY else "s"
    return f'["{tick.price:.2f}","{tick.last_size:.8f}",{seconds}.{nanoseconds:09d},"{side}","m","",{tick.trade_id}]'


def client_of(venue: Venue, clock: FakeTime | None = None) -> Any:
    passing = clock or FakeTime()
    transport = httpx.MockTransport(venue.handle)
    return trade_pages(venue.name, "https://here", transport=transport, clock=passing.clock, sleep=passing.sleep)


def market_of(name: str, ids: Iterable[int], times: Callable[[int], int]) -> list[Tick]:
    trades = (trade_at(trade_id, times(trade_id)) for trade_id in ids)
    return [replaced(trade, product_id=PRODUCTS[name]) for trade in trades]
