"""The files of exchanges and other programs: their columns, and the names of products and venues in them.

``FORMATS`` is the table of formats. A column is found by its name in the header or, in files without one, by its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Final

from volspike.errors import VolspikeError
from volspike.market import SECOND_NS
from volspike.market.product import KNOWN_VENUES, canonical_product, hyphenated, product_name
from volspike.tape.fields import NAMES, normalize_name, side_of

EARLIEST_NS: Final = 631_152_000 * SECOND_NS
"""1990-01-01; an earlier time is an error of its unit, or a missing one."""

LATEST_AHEAD_NS: Final = 86_400 * SECOND_NS
"""The furthest that a time may be ahead of our clock."""

UNREAD: Final = ""

_DUMPED: Final = frozenset({"time", "price", "last_size", "side", "buyer_is_maker", "trade_id"})


@dataclass(frozen=True, slots=True)
class ColumnOrder:
    """The fields of a file without a header, by column (``UNREAD``: not read), and the market that has such files."""

    fields: tuple[str, ...]
    market: str = ""

    def fits(self, row: Sequence[str]) -> bool:
        """Whether the values of a row may be those of the layout."""
        return len(row) == len(self.fields) and all(map(_may_hold, self.fields, row))


@dataclass(frozen=True, slots=True, eq=False)
class FileFormat:
    """The files of one origin.

    ``names`` are the names of each field of a tick in a header, the preferred one first; ``buyer_is_maker`` is true if
    the taker sold. ``layouts`` are those of files without a header. ``signatures`` are sets of names, any of which
    identifies the format. A row without a value of a ``required`` field is damaged. ``venue`` is that of rows that
    state none. ``has_consecutive_ids``: a jump of the trade id within a product is a loss.
    """

    name: str
    names: Mapping[str, tuple[str, ...]]
    layouts: tuple[ColumnOrder, ...] = ()
    signatures: tuple[frozenset[str], ...] = ()
    required: frozenset[str] = _DUMPED
    venue: str = ""
    has_consecutive_ids: bool = False
    has_integer_ids: bool = False

    def fields_of(self, header: Sequence[str]) -> dict[str, str]:
        """The column of each field in a header, among the names of the format."""
        known = {plain_name(name): name for name in reversed(header)}
        found = {}
        for tick_field, names in self.names.items():
            column = next((known[plain_name(name)] for name in names if plain_name(name) in known), None)
            if column is not None:
                found[tick_field] = column
        return found

    def is_signed(self, header: Sequence[str]) -> bool:
        """Whether a header has the names that identify the format."""
        known = {plain_name(name) for name in header}
        return any(signature <= known for signature in self.signatures)


def plain_name(name: str) -> str:
    """A name of a header in comparable form; OKX writes ``price/价格``, in GBK or UTF-8.

    >>> plain_name("created_time/成交时间")
    'createdtime'
    """
    return normalize_name(name.partition("/")[0])


def holds_ticks(fields: Mapping[str, str]) -> bool:
    """Whether the columns suffice for a tick: a time, and a price or a bid and an ask."""
    has_time = "time" in fields or "received" in fields
    return has_time and ("price" in fields or {"best_bid", "best_ask"} <= fields.keys())


def _signatures(*headers: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(plain_name(name) for name in header.split()) for header in headers)


def _may_hold(name: str, value: str) -> bool:
    """Whether a value may be that of a field."""
    if name == UNREAD:
        return True
    if name == "buyer_is_maker":
        return value in {"True", "False", "true", "false", "TRUE", "FALSE"}
    if name == "side":
        return bool(value) and side_of(value) is not None
    try:
        number = float(value)
    except ValueError:
        return False
    if name == "trade_id":
        return value.isdecimal()
    return number >= EARLIEST_NS / SECOND_NS if name == "time" else number >= 0.0


BINANCE: Final = FileFormat(
    name="binance",
    names={
        "trade_id": ("agg_trade_id", "id", "trade_id"),
        "price": ("price",),
        "last_size": ("quantity", "qty"),
        "time": ("transact_time", "time", "timestamp"),
        "buyer_is_maker": ("is_buyer_maker",),
    },
    layouts=(
        # aggTrades: …, first id, last id, time, buyer is maker, best match (spot only)
        ColumnOrder(("trade_id", "price", "last_size", UNREAD, UNREAD, "time", "buyer_is_maker", UNREAD), "spot"),
        ColumnOrder(("trade_id", "price", "last_size", UNREAD, UNREAD, "time", "buyer_is_maker"), "futures"),
        # trades: …, size in the quote currency, time, buyer is maker, best match (spot only)
        ColumnOrder(("trade_id", "price", "last_size", UNREAD, "time", "buyer_is_maker", UNREAD), "spot"),
        ColumnOrder(("trade_id", "price", "last_size", UNREAD, "time", "buyer_is_maker"), "futures"),
    ),
    signatures=_signatures("price quantity transact_time is_buyer_maker", "id price qty time is_buyer_maker"),
    venue="binance",
    has_consecutive_ids=True,
    has_integer_ids=True,
)

BYBIT: Final = FileFormat(
    name="bybit",
    names={
        "trade_id": ("id",),
        "time": ("timestamp",),
        "product_id": ("symbol",),
        "price": ("price",),
        "last_size": ("size", "volume"),
        "side": ("side",),
    },
    signatures=_signatures(
        "timestamp symbol side size price tickDirection trdMatchID", "id timestamp price volume side"
    ),
    venue="bybit",
    has_integer_ids=True,
)

OKX: Final = FileFormat(
    name="okx",
    names={
        "trade_id": ("trade_id",),
        "side": ("side",),
        "last_size": ("size",),
        "price": ("price",),
        "time": ("created_time",),
        "product_id": ("instrument_name", "inst_id"),
    },
    layouts=(ColumnOrder(("trade_id", "side", "last_size", "price", "time")),),
    signatures=_signatures("trade_id side size price created_time"),
    venue="okx",
    has_consecutive_ids=True,
    has_integer_ids=True,
)

TARDIS: Final = FileFormat(
    name="tardis",
    names={
        "time": ("timestamp",),
        "received": ("local_timestamp",),
        "venue": ("exchange",),
        "product_id": ("symbol",),
        "trade_id": ("id",),
        "side": ("side",),
        "price": ("price",),
        "last_size": ("amount",),
        "best_bid": ("bid_price", "bids[0].price"),
        "best_ask": ("ask_price", "asks[0].price"),
        "bid_size": ("bid_amount", "bids[0].amount"),
        "ask_size": ("ask_amount", "asks[0].amount"),
    },
    signatures=_signatures("exchange symbol timestamp local_timestamp"),
    required=frozenset({"time", "price", "last_size", "best_bid", "best_ask"}),
)

_SECONDS: Final = (ColumnOrder(("time", "price", "last_size")),)

KRAKEN: Final = FileFormat(
    name="kraken",
    names={"time": ("time", "timestamp", "unixtime"), "price": ("price",), "last_size": ("volume",)},
    layouts=_SECONDS,
    venue="kraken",
)

BITCOINCHARTS: Final = FileFormat(
    name="bitcoincharts",
    names={"time": ("unixtime",), "price": ("price",), "last_size": ("amount",)},
    layouts=_SECONDS,
)

CRYPTOFEED: Final = FileFormat(
    name="cryptofeed",
    names={
        "time": ("timestamp",),
        "received": ("receipt_timestamp",),
        "venue": ("exchange",),
        "product_id": ("symbol",),
        "trade_id": ("id",),
        "side": ("side",),
        "price": ("price",),
        "last_size": ("amount",),
        "best_bid": ("bid",),
        "best_ask": ("ask",),
    },
    signatures=_signatures("exchange symbol timestamp receipt_timestamp"),
    required=frozenset({"price", "last_size", "best_bid", "best_ask"}),
)

NAUTILUS: Final = FileFormat(
    name="nautilus",
    names={
        "time": ("ts_event",),
        "received": ("ts_init",),
        "product_id": ("identifier", "instrument_id"),
        "trade_id": ("trade_id",),
        "side": ("aggressor_side",),
        "price": ("price",),
        "last_size": ("size",),
        "best_bid": ("bid_price",),
        "best_ask": ("ask_price",),
        "bid_size": ("bid_size",),
        "ask_size": ("ask_size",),
    },
    signatures=_signatures("ts_event ts_init price size aggressor_side", "ts_event ts_init bid_price ask_price"),
)

CCXT: Final = FileFormat(
    name="ccxt",
    names={
        "time": ("timestamp", "datetime"),
        "product_id": ("symbol",),
        "trade_id": ("id",),
        "side": ("side",),
        "price": ("price",),
        "last_size": ("amount",),
    },
    required=frozenset({"time", "price"}),
)

CSV: Final = FileFormat(
    name="csv",
    names={
        **{name: names for name, names in NAMES.items() if name not in {"timestamp", "sequence"}},
        "time": (*NAMES["time"], *NAMES["timestamp"], "unixtime", "date", "created_at", "trade_ts", "timestamp_ms"),
        "last_size": (*NAMES["last_size"], "volume", "vol", "sz"),
        "trade_id": (*NAMES["trade_id"], "agg_trade_id"),
        "venue": ("exchange", "venue"),
        "buyer_is_maker": ("is_buyer_maker", "buyer_maker"),
    },
    required=frozenset({"time", "price"}),
)

FORMATS: Final[Mapping[str, FileFormat]] = {
    file_format.name: file_format
    for file_format in (TARDIS, BINANCE, BYBIT, OKX, KRAKEN, CRYPTOFEED, NAUTILUS, CCXT, BITCOINCHARTS, CSV)
}
"""Every format by its name; ``csv`` is any table whose columns have usual names or are named by the user."""


# Products and venues

_VENUES: Final = {
    "binance-futures": "binance-um",
    "binance-delivery": "binance-cm",
    "binance-dex": "binance-dex",
    "bybit-spot": "bybit",
    "okex": "okx",
    "okex-swap": "okx",
    "okex-futures": "okx",
    "okcoin": "okcoin",
    "cryptofacilities": "kraken-futures",
    "gdax": "coinbase",
    "coinbase-pro": "coinbase",
    "coinbasepro": "coinbase",
    "coinbaseexchange": "coinbase",
    "gate-io": "gateio",
    "huobi-global": "huobi",
}
"""Names of venues in the files of Tardis, cryptofeed, nautilus and ccxt where they differ from ours."""

_XBT: Final = re.compile(r"^X?XBT|(?<=[-/])XBT")


def product_of_symbol(venue: str, symbol: str) -> str | None:
    """The canonical product of a venue and a symbol in their spelling of any program; None if it is none.

    >>> product_of_symbol("binance", "BTCUSDT"), product_of_symbol("COINBASE", "btc/usd")
    ('binance:BTC-USDT', 'BTC-USD')
    >>> product_of_symbol("BINANCE_FUTURES", "BTC-USDT-PERP"), product_of_symbol("binance", "BTC/USDT:USDT")
    ('binance-um:BTC-USDT-PERP', 'binance-um:BTC-USDT')
    """
    name = venue.strip().lower().replace("_", "-")
    name = _VENUES.get(name, name)
    text, _, settled = symbol.strip().upper().partition(":")  # ccxt: BTC/USDT:USDT is a swap
    spelled = hyphenated_symbol(text, has_tusd=name == "binance")
    if name == "binance" and (settled or spelled.endswith("-PERP")):
        name = "binance-cm" if spelled.removesuffix("-PERP").endswith("USD") else "binance-um"
    try:
        return canonical_product(product_name(name, spelled)) if name else None
    except VolspikeError:
        return None


def hyphenated_symbol(symbol: str, *, has_tusd: bool = False) -> str:
    """A symbol of any spelling in ours; a contract keeps its suffix. ``has_tusd``: the venue has pairs with TUSD.

    >>> hyphenated_symbol("BTCUSD_PERP"), hyphenated_symbol("XBT/EUR"), hyphenated_symbol("ETH-USDT-SWAP")
    ('BTC-USD-PERP', 'BTC-EUR', 'ETH-USDT-SWAP')
    >>> hyphenated_symbol("DOTUSD"), hyphenated_symbol("BTCTUSD", has_tusd=True)
    ('DOT-USD', 'BTC-TUSD')
    """
    pair, mark, contract = _XBT.sub("BTC", symbol.upper()).replace("/", "-").partition("_")
    if mark and not contract[:1].isdigit() and contract not in {"PERP", "SWAP"}:  # BTC_USDT
        pair, mark, contract = f"{pair}-{contract}", "", ""
    base, dash, suffix = pair.partition("-")
    if not dash and base.endswith("TUSD") and not has_tusd and len(base) > len("TUSD"):
        base = f"{base.removesuffix('USD')}-USD"
    return hyphenated(base) + dash + suffix + ("-" if mark else "") + contract


def is_same_symbol(product_id: str, symbol: str) -> bool:
    """Whether a symbol in a file is that of a product, whatever its separators.

    >>> is_same_symbol("bybit-linear:BTC-USDT", "BTCUSDT"), is_same_symbol("BTC-USD", "BTCUSDT")
    (True, False)
    """
    ours, theirs = (re.sub("[^A-Z0-9]", "", text.upper()) for text in (product_id.rpartition(":")[2], symbol))
    return _CONTRACT.sub("", ours) == _CONTRACT.sub("", theirs.replace("XBT", "BTC"))


_CONTRACT: Final = re.compile(r"(?:PERP|SWAP|PERPETUAL)$")

_STEMS: Final = (
    # BTCUSDT-aggTrades-2025-10-04, BTC-USDT-SWAP-trades-2025-10-04
    re.compile(r"(?P<symbol>[A-Z0-9]+(?:[-_][A-Z0-9]+)*)-(?:agg)?trades-\d{4}-\d\d(?:-\d\d)?", re.IGNORECASE),
    # binance_trades_2025-10-04_BTCUSDT
    re.compile(
        r"(?P<venue>[a-z][a-z0-9-]*)_(?:trades|quotes|book_snapshot_\d+|book_ticker)_\d{4}-\d\d-\d\d_(?P<symbol>[\w-]+)",
        re.IGNORECASE,
    ),
    # BTCUSDT_2025-10-04, BTCUSDT2025-10-04 (Bybit)
    re.compile(r"(?P<symbol>[A-Z0-9]{5,}?)_?\d{4}-\d\d(?:-\d\d)?"),
    # bitcoincharts, such as bitstampUSD
    re.compile(r"\.?(?P<venue>[a-z][a-z0-9]+)(?P<currency>[A-Z]{3})"),
    # binance_BTC-USDT_…, kraken-ETHUSD-…
    re.compile(
        r"(?P<venue>[a-z]+(?:-(?:um|cm|linear|inverse|futures|us))?)[-_]"
        r"(?P<symbol>[A-Z0-9]+(?:-[A-Z0-9]+)*)(?:[-_ ].*)?"
    ),
    # Kraken, such as XBTUSD
    re.compile(r"(?P<symbol>[A-Z0-9]{5,12})"),
)


@dataclass(frozen=True, slots=True)
class FileOrigin:
    """Venue and symbol in the name and the folder of a file, each empty if unknown."""

    venue: str = ""
    symbol: str = ""


def origin_of(path: PurePath) -> FileOrigin:
    """The venue and the symbol in a file's name; the venue is otherwise that of its folder.

    >>> origin_of(PurePath("BTCUSDT-aggTrades-2025-10-04.zip"))
    FileOrigin(venue='', symbol='BTCUSDT')
    >>> origin_of(PurePath("bitstampUSD.csv.gz"))
    FileOrigin(venue='bitstamp', symbol='BTC-USD')
    """
    stem = path.name.partition(".")[0] or path.name.lstrip(".").partition(".")[0]
    folder = path.parent.name.lower()
    by_folder = folder if folder in KNOWN_VENUES else ""
    for pattern in _STEMS:
        found = pattern.fullmatch(stem)
        if found is None:
            continue
        parts = found.groupdict()
        venue = (parts.get("venue") or "").lower()
        if venue and _VENUES.get(venue, venue) not in KNOWN_VENUES:
            continue
        symbol = parts.get("symbol") or (f"BTC-{parts['currency']}" if parts.get("currency") else "")
        return FileOrigin(venue or by_folder, symbol.upper())
    return FileOrigin(by_folder)


def market_venue(file_format: FileFormat, symbol: str, market: str) -> str:
    """The venue of a file of an exchange with several markets.

    Args:
        file_format: the format.
        symbol: the symbol in the spelling of the exchange.
        market: ``spot``, ``futures``, or empty if unknown.
    """
    if market == "futures" and file_format is BINANCE:
        return "binance-cm" if symbol.partition("_")[0].upper().endswith("USD") else "binance-um"
    if market == "futures" and file_format is BYBIT:
        is_linear = re.search(r"(?:USDT|PERP|USDC)(?:-.*)?$", symbol.upper()) is not None
        return "bybit-linear" if is_linear else "bybit-inverse"
    return file_format.venue


def market_of_header(file_format: FileFormat, header: Sequence[str]) -> str:
    """The market of a file with a header: Binance's files of the spot market have none, Bybit's derivatives a tick."""
    if file_format is BINANCE:
        return "futures"
    if file_format is BYBIT:
        return "futures" if "tickdirection" in {plain_name(name) for name in header} else "spot"
    return ""
