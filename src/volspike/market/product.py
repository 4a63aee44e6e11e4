"""Products and their venues: ``venue:product``; a name without a venue is a product of Coinbase.

The canonical name of a product is its symbol at Coinbase (``BTC-USD``) and ``venue:symbol`` everywhere else
(``binance:BTC-USDT``). Ticks, rows, files, Kafka keys and metrics use it.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from volspike.errors import UsageError

COINBASE: Final = "coinbase"
"""The venue of a product whose name states none."""

SIMULATED_VENUE: Final = "simulated"
"""The venue of every simulated market."""

KNOWN_VENUES: Final = frozenset(
    [
        "binance",
        "binance-cm",
        "binance-um",
        "binance-us",
        "bitbank",
        "bitfinex",
        "bitflyer",
        "bithumb",
        "bitmex",
        "bitstamp",
        "btcbox",
        "btcturk",
        "bybit",
        "bybit-inverse",
        "bybit-linear",
        "cexio",
        "coinbase",
        "coincheck",
        "crypto-com",
        "deribit",
        "dukascopy",
        "fxcm",
        "gateio",
        "gemini",
        "hitbtc",
        "htx",
        "huobi",
        "hyperliquid",
        "itbit",
        "kraken",
        "kraken-futures",
        "kucoin",
        "liquid",
        "mexc",
        "mtgox",
        "oanda",
        "okcoin",
        "okx",
        "poloniex",
        "quoine",
        "upbit",
        "zaif",
    ]
)
"""Exchanges and brokers by which files are recognised that state no venue in their rows."""

_QUOTES: Final = [
    "FDUSD",
    "USDT",
    "USDC",
    "TUSD",
    "BUSD",
    "DAI",
    "USD",
    "EUR",
    "GBP",
    "JPY",
    "CHF",
    "AUD",
    "CAD",
    "TRY",
    "BRL",
    "KRW",
    "ZAR",
    "SGD",
    "PLN",
    "MXN",
    "NZD",
    "UAH",
    "BTC",
    "ETH",
    "BNB",
]
_NAME: Final = re.compile(r"(?:([a-z][a-z0-9-]*):)?([A-Z0-9][A-Z0-9._/-]*)")


def split_product(name: str, venue: str = COINBASE) -> tuple[str, str]:
    """Venue and symbol of a name; ``venue`` is that of a name without one.

    >>> split_product("binance:BTC-USDT"), split_product("BTC-USD")
    (('binance', 'BTC-USDT'), ('coinbase', 'BTC-USD'))
    """
    stated, separator, product = name.partition(":")
    return (stated, product) if separator else (venue, name)


def product_name(venue: str, symbol: str) -> str:
    """The canonical name of a venue's product.

    >>> product_name("kraken", "ETH-USD"), product_name("coinbase", "ETH-USD")
    ('kraken:ETH-USD', 'ETH-USD')
    """
    return symbol if venue == COINBASE else f"{venue}:{symbol}"


def named_at(venue: str, symbol: str) -> str:
    """The product of a symbol in a row that states its venue; a name that has a venue keeps it.

    >>> named_at("Binance", "BTC-USDT"), named_at("coinbase", "BTC-USD"), named_at("okx", "kraken:BTC-USD")
    ('binance:BTC-USDT', 'BTC-USD', 'kraken:BTC-USD')
    """
    return product_name(*split_product(symbol, venue.strip().lower()))


@lru_cache(maxsize=4096)
def canonical_product(name: str) -> str:
    """The canonical form of a name that a user wrote, in any case.

    >>> canonical_product("coinbase:btc-usd"), canonical_product("Binance:BTC-USDT")
    ('BTC-USD', 'binance:BTC-USDT')

    Raises:
        UsageError: the name has no symbol, or a character that no product has.
    """
    venue, separator, symbol = name.strip().rpartition(":")
    spelled = f"{venue.lower()}{separator}{symbol.upper()}"
    found = _NAME.fullmatch(spelled)
    if found is None:
        raise UsageError(f"invalid product {name!r}: products are named as BTC-USD or binance:BTC-USDT")
    return product_name(found[1] or COINBASE, found[2])


def hyphenated(symbol: str) -> str:
    """The product of a symbol without a hyphen, which is inserted before a known quote currency.

    >>> hyphenated("ETHBTC"), hyphenated("ETH-BTC")
    ('ETH-BTC', 'ETH-BTC')
    """
    if "-" in symbol:
        return symbol
    for quote in _QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return f"{symbol.removesuffix(quote)}-{quote}"
    return symbol
