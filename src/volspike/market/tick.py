"""One event of a market: a ticker message or a trade."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from math import nan

import msgspec


class Kind(IntEnum):
    """What an event is. Features count ticker messages; trades tell sizes."""

    TICKER = 0
    TRADE = 1


class Side(IntEnum):
    """The taker's side of a trade: a BUY lifted the ask."""

    SELL = -1
    UNTOLD = 0
    BUY = 1


class Profile(StrEnum):
    """Which kinds of events a source tells; a model is served on the profile that it was trained on."""

    TICKER = "ticker"
    TICKER_AND_TRADE = "ticker+trade"
    TRADE = "trade"


UNTOLD_ID = -1
"""Stands where the source told no trade id or sequence number."""


class Tick(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the market told at one moment. What it did not tell is NaN, ``Side.UNTOLD`` or ``UNTOLD_ID``.

    ``time`` is the exchange's clock and ``received`` ours, both in nanoseconds UTC; where the exchange told
    no time they are equal. Prices are in quote currency, sizes in base currency.
    """

    time: int
    received: int
    kind: Kind
    product_id: str
    price: float
    best_bid: float = nan
    best_ask: float = nan
    bid_size: float = nan
    ask_size: float = nan
    last_size: float = nan
    side: Side = Side.UNTOLD
    trade_id: int = UNTOLD_ID
    sequence: int = UNTOLD_ID
