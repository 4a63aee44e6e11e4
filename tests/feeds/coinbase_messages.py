"""Messages of both protocols of Coinbase, from its documentation."""

from __future__ import annotations

from typing import Any

TICKER: dict[str, Any] = {
    "type": "ticker",
    "sequence": 37475248783,
    "product_id": "ETH-USD",
    "price": "1285.22",
    "open_24h": "1310.79",
    "volume_24h": "245532.79269678",
    "low_24h": "1280.52",
    "high_24h": "1313.8",
    "volume_30d": "9788783.60117027",
    "best_bid": "1285.04",
    "best_bid_size": "0.46688654",
    "best_ask": "1285.27",
    "best_ask_size": "1.56637040",
    "side": "buy",
    "time": "2022-10-19T23:28:22.061769Z",
    "trade_id": 370843401,
    "last_size": "11.4396987",
}
MATCH: dict[str, Any] = {
    "type": "match",
    "trade_id": 280232,
    "maker_order_id": "2a0da34e-61f7-4c36-88e5-c9dd15927b16",
    "taker_order_id": "3c82abaa-c01e-4608-be59-6a1e69742891",
    "side": "sell",
    "size": "985",
    "price": "0.00001305",
    "product_id": "SKL-BTC",
    "sequence": 177100030,
    "time": "2021-04-17T16:43:37.089723Z",
}
QUOTE: dict[str, Any] = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "64281.7",
    "volume_24_h": "3974.98800786",
    "low_24_h": "63454",
    "high_24_h": "64727.27",
    "low_52_w": "59073.01",
    "high_52_w": "126296",
    "price_percent_chg_24_h": "1.21471769193719",
    "best_bid": "64281.7",
    "best_ask": "64281.71",
    "best_bid_quantity": "0.21558849",
    "best_ask_quantity": "0.02287045",
}
TRADE: dict[str, Any] = {
    "product_id": "BTC-USD",
    "trade_id": "1037798145",
    "price": "64340.74",
    "size": "0.00746872",
    "time": "2026-06-14T05:54:17.799285Z",
    "side": "SELL",
}
