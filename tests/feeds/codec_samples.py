"""Frames of all six protocols as their documentations show them, with the content that a codec must find.

The quotes have another mid-price than the trades have prices.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from volspike.market import parse_time

TIME = parse_time("2026-01-05T00:00:01.250Z")
"""The exchange's time in every sample (ns UTC)."""

RECEIVED = TIME + 40_000_000
MS = TIME // 1_000_000
RFC = "2026-01-05T00:00:01.250000Z"


def packed(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


@dataclass(frozen=True, kw_only=True)
class Samples:
    """The frames of one protocol.

    ``buy`` and ``sell`` are trades of 0.25 at 100.5 by their taker's side, ``quote`` has 100.0 (2.0) and 101.5 (3.0).
    """

    product: str
    other: str
    buy: bytes
    sell: bytes
    quote: bytes
    trade_id: int = 12345
    quote_time: int = TIME
    pair: bytes | None = None
    """Trades of both products or of one, in one frame, if the protocol has such frames."""
    past: bytes | None = None
    heartbeats: tuple[bytes, ...] = ()
    acks: dict[bytes, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    errors: dict[bytes, str] = field(default_factory=dict)
    ignored: dict[bytes, str] = field(default_factory=dict)
    refusal: bytes
    """An error that refuses XYZ-USD or XYZ-USDT."""
    closing: bytes | None = None
    empty_side: bytes | None = None
    """A quote without an ask."""


def frames_of(samples: Samples) -> list[bytes]:
    """All frames of a protocol."""
    single = (samples.buy, samples.sell, samples.quote, samples.pair, samples.past, samples.closing, samples.empty_side)
    several = (samples.heartbeats, samples.acks, samples.errors, samples.ignored)
    return [data for data in single if data is not None] + [data for part in several for data in part]


def _trade_of(kind: str, **changes: Any) -> dict[str, Any]:
    return _TRADES[kind] | changes


_TRADES: dict[str, dict[str, Any]] = {
    "coinbase": {
        "trade_id": "12345",
        "product_id": "BTC-USD",
        "price": "100.5",
        "size": "0.25",
        "side": "SELL",  # the maker's
        "time": RFC,
    },
    "coinbase-exchange": {
        "type": "match",
        "trade_id": 12345,
        "side": "sell",  # the maker's
        "size": "0.25",
        "price": "100.5",
        "product_id": "BTC-USD",
        "sequence": 50,
        "time": RFC,
    },
    "binance": {
        "e": "trade",
        "E": TIME // 1000 + 7,
        "s": "BTCUSDT",
        "t": 12345,
        "p": "100.50000000",
        "q": "0.25000000",
        "T": TIME // 1000,
        "m": False,  # the buyer is the taker
        "M": True,
    },
    "kraken": {
        "symbol": "BTC/USD",
        "side": "buy",
        "price": 100.5,
        "qty": 0.25,
        "ord_type": "market",
        "trade_id": 12345,
        "timestamp": RFC,
    },
    "okx": {
        "instId": "BTC-USDT",
        "tradeId": "12345",
        "px": "100.5",
        "sz": "0.25",
        "side": "buy",
        "ts": str(MS),
        "count": "1",
        "seqId": 1234,
    },
    "bybit": {
        "T": MS,
        "s": "BTCUSDT",
        "S": "Buy",
        "v": "0.25",
        "p": "100.50",
        "L": "PlusTick",
        "i": "2100000000007764263",
        "BT": False,
        "RPI": False,
        "seq": 1783284617,
    },
}


def _advanced(channel: str, *events: dict[str, Any]) -> bytes:
    return packed({"channel": channel, "client_id": "", "timestamp": RFC, "sequence_num": 3, "events": list(events)})


def _market_trades(kind: str, *trades: dict[str, Any]) -> bytes:
    return _advanced("market_trades", {"type": kind, "trades": list(trades)})


def _binance(stream: str, data: dict[str, Any]) -> bytes:
    return packed({"stream": stream, "data": data})


def _kraken(channel: str, kind: str, *data: dict[str, Any]) -> bytes:
    return packed({"channel": channel, "type": kind, "data": list(data)})


def _okx(channel: str, *data: dict[str, Any], instrument: str = "BTC-USDT") -> bytes:
    return packed({"arg": {"channel": channel, "instId": instrument}, "data": list(data)})


def _bybit(topic: str, kind: str, data: Any) -> bytes:
    return packed({"topic": topic, "type": kind, "ts": MS + 3, "data": data, "cts": MS})


_EXCHANGE_TICKER: dict[str, Any] = {
    "type": "ticker",
    "sequence": 77,
    "product_id": "BTC-USD",
    "price": "100.5",
    "best_bid": "100.0",
    "best_bid_size": "2.0",
    "best_ask": "101.5",
    "best_ask_size": "3.0",
    "side": "buy",
    "time": RFC,
    "trade_id": 12345,
    "last_size": "0.25",
}
_ADVANCED_TICKER: dict[str, Any] = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "100.5",
    "best_bid": "100.0",
    "best_bid_quantity": "2.0",
    "best_ask": "101.5",
    "best_ask_quantity": "3.0",
}
_BOOK_TICKER: dict[str, Any] = {"u": 4, "s": "BTCUSDT", "b": "100.0", "B": "2.0", "a": "101.5", "A": "3.0"}
_KRAKEN_TICKER: dict[str, Any] = {
    "symbol": "BTC/USD",
    "bid": 100.0,
    "bid_qty": 2.0,
    "ask": 101.5,
    "ask_qty": 3.0,
    "last": 100.5,
    "volume": 9.5,
    "timestamp": RFC,
}
_BBO: dict[str, Any] = {
    "asks": [["101.5", "3.0", "0", "2"]],
    "bids": [["100.0", "2.0", "0", "2"]],
    "ts": str(MS),
    "seqId": 363996337,
}
_BOOK: dict[str, Any] = {"s": "BTCUSDT", "b": [["100.0", "2.0"]], "a": [["101.5", "3.0"]], "u": 18521288, "seq": 79616}

_OKX_ACK = {"event": "subscribe", "arg": {"channel": "trades", "instId": "BTC-USDT"}, "connId": "accb8e21"}
_KRAKEN_ACK = {
    "method": "subscribe",
    "result": {"channel": "ticker", "event_trigger": "bbo", "snapshot": True, "symbol": "BTC/USD"},
    "success": True,
    "time_in": RFC,
    "time_out": RFC,
}

SAMPLES: dict[str, Samples] = {
    "coinbase": Samples(
        product="BTC-USD",
        other="ETH-USD",
        buy=_market_trades("update", _trade_of("coinbase")),
        sell=_market_trades("update", _trade_of("coinbase", side="BUY")),
        quote=_advanced("ticker", {"type": "update", "tickers": [_ADVANCED_TICKER]}),
        pair=_market_trades(
            "update",
            _trade_of("coinbase", product_id="ETH-USD", trade_id="12346", price="101.5"),
            _trade_of("coinbase"),
        ),
        past=_market_trades("snapshot", _trade_of("coinbase")),
        heartbeats=(_advanced("heartbeats", {"current_time": RFC, "heartbeat_counter": 7}),),
        acks={_advanced("subscriptions", {"subscriptions": {"ticker": ["BTC-USD"]}}): {"ticker": ("BTC-USD",)}},
        errors={packed({"type": "error", "message": "rate limit"}): "rate limit"},
        refusal=packed({"type": "error", "message": "XYZ-USD is not a valid product"}),
        ignored={_advanced("candles", {"type": "update", "candles": []}): "candles"},
        empty_side=_advanced(
            "ticker",
            {"type": "update", "tickers": [_ADVANCED_TICKER | {"best_ask": "0", "best_ask_quantity": "0"}]},
        ),
    ),
    "coinbase-exchange": Samples(
        product="BTC-USD",
        other="ETH-USD",
        buy=packed(_trade_of("coinbase-exchange")),
        sell=packed(_trade_of("coinbase-exchange", side="buy")),
        quote=packed(_EXCHANGE_TICKER),
        past=packed(_trade_of("coinbase-exchange", type="last_match")),
        heartbeats=(
            packed({"type": "heartbeat", "sequence": 90, "last_trade_id": 20, "product_id": "BTC-USD", "time": RFC}),
        ),
        acks={
            packed({"type": "subscriptions", "channels": [{"name": "ticker", "product_ids": ["BTC-USD"]}]}): {
                "ticker": ("BTC-USD",)
            }
        },
        errors={
            packed({"type": "error", "message": "Failed to subscribe", "reason": "FOO is no product"}): "Failed",
        },
        refusal=packed({"type": "error", "message": "Failed to subscribe", "reason": "XYZ-USD is not a valid product"}),
        ignored={packed({"type": "l2update", "product_id": "BTC-USD", "changes": []}): "l2update"},
        empty_side=packed(_EXCHANGE_TICKER | {"best_ask": "0", "best_ask_size": "0"}),
    ),
    "binance": Samples(
        product="binance:BTC-USDT",
        other="binance:ETH-USDT",
        buy=_binance("btcusdt@trade", _trade_of("binance")),
        sell=_binance("btcusdt@trade", _trade_of("binance", m=True)),
        quote=_binance("btcusdt@bookTicker", _BOOK_TICKER),
        quote_time=RECEIVED,
        heartbeats=(packed({"result": ["btcusdt@trade"], "id": "ping"}),),
        acks={packed({"result": None, "id": 1}): {"trade": ("binance:BTC-USDT", "binance:ETH-USDT")}},
        errors={
            packed({"code": 2, "msg": "Invalid request: unknown variant"}): "unknown variant",
            packed({"code": 0, "msg": "Unknown property", "id": 5}): "Unknown property",
            packed({"error": {"code": 3, "msg": "Invalid JSON"}, "id": None}): "Invalid JSON",
        },
        refusal=packed({"code": 2, "msg": "Invalid request: unknown stream xyzusdt@trade", "id": 1}),
        ignored={
            _binance("btcusdt@kline_1m", {"e": "kline", "s": "BTCUSDT", "k": {"t": 1}}): "kline",
            _binance("btcusdt@kline_1d", {"e": "kline", "s": "BTCUSDT", "t": "no number"}): "kline",
            _binance("!weather", {"e": "weather"}): "weather",
            _binance("btcusdt@depth@100ms", {"e": "depthUpdate", "s": "BTCUSDT", "b": [["1", "2"]]}): "depthUpdate",
            _binance("!miniTicker@arr", []): "arr",  # type: ignore[arg-type]  # a list, which is what it sends
            packed({"e": "outboundAccountPosition", "E": MS}): "outboundAccountPosition",
        },
        closing=packed({"e": "serverShutdown", "E": MS}),
        empty_side=_binance("btcusdt@bookTicker", _BOOK_TICKER | {"a": "0.00", "A": "0.00"}),
    ),
    "kraken": Samples(
        product="kraken:BTC-USD",
        other="kraken:ETH-USD",
        buy=_kraken("trade", "update", _trade_of("kraken")),
        sell=_kraken("trade", "update", _trade_of("kraken", side="sell")),
        quote=_kraken("ticker", "update", _KRAKEN_TICKER),
        pair=_kraken(
            "trade", "update", _trade_of("kraken"), _trade_of("kraken", symbol="ETH/USD", trade_id=12346, price=101.5)
        ),
        past=_kraken("trade", "snapshot", _trade_of("kraken")),
        heartbeats=(packed({"channel": "heartbeat"}), packed({"method": "pong", "time_in": RFC, "time_out": RFC})),
        acks={packed(_KRAKEN_ACK): {"ticker": ("kraken:BTC-USD",)}},
        errors={
            packed(
                {
                    "error": "Currency pair not supported FOO/USD",
                    "method": "subscribe",
                    "success": False,
                    "symbol": "FOO/USD",
                    "time_in": RFC,
                }
            ): "FOO/USD",
            packed({"error": "Malformed request", "success": False, "method": "", "symbol": None}): "Malformed request",
        },
        refusal=packed(
            {
                "error": "Currency pair not supported XYZ/USD",
                "method": "subscribe",
                "success": False,
                "symbol": "XYZ/USD",
            }
        ),
        ignored={
            _kraken("status", "update", {"system": "online", "api_version": "v2", "connection_id": 1}): "status",
            packed({"channel": "weather", "outlook": "changeable"}): "weather",
            packed({"channel": "instrument", "type": "snapshot", "data": {"assets": []}}): "instrument",
            packed({"method": "unsubscribe", "success": True, "result": {"channel": "trade"}}): "unsubscribe",
            packed(
                {"error": "Already subscribed", "method": "subscribe", "success": False, "symbol": "BTC/USD"}
            ): "subscribe",
        },
        empty_side=_kraken("ticker", "update", _KRAKEN_TICKER | {"ask": None, "ask_qty": None}),
    ),
    "okx": Samples(
        product="okx:BTC-USDT",
        other="okx:ETH-USDT",
        buy=_okx("trades", _trade_of("okx")),
        sell=_okx("trades", _trade_of("okx", side="sell")),
        quote=_okx("bbo-tbt", _BBO),
        pair=_okx("trades", _trade_of("okx"), _trade_of("okx", tradeId="12346", px="101.5")),
        heartbeats=(b"pong",),
        acks={packed(_OKX_ACK): {"trades": ("okx:BTC-USDT",)}},
        errors={
            packed({"event": "error", "code": "60018", "msg": "Wrong URL or channel:trades,instId:FOO"}): "instId:FOO",
        },
        refusal=packed({"event": "error", "code": "60018", "msg": "channel:trades,instId:XYZ-USDT doesn't exist"}),
        ignored={
            _okx("books", {"asks": [], "bids": [], "ts": str(MS)}): "books",
            packed({"event": "channel-conn-count", "channel": "trades", "connCount": "2"}): "channel-conn-count",
        },
        closing=packed({"event": "notice", "code": "64008", "msg": "The connection will soon be closed"}),
        empty_side=_okx("bbo-tbt", _BBO | {"asks": []}),
    ),
    "bybit": Samples(
        product="bybit:BTC-USDT",
        other="bybit:ETH-USDT",
        buy=_bybit("publicTrade.BTCUSDT", "snapshot", [_trade_of("bybit")]),
        sell=_bybit("publicTrade.BTCUSDT", "snapshot", [_trade_of("bybit", S="Sell")]),
        quote=_bybit("orderbook.1.BTCUSDT", "snapshot", _BOOK),
        trade_id=2100000000007764263,
        pair=_bybit("publicTrade.BTCUSDT", "snapshot", [_trade_of("bybit"), _trade_of("bybit", p="101.5")]),
        heartbeats=(
            packed({"success": True, "ret_msg": "pong", "conn_id": "0970e817", "op": "ping"}),
            packed({"req_id": "1", "op": "pong", "args": ["1675418560633"], "conn_id": "cfcb4ocsv"}),
        ),
        acks={
            packed({"success": True, "ret_msg": "subscribe", "conn_id": "2324d924", "req_id": "", "op": "subscribe"}): {
                "publicTrade": ("bybit:BTC-USDT", "bybit:ETH-USDT")
            }
        },
        errors={
            packed(
                {"success": False, "ret_msg": "Invalid symbol :[publicTrade.FOO]", "conn_id": "1", "op": "subscribe"}
            ): "publicTrade.FOO",
        },
        refusal=packed(
            {"success": False, "ret_msg": "error:handler not found,topic:publicTrade.XYZUSDT", "op": "subscribe"}
        ),
        ignored={
            _bybit("tickers.BTCUSDT", "snapshot", {"symbol": "BTCUSDT", "lastPrice": "21109.77"}): "tickers",
            _bybit("orderbook.50.BTCUSDT", "snapshot", _BOOK): "orderbook.50",
            packed({"topic": "tickers.ETHUSDT", "data": []}): "tickers",
            packed({"success": True, "ret_msg": "", "op": "unsubscribe"}): "unsubscribe",
            packed(
                {"success": False, "ret_msg": "error:already subscribed,topic:publicTrade.BTCUSDT", "op": "subscribe"}
            ): "subscribe",
        },
        empty_side=_bybit("orderbook.1.BTCUSDT", "snapshot", _BOOK | {"a": []}),
    ),
}
