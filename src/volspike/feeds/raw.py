"""The ``raw`` object of a tape line: one exchange message, as received from either Coinbase socket.

It is one of three: a ticker message (best sizes are ``…_size`` on Exchange, ``…_quantity`` on Advanced Trade), a
``match`` or ``last_match`` of Exchange, or a trade of Advanced Trade, which has no ``type``.
"""

from __future__ import annotations

from math import isnan, nan
from typing import NamedTuple

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.fields import SIDES, TAKER_OF_MAKER, Identifier, quote_side, read_time, valid_price, valid_size
from volspike.market import MISSING_ID, Kind, Side, Tick

LAST_MATCH = "last_match"


class RawMessage(msgspec.Struct, gc=False, kw_only=True):
    """The fields of ``raw`` that volspike reads; decode with ``strict=False``, because numbers are sent as text.

    A missing number is NaN or ``MISSING_ID``, a missing text ``""``. ``time`` is the exchange's clock; tickers of
    Advanced Trade have none.
    """

    type: str = ""
    product_id: str = ""
    price: float = nan
    best_bid: float = nan
    best_ask: float = nan
    best_bid_quantity: float = nan
    best_ask_quantity: float = nan
    best_bid_size: float = nan
    best_ask_size: float = nan
    last_size: float = nan
    size: float = nan
    side: str = ""
    trade_id: Identifier = MISSING_ID
    sequence: Identifier = MISSING_ID
    time: str = ""

    @property
    def is_history(self) -> bool:
        """Whether it is a trade from before the subscription: Exchange sends one ``last_match`` first."""
        return self.type == LAST_MATCH

    @property
    def is_trade(self) -> bool:
        """Whether it is a trade: Exchange names the type, on Advanced Trade it has a size and no quotes."""
        if self.type in {"match", LAST_MATCH}:
            return True
        return not isnan(self.size) and self.trade_id != MISSING_ID and isnan(self.best_bid) and isnan(self.best_ask)


ABSENT = msgspec.Raw(b"null")


class DetailedMessage(RawMessage, gc=False, kw_only=True):
    """``RawMessage`` with the 24 hour figures, verbatim, as Exchange and Advanced Trade name them."""

    volume_24h: msgspec.Raw = ABSENT
    low_24h: msgspec.Raw = ABSENT
    high_24h: msgspec.Raw = ABSENT
    volume_24_h: msgspec.Raw = ABSENT
    low_24_h: msgspec.Raw = ABSENT
    high_24_h: msgspec.Raw = ABSENT


class TickMessage(NamedTuple):
    """The exchange's own message for one tick.

    ``fields`` is what a reader of the tape finds in ``text``; None if that needs the slower reading of ``tape.lines``.
    """

    text: bytes | msgspec.Raw
    fields: DetailedMessage | None

    def __repr__(self) -> str:
        return f"TickMessage({bytes(self.text)!r})"


def tick_from_raw(
    raw: RawMessage, *, received: int, product_id: str, price: float, best_bid: float = nan, best_ask: float = nan
) -> Tick | None:
    """The tick of one tape line, or None if the trade happened before the subscription.

    The line's own ``product_id``, ``price`` and quotes come first; missing ones (NaN or ``""``) are taken from
    ``raw``. ``received`` is the line's timestamp in ns, and also the tick's time where ``raw`` has no ``time``.

    Raises:
        MalformedTick: an invalid product, price, quote, size, side or time; its path starts at the line.
    """
    if raw.is_history:
        return None
    time = read_time(raw.time, "$.raw.time") if raw.time else received
    product_id = product_id or raw.product_id
    if not product_id:
        raise MalformedTick("required and missing", "$.product_id")
    price = valid_price(raw.price if isnan(price) else price, "$.price")
    if raw.is_trade:
        return Tick(
            time=time,
            received=received,
            kind=Kind.TRADE,
            product_id=product_id,
            price=price,
            last_size=valid_size(raw.size, "$.raw.size"),
            side=_side(TAKER_OF_MAKER, raw.side),
            trade_id=raw.trade_id,
            sequence=raw.sequence,
        )
    bid, bid_size = _quote(best_bid, raw.best_bid, raw.best_bid_quantity, raw.best_bid_size, "bid")
    ask, ask_size = _quote(best_ask, raw.best_ask, raw.best_ask_quantity, raw.best_ask_size, "ask")
    return Tick(
        time=time,
        received=received,
        kind=Kind.TICKER,
        product_id=product_id,
        price=price,
        best_bid=bid,
        best_ask=ask,
        bid_size=bid_size,
        ask_size=ask_size,
        last_size=valid_size(raw.last_size, "$.raw.last_size"),
        side=_side(SIDES, raw.side),
        trade_id=raw.trade_id,
        sequence=raw.sequence,
    )


def _quote(line: float, raw: float, quantity: float, size: float, which: str) -> tuple[float, float]:
    """One side of the book; its size is ``quantity`` on Advanced Trade and ``size`` on Exchange."""
    price = raw if isnan(line) else line
    depth, name = (size, "size") if isnan(quantity) else (quantity, "quantity")
    return quote_side(price, depth, f"$.best_{which}", f"$.raw.best_{which}_{name}")


def _side(words: dict[str, Side], word: str) -> Side:
    try:
        return words[word]
    except KeyError:
        raise MalformedTick(f"Expected a side 'buy' or 'sell', got {word!r}", "$.raw.side") from None
