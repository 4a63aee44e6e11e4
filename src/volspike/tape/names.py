"""What a tape is called: ``ticks_BTCUSD_20251206_054535.ndjson`` from its product and the time of its first tick."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath

from volspike.market import SECOND_NS

_QUOTE_CURRENCIES = ("USDT", "USDC", "USD", "EUR", "GBP", "JPY", "CHF", "AUD", "CAD", "BTC", "ETH")
_NAME = re.compile(r"ticks_([A-Z0-9]+)_(\d{8})_(\d{6}|\d{2})(?:[_.].*)?")
_PRODUCT = re.compile(r"(?:ticks_([A-Za-z0-9]+)|([A-Za-z0-9]+)_(?:trades|ticks))(?:[_.].*)?")


@dataclass(frozen=True, slots=True)
class TapeName:
    """What a tape's file name tells: the product and when its recording began (ns UTC, whole seconds)."""

    product_id: str
    started: int


def tape_name(product_id: str, started: int, ending: str = ".ndjson") -> str:
    """The file name of a tape of ``product_id`` whose first tick was received at ``started`` (ns UTC).

    >>> tape_name("BTC-USD", 1_764_999_935_000_000_000)
    'ticks_BTCUSD_20251206_054535.ndjson'
    """
    begun = datetime.fromtimestamp(started // SECOND_NS, UTC)
    return f"ticks_{product_id.replace('-', '')}_{begun:%Y%m%d_%H%M%S}{ending}"


def symbol_of(product_id: str) -> str:
    """How a product stands in a file's name: its letters and digits, as capitals.

    >>> symbol_of("BTC-USD")
    'BTCUSD'
    """
    return re.sub("[^A-Z0-9]", "", product_id.upper())[:40] or "UNNAMED"


def read_tape_name(path: PurePath) -> TapeName | None:
    """What the name of ``path`` tells, or None where it is not of this shape; a compacted tape's is its hour.

    >>> read_tape_name(PurePath("ticks_BTCUSD_20251206_054535.ndjson"))
    TapeName(product_id='BTC-USD', started=1764999935000000000)
    """
    match = _NAME.fullmatch(path.name)
    if match is None:
        return None
    try:
        begun = datetime.strptime(match[2] + match[3].ljust(6, "0"), "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
    return TapeName(hyphenated(match[1]), int(begun.timestamp()) * SECOND_NS)


def product_of(path: PurePath) -> str | None:
    """The product that a file's name tells (``ticks_BTCUSD_…``, ``btcjpy_trades_…``), or None.

    >>> product_of(PurePath("btcjpy_trades_20180120_25.parquet"))
    'BTC-JPY'
    """
    match = _PRODUCT.fullmatch(path.name)
    return None if match is None else hyphenated((match[1] or match[2]).upper())


def hyphenated(symbol: str) -> str:
    """The product of a symbol without a hyphen, cut before a known quote currency.

    >>> hyphenated("ETHBTC")
    'ETH-BTC'
    """
    for quote in _QUOTE_CURRENCIES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return f"{symbol.removesuffix(quote)}-{quote}"
    return symbol
