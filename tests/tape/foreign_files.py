"""The same trades as a file of each origin that is imported."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from decimal import Decimal

from volspike.market import Kind, Side, Tick

START = 1_759_536_000_000_000_000
"""2025-10-04, in ns UTC."""


def trade(place: int, *, product_id: str = "binance:BTC-USDT", step_ns: int = 250_000_000) -> Tick:
    """A trade in milliseconds, with an id, whose values differ from those of its neighbours."""
    time = START + place * step_ns
    return Tick(
        time=time,
        received=time,
        kind=Kind.TRADE,
        product_id=product_id,
        price=100.25 + place % 17,
        last_size=0.001 * (1 + place % 5),
        side=Side.BUY if place % 3 else Side.SELL,
        trade_id=1_000 + place,
    )


def trades(count: int, product_id: str = "binance:BTC-USDT") -> list[Tick]:
    """``count`` trades, four in a second."""
    return [trade(place, product_id=product_id) for place in range(count)]


def _seconds(tick: Tick) -> str:
    return f"{Decimal(tick.time) / 10**9:f}"


def _flag(tick: Tick) -> bool:
    """Whether the buyer was the maker."""
    return tick.side is Side.SELL


def _word(tick: Tick) -> str:
    return "buy" if tick.side is Side.BUY else "sell"


def _lines(header: str, row: Callable[[Tick], str]) -> Callable[[Sequence[Tick]], bytes]:
    def text(ticks: Sequence[Tick]) -> bytes:
        file = io.StringIO()
        if header:
            file.write(header + "\n")
        for tick in ticks:
            file.write(row(tick) + "\n")
        return file.getvalue().encode()

    return text


def _symbol(tick: Tick) -> str:
    return tick.product_id.rpartition(":")[2].replace("-", "")


CSV_FILES: dict[str, tuple[str, Callable[[Sequence[Tick]], bytes]]] = {
    "binance spot aggTrades": (
        "binance",
        _lines("", lambda t: f"{t.trade_id},{t.price},{t.last_size},1,2,{t.time // 1000},{_flag(t)},True"),
    ),
    "binance spot aggTrades in ms": (
        "binance",
        _lines("", lambda t: f"{t.trade_id},{t.price},{t.last_size},1,2,{t.time // 10**6},{_flag(t)},True"),
    ),
    "binance spot trades": (
        "binance",
        _lines("", lambda t: f"{t.trade_id},{t.price},{t.last_size},5.5,{t.time // 1000},{_flag(t)},True"),
    ),
    "binance USD-M aggTrades": (
        "binance",
        _lines(
            "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
            lambda t: f"{t.trade_id},{t.price},{t.last_size},1,2,{t.time // 10**6},{str(_flag(t)).lower()}",
        ),
    ),
    "binance USD-M aggTrades without header": (
        "binance",
        _lines("", lambda t: f"{t.trade_id},{t.price},{t.last_size},1,2,{t.time // 10**6},{str(_flag(t)).lower()}"),
    ),
    "binance USD-M trades": (
        "binance",
        _lines(
            "id,price,qty,quote_qty,time,is_buyer_maker",
            lambda t: f"{t.trade_id},{t.price},{t.last_size},5.5,{t.time // 10**6},{str(_flag(t)).lower()}",
        ),
    ),
    "binance COIN-M trades": (
        "binance",
        _lines(
            "id,price,qty,base_qty,time,is_buyer_maker",
            lambda t: f"{t.trade_id},{t.price},{t.last_size},0.1,{t.time // 10**6},{str(_flag(t)).lower()}",
        ),
    ),
    "bybit spot": (
        "bybit",
        _lines(
            "id,timestamp,price,volume,side,rpi",
            lambda t: f"{t.trade_id},{t.time // 10**6},{t.price},{t.last_size},{_word(t)},0",
        ),
    ),
    "bybit derivatives": (
        "bybit",
        _lines(
            "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional",
            lambda t: (
                f"{_seconds(t)},{_symbol(t)},{_word(t).title()},{t.last_size},{t.price},PlusTick,"
                "9b1aee26-6a5e-5a4b-9a6c-5c1c6d6f0001,1,1,1"
            ),
        ),
    ),
    "okx": (
        "okx",
        _lines(
            "trade_id/撮合id,side/交易方向,size/数量,price/价格,created_time/成交时间",
            lambda t: f"{t.trade_id},{_word(t).upper()},{t.last_size},{t.price},{t.time // 10**6}",
        ),
    ),
    "tardis": (
        "tardis",
        _lines(
            "exchange,symbol,timestamp,local_timestamp,id,side,price,amount",
            lambda t: (
                f"binance,{_symbol(t)},{t.time // 1000},{t.received // 1000},{t.trade_id},{_word(t)},"
                f"{t.price},{t.last_size}"
            ),
        ),
    ),
    "kraken": ("kraken", _lines("", lambda t: f"{_seconds(t)},{t.price},{t.last_size}")),
}
"""Format and writer of the CSV files of exchanges, by name."""

NO_ID = {"bybit derivatives", "kraken"}
"""Files without trade ids that are numbers."""

NO_SIDE = {"kraken"}
