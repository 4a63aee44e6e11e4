"""Decoding of one frame by the codec of each protocol, compared with a ticker of Coinbase in the same run.

The frames have all fields that the venues document. Each protocol decodes a quote and a trade in turn, in one thread;
the reference is a ticker of Advanced Trade, the faster of its two kinds. The rounds of the protocols alternate, so that
other load affects all of them, and the fastest round counts.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from benchmarks.figures import Figure
from volspike.feeds.protocol import VenueCodec
from volspike.feeds.venues import all_protocols
from volspike.market import parse_time

RECEIVED: Final = parse_time("2026-01-05T00:00:02Z")
REFERENCE: Final = "coinbase"
PASSES: Final = 400
ROUNDS: Final = 80


class FramePair(NamedTuple):
    """A quote and a trade of ``product``; ``before`` is a frame that the quote continues."""

    product: str
    quote: bytes
    trade: bytes = b""
    before: bytes | None = None


FRAMES: Final = {
    "coinbase": FramePair(
        "BTC-USD",
        b'{"channel":"ticker","client_id":"","timestamp":"2026-01-05T00:00:01.435813533Z","sequence_num":16,"events":[{'
        b'"type":"update","tickers":[{"type":"ticker","product_id":"BTC-USD","price":"64281.7","volume_24_h":"4323.21",'
        b'"low_24_h":"64000.1","high_24_h":"64900.2","low_52_w":"49000","high_52_w":"126000",'
        b'"price_percent_chg_24_h":"0.52","best_bid":"64281.7","best_ask":"64281.71","best_bid_quantity":"0.21558849",'
        b'"best_ask_quantity":"0.02287045"}]}]}',
    ),
    "coinbase-exchange": FramePair(
        "BTC-USD",
        b'{"type":"ticker","sequence":37475248783,"product_id":"BTC-USD","price":"1285.22","open_24h":"1310.79",'
        b'"volume_24h":"245532.79269678","low_24h":"1280.52","high_24h":"1313.8","volume_30d":"9788783.60117027",'
        b'"best_bid":"1285.04","best_bid_size":"0.46688654","best_ask":"1285.27","best_ask_size":"1.56637040",'
        b'"side":"buy","time":"2026-01-05T00:00:01.061769Z","trade_id":370843401,"last_size":"11.4396987"}',
        b'{"type":"match","trade_id":280232,"maker_order_id":"ac928c66-ca53-498f-9c13-a110027a60e8","taker_order_id":'
        b'"132fb6ae-456b-4654-b4e0-d681ac05cea1","side":"sell","size":"985","price":"0.00001305","product_id":'
        b'"BTC-USD","sequence":177100030,"time":"2026-01-05T00:00:01.089723Z"}',
    ),
    "binance": FramePair(
        "binance:BTC-USDT",
        b'{"stream":"btcusdt@bookTicker","data":{"u":499869768,"s":"BTCUSDT","b":"64281.70000000","B":"0.67200000",'
        b'"a":"64281.71000000","A":"3.19900000"}}',
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1767571201061790,"s":"BTCUSDT","t":5712345678,'
        b'"p":"64281.71000000","q":"0.00120000","T":1767571201061769,"m":true,"M":true}}',
    ),
    "kraken": FramePair(
        "kraken:BTC-USD",
        b'{"channel":"ticker","type":"update","data":[{"symbol":"BTC/USD","bid":64281.7,"bid_qty":740.0,"ask":64281.8,'
        b'"ask_qty":1361.44813783,"last":64281.8,"volume":997.98383185,"vwap":64120.1,"low":63979.0,"high":64900.2,'
        b'"change":-17.1,"change_pct":-0.17,"timestamp":"2026-01-05T00:00:01.123456Z"}]}',
        b'{"channel":"trade","type":"update","data":[{"symbol":"BTC/USD","side":"sell","price":64281.7,"qty":0.0117,'
        b'"ord_type":"market","trade_id":4665846,"timestamp":"2026-01-05T00:00:01.925533Z"}]}',
    ),
    "okx": FramePair(
        "okx:BTC-USDT",
        b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[{"asks":[["64281.8","5.5154","0","2"]],"bids":'
        b'[["64281.7","5.7745","0","2"]],"ts":"1767571201802","seqId":363996337}]}',
        b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":[{"instId":"BTC-USDT","tradeId":"130639474",'
        b'"px":"64281.8","sz":"0.12060306","side":"buy","ts":"1767571201897","count":"3","source":"0","seqId":1234}]}',
    ),
    "bybit": FramePair(
        "bybit:BTC-USDT",
        b'{"topic":"orderbook.1.BTCUSDT","ts":1767571201978,"type":"delta","data":{"s":"BTCUSDT","b":[],"a":'
        b'[["64281.80","0.029"],["64281.90","0"]],"u":18521288,"seq":7961638724},"cts":1767571201976}',
        b'{"topic":"publicTrade.BTCUSDT","type":"snapshot","ts":1767571201868,"data":[{"T":1767571201865,"s":"BTCUSDT",'
        b'"S":"Buy","v":"0.001","p":"64281.80","L":"PlusTick","i":"2100000000007764263","BT":false,"RPI":false,'
        b'"seq":1783284617}]}',
        b'{"topic":"orderbook.1.BTCUSDT","ts":1767571201978,"type":"snapshot","data":{"s":"BTCUSDT","b":[["64281.70",'
        b'"0.2"]],"a":[["64281.90","0.029"]],"u":18521287,"seq":7961638723},"cts":1767571201970}',
    ),
}


def codec_of(protocol: str) -> VenueCodec:
    """The codec of a session that has received what its frames need; both of its frames make a tick."""
    product, quote, trade, before = FRAMES[protocol]
    codec = all_protocols()[protocol].codec((product,))
    for data in filter(None, (before, trade, quote)):
        assert codec.decode(data, RECEIVED).ticks, protocol
    return codec


def frame_us(codec: VenueCodec, pair: FramePair) -> float:
    """CPU time per frame of one short round, in µs."""
    decode, quote, trade = codec.decode, pair.quote, pair.trade or pair.quote
    began = time.process_time()
    for _ in range(PASSES):
        decode(quote, RECEIVED)
        decode(trade, RECEIVED)
    return (time.process_time() - began) / (2 * PASSES) * 1e6


def main() -> list[Figure]:
    """One figure per protocol other than the reference."""
    codecs = {name: codec_of(name) for name in FRAMES}
    rounds = [{name: frame_us(codec, FRAMES[name]) for name, codec in codecs.items()} for _ in range(ROUNDS)]
    best = {name: min(times[name] for times in rounds) for name in FRAMES}
    reference = best[REFERENCE]
    return [
        Figure(
            f"codec of {name}, a quote and a trade in turn",
            f"{spent:.2f} µs per frame, {spent / reference:.2f} times the reference",
            "1 time",
            spent <= reference,
            f"Coinbase ticker {reference:.2f} µs",
        )
        for name, spent in best.items()
        if name != REFERENCE
    ]


if __name__ == "__main__":
    for figure in main():
        print(" | ".join(figure.cells()))
