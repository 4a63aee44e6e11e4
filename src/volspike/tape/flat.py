"""Ticks from JSON objects that hold the fields of a tick under any of the names in ``fields``.

Such an object is a tape line with or without ``raw``, a message of Coinbase Exchange, an element of an Advanced Trade
frame, or a line that another program flattened. Values of the object come before those of its ``raw`` message.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isnan, nan
from typing import Any, NamedTuple

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.messages import LAST_MATCH, quote_side, valid_price, valid_size
from volspike.market import Kind, Side, Tick
from volspike.market.product import named_at
from volspike.market.time import NOT_A_TIME
from volspike.tape.fields import (
    MAKER_SIDE,
    FieldNames,
    kind_of,
    listed,
    match_names,
    read_identifier,
    read_instant,
    read_number,
    read_side,
)

JsonObject = Mapping[str, msgspec.Raw]

_OPPOSITE = {Side.BUY: Side.SELL, Side.SELL: Side.BUY, Side.UNKNOWN: Side.UNKNOWN}


class Context(NamedTuple):
    """The facts of a line outside the object: times of receipt and of the frame (or ``NOT_A_TIME``), and a product."""

    received: int = NOT_A_TIME
    time: int = NOT_A_TIME
    product_id: str = ""


NO_CONTEXT = Context()


def is_flat(names: FieldNames, context: Context = NO_CONTEXT) -> bool:
    """Whether an object with these names holds a tick: a price, and a time unless the line states it."""
    of = names.of
    return "price" in of and (context.received != NOT_A_TIME or "timestamp" in of or "time" in of or "received" in of)


class _Part:
    """The values of one object that are present, by field; ``path`` locates the object in the line."""

    def __init__(self, texts: JsonObject, path: str) -> None:
        self.names = match_names(tuple(texts))
        self.values: dict[str, Any] = {}
        self._texts = texts
        self._path = path
        for field, name in self.names.of.items():
            value = msgspec.json.decode(texts[name])
            if value is not None and value != "":
                self.values[field] = value

    def instant(self, field: str) -> int:
        value = self.values.get(field)
        if value is None:
            return NOT_A_TIME
        # a float would round the digits of a number
        return read_instant(value if isinstance(value, str) else self._texts[self.names.of[field]], self.place(field))

    def place(self, field: str) -> str:
        return f"{self._path}.{self.names.of.get(field, field)}"


class FlatObject:
    """One object with the fields of a tick; ``notes`` are remarks about names that are not read."""

    def __init__(self, values: JsonObject, context: Context = NO_CONTEXT) -> None:
        raw = _object_or_none(values.get("raw"))
        self._own, self._inner = _Part(values, "$"), None if raw is None else _Part(raw, "$.raw")
        self._values = self._own.values if self._inner is None else self._inner.values | self._own.values
        self._context = context
        self.notes = self._own.names.notes + (() if self._inner is None else self._inner.names.notes)

    def tick(self) -> Tick | None:
        """The tick; None for a trade from before the subscription (``last_match``).

        Raises:
            MalformedTick: a required value is missing, or a value is invalid.
        """
        own = self._own.values
        word = own.get("kind") if self._inner is None else self._inner.values.get("kind", own.get("kind"))
        if word == LAST_MATCH:
            return None
        time, received = self._times()
        product_id = self._values.get("product_id") or self._context.product_id
        if not isinstance(product_id, str) or not product_id:
            raise MalformedTick("required and missing", "$.product_id")
        venue = self._values.get("venue")
        if isinstance(venue, str) and venue.strip():
            product_id = named_at(venue, product_id)
        price = self._number("price")
        if not 0.0 < price < inf:
            valid_price(price, self._place("price"))
        last_size = self._number("last_size")
        if not 0.0 <= last_size < inf:
            valid_size(last_size, self._place("last_size"))
        kind = self._kind(word, last_size)
        bid, bid_size = (nan, nan) if kind is Kind.TRADE else self._quote("best_bid", "bid_size")
        ask, ask_size = (nan, nan) if kind is Kind.TRADE else self._quote("best_ask", "ask_size")
        return Tick(
            time=time,
            received=received,
            kind=kind,
            product_id=product_id,
            price=price,
            best_bid=bid,
            best_ask=ask,
            bid_size=bid_size,
            ask_size=ask_size,
            last_size=last_size,
            side=self._side(word, kind),
            trade_id=read_identifier(self._values.get("trade_id")),
            sequence=read_identifier(self._values.get("sequence")),
        )

    @property
    def has_id(self) -> bool:
        """Whether it has a trade id of any form."""
        return "trade_id" in self._values

    def _part(self, field: str) -> _Part:
        """The part that has a value for ``field``, or the object itself."""
        inner = self._inner
        return self._own if inner is None or field in self._own.values or field not in inner.values else inner

    def _place(self, field: str) -> str:
        return self._part(field).place(field)

    def _number(self, field: str) -> float:
        try:
            return read_number(self._values.get(field))
        except MalformedTick as fault:
            raise MalformedTick(fault.reason, self._place(field)) from fault

    def _times(self) -> tuple[int, int]:
        """The exchange's time and the time of receipt; each replaces the other where that is missing."""
        own, context = self._own, self._context
        received, stamp = own.instant("received"), own.instant("timestamp")
        time = self._part("time").instant("time")
        if time == NOT_A_TIME:
            time = context.time
        if received == NOT_A_TIME:
            received = context.received
        if received == NOT_A_TIME:
            received, stamp = stamp, NOT_A_TIME
        if time == NOT_A_TIME:
            time = stamp
        if time == NOT_A_TIME and self._inner is not None:
            time = self._inner.instant("timestamp")
        if time == NOT_A_TIME:
            time = received
        if time == NOT_A_TIME:
            raise MalformedTick(f"no time: looked for {listed(('timestamp', 'time', 'received'))}")
        return time, time if received == NOT_A_TIME else received

    def _kind(self, word: Any, last_size: float) -> Kind:
        """The kind that the message states; otherwise a size without quotes next to it is a trade."""
        kind = kind_of(word)
        if kind is not None:
            return kind
        values = self._part("last_size").values
        is_quoted = "best_bid" in values or "best_ask" in values
        return Kind.TICKER if isnan(last_size) or is_quoted else Kind.TRADE

    def _side(self, word: Any, kind: Kind) -> Side:
        """The taker's side; Coinbase's trades, which are matches or have no type in ``raw``, state the maker's."""
        value = self._values.get("side")
        if value is None:
            return Side.UNKNOWN
        part = self._part("side")
        side = read_side(value, part.place("side"))
        is_coinbase_trade = word == "match" or (kind is Kind.TRADE and part is self._inner and word is None)
        return _OPPOSITE[side] if is_coinbase_trade or part.names.of["side"] == MAKER_SIDE else side

    def _quote(self, price_field: str, size_field: str) -> tuple[float, float]:
        price, size = self._number(price_field), self._number(size_field)
        if 0.0 < price < inf and 0.0 <= size < inf:
            return price, size
        return quote_side(price, size, self._place(price_field), self._place(size_field))


def _object_or_none(text: msgspec.Raw | None) -> JsonObject | None:
    if text is None or bytes(memoryview(text)[:1]) != b"{":
        return None
    return msgspec.json.decode(text, type=dict[str, msgspec.Raw])
