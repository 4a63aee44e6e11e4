"""The same trades as a file of each origin that is imported."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from decimal import Decimal

import pyarrow as pa

from volspike.market import Kind, Side, Tick, format_time

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


def _seconds_as_float(tick: Tick) -> float:
    return tick.time / 1e9


def cryptofeed_csv(ticks: Sequence[Tick]) -> bytes:
    """A file of cryptofeed: float seconds, names of the venue in capitals, symbols with a hyphen."""
    return _lines(
        "exchange,symbol,side,amount,price,id,timestamp,receipt_timestamp",
        lambda t: (
            f"BINANCE,{t.product_id.rpartition(':')[2]},{_word(t)},{t.last_size},{t.price},{t.trade_id},"
            f"{_seconds(t)},{_seconds(t)}"
        ),
    )(ticks)


def cryptofeed_table(ticks: Sequence[Tick]) -> pa.Table:
    """A Parquet table of cryptofeed: times are binary floats of seconds."""
    seconds = [_seconds_as_float(tick) for tick in ticks]
    return pa.table(
        {
            "exchange": ["BINANCE"] * len(ticks),
            "symbol": [tick.product_id.rpartition(":")[2] for tick in ticks],
            "side": [_word(tick) for tick in ticks],
            "amount": [tick.last_size for tick in ticks],
            "price": [tick.price for tick in ticks],
            "id": [str(tick.trade_id) for tick in ticks],
            "timestamp": seconds,
            "receipt_timestamp": seconds,
        }
    )


NAUTILUS_VERSIONS = ("integers", "8 bytes", "16 bytes", "decimals")


def nautilus_table(ticks: Sequence[Tick], version: str) -> pa.Table:
    """Trades of a nautilus catalogue as its versions write them: prices and sizes are fixed-point numbers."""
    decimals = {"integers": 9, "8 bytes": 9, "16 bytes": 16, "decimals": 16}[version]
    prices = [int(Decimal(str(tick.price)).scaleb(decimals)) for tick in ticks]
    sizes = [int(Decimal(str(tick.last_size)).scaleb(decimals)) for tick in ticks]
    aggressors = [1 if tick.side is Side.BUY else 2 for tick in ticks]
    times = pa.array([tick.time for tick in ticks], pa.uint64())
    columns: dict[str, pa.Array] = {
        "price": _fixed(prices, version, pa.int64()),
        "size": _fixed(sizes, version, pa.uint64()),
        "aggressor_side": pa.array(aggressors, pa.uint8()),
        "trade_id": pa.array([str(tick.trade_id) for tick in ticks]),
        "ts_event": times,
        "ts_init": times,
    }
    identifier = ticks[0].product_id.rpartition(":")[2].replace("-", "") + ".BINANCE"
    if version == "decimals":
        columns["aggressor_side"] = pa.array([("BUYER", "SELLER")[code - 1] for code in aggressors]).dictionary_encode()
        columns["ts_event"] = columns["ts_init"] = pa.array([tick.time for tick in ticks], pa.timestamp("ns", "UTC"))
        columns["identifier"] = pa.array([identifier] * len(ticks))
    metadata = {"instrument_id": identifier, "price_precision": "2", "size_precision": "3"}
    return pa.table(columns).replace_schema_metadata(metadata)


def _fixed(values: list[int], version: str, whole: pa.DataType) -> pa.Array:
    if version == "integers":
        return pa.array(values, whole)
    if version == "decimals":
        return pa.array([Decimal(value).scaleb(-16) for value in values], pa.decimal128(38, 16))
    width = 8 if version == "8 bytes" else 16
    return pa.array([value.to_bytes(width, "little") for value in values], pa.binary(width))


def ccxt_trade(tick: Tick) -> dict[str, object]:
    """A trade as ``fetch_trades`` returns it."""
    milliseconds = tick.time // 10**6
    return {
        "info": {"a": tick.trade_id, "p": str(tick.price)},
        "timestamp": milliseconds,
        "datetime": format_time(tick.time),
        "symbol": tick.product_id.rpartition(":")[2].replace("-", "/"),
        "id": str(tick.trade_id),
        "side": _word(tick),
        "takerOrMaker": None,
        "price": tick.price,
        "amount": tick.last_size,
        "cost": tick.price * tick.last_size,
    }


FILE_NAMES: dict[str, str] = {
    "binance spot aggTrades": "BTCUSDT-aggTrades-2025-10-04.csv",
    "binance spot trades": "BTCUSDT-trades-2025-10-04.csv",
    "bybit spot": "BTCUSDT_2025-10-04.csv",
    "bybit derivatives": "BTCUSDT2025-10-04.csv",
    "okx": "BTC-USDT-trades-2025-10-04.csv",
    "tardis": "binance_trades_2025-10-04_BTCUSDT.csv",
    "kraken": "XBTUSDT.csv",
    "binance USD-M aggTrades": "BTCUSDT-aggTrades-2025-10.csv",
    "binance COIN-M trades": "BTCUSD_PERP-trades-2025-10-04.csv",
}
"""The names that files of the layouts have."""

PRODUCTS: dict[str, str] = {
    "binance spot aggTrades": "binance:BTC-USDT",
    "binance spot trades": "binance:BTC-USDT",
    "bybit spot": "bybit:BTC-USDT",
    "bybit derivatives": "bybit-linear:BTC-USDT",
    "okx": "okx:BTC-USDT",
    "tardis": "binance:BTC-USDT",
    "kraken": "kraken:BTC-USDT",
    "binance USD-M aggTrades": "binance-um:BTC-USDT",
    "binance COIN-M trades": "binance-cm:BTC-USD-PERP",
}
"""The products that they are recognised as."""
