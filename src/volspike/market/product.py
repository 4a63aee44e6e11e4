"""Products and their venues: ``venue:product``; a name without a venue is a product of Coinbase."""

from __future__ import annotations

from typing import Final

COINBASE: Final = "coinbase"
"""The venue of a product whose name states none."""

SIMULATED_VENUE: Final = "simulated"
"""The venue of every simulated market."""


def split_product(name: str, venue: str = COINBASE) -> tuple[str, str]:
    """Venue and product of a name; ``venue`` is that of a name without one.

    >>> split_product("binance:BTC-USDT"), split_product("BTC-USD")
    (('binance', 'BTC-USDT'), ('coinbase', 'BTC-USD'))
    """
    stated, separator, product = name.partition(":")
    return (stated, product) if separator else (venue, name)
