"""Subscriptions and trades of all six protocols as plain JSON, without the codecs of the package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from hypothesis import strategies as st
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from volspike.feeds.simulation.exchange import HISTORY_S, SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.faults import Faults
from volspike.feeds.simulation.market import iterate_ticks, simulate_trades
from volspike.feeds.simulation.protocols import ProductDay
from volspike.market import SECOND_NS, Side, Tick, parse_time

UNIT_NS: Final = {
    "coinbase": 1_000,
    "coinbase-exchange": 1_000,
    "binance": 1_000,
    "kraken": 1_000,
    "okx": 1_000_000,
    "bybit": 1_000_000,
}
"""The unit of the times of each protocol; Binance's is requested in the address."""


START: Final = parse_time("2026-01-05T00:00:00Z")
PRODUCTS: Final = ("BTC-USD", "ETH-USDT")
SECONDS: Final = 20


class RawTrade(NamedTuple):
    """A trade as a frame states it; ``side`` is the taker's, ``time`` is in ns UTC."""

    product: str
    trade_id: int
    price: float
    size: float
    side: Side
    time: int


def settings(**changes: Any) -> SimulatedExchangeSettings:
    """A short market at the speed of its readers."""
    plain: dict[str, Any] = {
        "products": PRODUCTS,
        "speed": 0.0,
        "start": START,
        "seconds": SECONDS,
        "compression": False,
    }
    return SimulatedExchangeSettings(**(plain | changes))


async def rest(client: ClientConnection) -> list[str]:
    """All frames until the connection ends."""
    frames = []
    try:
        async with asyncio.timeout(20):
            while True:
                frames.append((await client.recv(decode=False)).decode(errors="surrogateescape"))
    except ConnectionClosed:
        return frames


def day(*trades: Tick) -> ProductDay:
    """A product after some trades."""
    known = ProductDay()
    for trade in trades:
        known.add(trade)
    return known


def market_trades(products: Sequence[str], seconds: int, start: int, seed: int = 7) -> list[Tick]:
    """The trades of an exchange's market from its start, computed again."""
    chunks = simulate_trades(products, HISTORY_S + seconds, seed, start - HISTORY_S * SECOND_NS)
    return [trade for chunk in chunks for trade in iterate_ticks(chunk) if trade.time >= start]


def as_sent(protocol: str, trade: Tick) -> RawTrade:
    """A trade of the market in the unit of a protocol."""
    unit = UNIT_NS[protocol]
    time = trade.time // unit * unit
    return RawTrade(trade.product_id, trade.trade_id, trade.price, trade.last_size, trade.side, time)


def address(protocol: str, url: str, products: Sequence[str]) -> str:
    """The address to connect to; Binance's contains its subscriptions."""
    if protocol != "binance":
        return url
    streams = "/".join(
        f"{name.replace('-', '').lower()}@{kind}" for name in products for kind in ("trade", "bookTicker")
    )
    return f"{url}&streams={streams}"


def requests(protocol: str, products: Sequence[str], *, subscribe: bool = True) -> list[str]:
    """The messages that subscribe to trades and quotes, or end the subscription."""
    verb = "subscribe" if subscribe else "unsubscribe"
    glued = [name.replace("-", "") for name in products]
    match protocol:
        case "coinbase":
            return [
                json.dumps({"type": verb, "product_ids": products, "channel": channel})
                for channel in ("ticker", "market_trades")
            ]
        case "coinbase-exchange":
            return [json.dumps({"type": verb, "product_ids": products, "channels": ["ticker", "matches"]})]
        case "binance":
            streams = [f"{name.lower()}@{kind}" for name in glued for kind in ("trade", "bookTicker")]
            return [json.dumps({"method": verb.upper(), "params": streams, "id": 1})]
        case "kraken":
            symbols = [name.replace("-", "/") for name in products]
            trigger = {"event_trigger": "bbo"}
            return [
                json.dumps({"method": verb, "params": {"channel": "trade", "symbol": symbols, "snapshot": True}}),
                json.dumps({"method": verb, "params": {"channel": "ticker", "symbol": symbols} | trigger}),
            ]
        case "okx":
            arguments = [{"channel": kind, "instId": name} for name in products for kind in ("trades", "bbo-tbt")]
            return [json.dumps({"op": verb, "args": arguments})]
    topics = [f"{kind}.{name}" for name in glued for kind in ("publicTrade", "orderbook.1")]
    return [json.dumps({"op": verb, "args": topics})]


def is_past(protocol: str, frame: Any) -> bool:
    """Whether a frame repeats trades from before the subscription and says so."""
    if protocol == "coinbase":
        return bool(frame["events"][0].get("type") == "snapshot")
    if protocol == "coinbase-exchange":
        return bool(frame["type"] == "last_match")
    return protocol == "kraken" and frame.get("type") == "snapshot"


def trades_of(protocol: str, data: str | bytes) -> list[RawTrade]:
    """The trades of a frame, in its order; none of a frame that marks them as past.

    Raises:
        ValueError, KeyError, TypeError, IndexError, AttributeError: the frame is malformed.
    """
    if data in {"pong", b"pong"}:
        return []
    frame = json.loads(data, parse_constant=_refuse)
    return [] if is_past(protocol, frame) else [_checked(trade) for trade in _TRADES[protocol](frame)]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _checked(trade: RawTrade) -> RawTrade:
    if not 0 < trade.price < 1e300:
        raise ValueError(f"price {trade.price}")
    return trade


def _coinbase(frame: Any) -> list[RawTrade]:
    return [
        RawTrade(
            t["product_id"], int(t["trade_id"]), float(t["price"]), float(t["size"]), _MAKER[t["side"]], _ns(t["time"])
        )
        for event in frame["events"]
        for t in reversed(event.get("trades", []))
    ]


def _exchange(frame: Any) -> list[RawTrade]:
    if frame["type"] != "match":
        return []
    side = _MAKER[frame["side"].upper()]
    time = _ns(frame["time"])
    return [RawTrade(frame["product_id"], frame["trade_id"], float(frame["price"]), float(frame["size"]), side, time)]


def _binance(frame: Any) -> list[RawTrade]:
    data = frame.get("data")
    if data is None or data.get("e") != "trade":
        return []
    side = Side.SELL if data["m"] else Side.BUY
    product = data["s"].replace("USD", "-USD")
    return [RawTrade(product, data["t"], float(data["p"]), float(data["q"]), side, data["T"] * 1_000)]


def _kraken(frame: Any) -> list[RawTrade]:
    if frame.get("channel") != "trade":
        return []
    return [
        RawTrade(
            t["symbol"].replace("/", "-"),
            t["trade_id"],
            float(t["price"]),
            t["qty"],
            _TAKER[t["side"]],
            _ns(t["timestamp"]),
        )
        for t in frame["data"]
    ]


def _okx(frame: Any) -> list[RawTrade]:
    if "data" not in frame or frame["arg"]["channel"] != "trades":
        return []
    return [
        RawTrade(
            t["instId"], int(t["tradeId"]), float(t["px"]), float(t["sz"]), _TAKER[t["side"]], int(t["ts"]) * 1_000_000
        )
        for t in frame["data"]
    ]


def _bybit(frame: Any) -> list[RawTrade]:
    if not frame.get("topic", "").startswith("publicTrade."):
        return []
    return [
        RawTrade(
            t["s"].replace("USD", "-USD"),
            int(t["i"]),
            float(t["p"]),
            float(t["v"]),
            _TAKER[t["S"].lower()],
            t["T"] * 1_000_000,
        )
        for t in frame["data"]
    ]


def _ns(text: str) -> int:
    return parse_time(text)


_MAKER: Final = {"SELL": Side.BUY, "BUY": Side.SELL}
_TAKER: Final = {"sell": Side.SELL, "buy": Side.BUY}
_TRADES: Final[dict[str, Callable[[Any], list[RawTrade]]]] = {
    "coinbase": _coinbase,
    "coinbase-exchange": _exchange,
    "binance": _binance,
    "kraken": _kraken,
    "okx": _okx,
    "bybit": _bybit,
}


Run = tuple[list[str], SimulatedExchange]


def heard(protocol: str, strike: Callable[[SimulatedExchange], object] = lambda _: None, **changes: Any) -> Run:
    """The frames that a client of everything receives; ``strike`` is called before it subscribes.

    At Binance it subscribes with requests as well, so that the market waits for them.
    """
    messages = requests(protocol, PRODUCTS)

    async def run() -> Run:
        async with (
            SimulatedExchange(settings(subscribes=len(messages), **changes)) as exchange,
            connect(exchange.url(protocol), max_size=None) as client,
        ):
            strike(exchange)
            for message in messages:
                await client.send(message)
            return await rest(client), exchange

    return asyncio.run(run())


def trades(protocol: str, frames: list[str]) -> list[RawTrade]:
    """The trades of all frames; OKX repeats the last one at the subscription, without a mark."""
    found = [trade for frame in frames for trade in trades_of(protocol, frame)]
    return [trade for trade in found if trade.time >= START // UNIT_NS[protocol] * UNIT_NS[protocol]]


Quote = tuple[float, float, float, float]


def quotes(protocol: str, frames: list[str], product: str) -> list[Quote]:
    """The best quotes of a product after each of its updates: bid, its size, ask, its size."""
    found: list[Quote] = []
    bids: dict[str, str] = {}
    asks: dict[str, str] = {}
    for frame in map(json.loads, frames):
        if protocol == "binance" and frame.get("stream") == f"{product.replace('-', '').lower()}@bookTicker":
            data = frame["data"]
            found.append((float(data["b"]), float(data["B"]), float(data["a"]), float(data["A"])))
        elif protocol == "okx" and frame.get("arg") == {"channel": "bbo-tbt", "instId": product} and "data" in frame:
            (data,) = frame["data"]
            found.append((*map(float, data["bids"][0][:2]), *map(float, data["asks"][0][:2])))  # type: ignore[arg-type]
        elif protocol == "kraken" and frame.get("channel") == "ticker":
            (data,) = frame["data"]
            if data["symbol"] == product.replace("-", "/"):
                found.append((data["bid"], data["bid_qty"], data["ask"], data["ask_qty"]))
        elif protocol == "bybit" and frame.get("topic") == f"orderbook.1.{product.replace('-', '')}":
            if frame["type"] == "snapshot":
                bids, asks = {}, {}
            for side, levels in ((bids, frame["data"]["b"]), (asks, frame["data"]["a"])):
                side.update({price: size for price, size in levels if float(size)})
                for price, size in levels:
                    if not float(size):
                        del side[price]
            ((bid, bid_size),), ((ask, ask_size),) = bids.items(), asks.items()
            found.append((float(bid), float(bid_size), float(ask), float(ask_size)))
    return found


def random_faults(
    shares: Sequence[float], silence_every_s: float, **more: st.SearchStrategy[Any]
) -> st.SearchStrategy[Faults]:
    """Faults of every kind at some of these rates, with silences and order books in some examples."""
    kinds = ("drop", "duplicate", "reorder", "malformed", "unknown", "damage", "mistime")
    return st.builds(
        Faults,
        **dict.fromkeys(kinds, st.sampled_from(shares)),
        silence_every_s=st.sampled_from([0.0, silence_every_s]),
        silence_s=st.just(2.0),
        snapshot_every_s=st.sampled_from([0.0, 3.0]),
        snapshot_bytes=st.just(20_000),
        **more,
    )
