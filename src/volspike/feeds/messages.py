"""Coinbase's messages: field rules shared by the codecs, and ``RawMessage``, the ``raw`` object of a tape line.

The field rules are JSON decoding with located errors, empty fields and valid numbers. An empty side of the book is
``""``, ``"0"``, ``null`` or an absent field at Coinbase and NaN in volspike.

A ``raw`` object is one message as received from either Coinbase socket: a ticker message (best sizes are ``…_size`` on
Exchange, ``…_quantity`` on Advanced Trade), a ``match`` or ``last_match`` of Exchange, or a trade of Advanced Trade,
which has no ``type``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from math import inf, isnan, nan
from typing import Annotated, Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from volspike.errors import MalformedTick
from volspike.market import MISSING_ID, Kind, Side, Tick, parse_time

T = TypeVar("T")

DECODE_ERRORS = (ValueError, RecursionError)
"""What msgspec raises on bad bytes: ``ValueError`` for its own and Unicode errors, the other for deep nesting."""

_LOCATED = re.compile(r"(?P<reason>.*?)(?: - at `(?P<path>\$.*)`)?", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`", re.DOTALL)

Identifier: TypeAlias = Annotated[int, msgspec.Meta(ge=MISSING_ID, le=2**63 - 1)]
"""A trade id or sequence number that fits the int64 column it goes to."""

SIDES = {"buy": Side.BUY, "BUY": Side.BUY, "sell": Side.SELL, "SELL": Side.SELL, "": Side.UNKNOWN}
"""Coinbase's words for a side: lower case on Exchange, upper case on Advanced Trade."""

TAKER_OF_MAKER = {"buy": Side.SELL, "BUY": Side.SELL, "sell": Side.BUY, "SELL": Side.BUY, "": Side.UNKNOWN}
"""The taker's side where the exchange sends the maker's: a resting BUY was hit by a seller."""

MAY_BE_EMPTY = frozenset(
    {
        "best_bid",
        "best_ask",
        "best_bid_quantity",
        "best_ask_quantity",
        "best_bid_size",
        "best_ask_size",
        "last_size",
        "side",
        "trade_id",
        "sequence",
        "time",
    }
)
"""Fields that may be empty (``""`` or ``null``) as well as absent."""


def decode_json(decoder: msgspec.json.Decoder[T], frame: bytes | str) -> T:
    """The frame as the decoder's type; raises ``MalformedTick`` if it does not fit."""
    try:
        return decoder.decode(frame)
    except DECODE_ERRORS as error:
        raise malformed_from(error) from error


def decode_without_empty_fields(decoder: msgspec.json.Decoder[T], frame: bytes | str) -> T:
    """Like ``decode_json``, with empty fields treated as absent; several times slower.

    Raises:
        MalformedTick: the frame does not fit the decoder's type even so.
    """
    try:
        plain: Any = drop_empty_fields(msgspec.json.decode(frame))
        return msgspec.convert(plain, decoder.type, strict=False)
    except DECODE_ERRORS as error:
        raise malformed_from(error) from error


def drop_empty_fields(value: Any) -> Any:
    """A decoded JSON value without those of its ``MAY_BE_EMPTY`` fields that are ``""`` or ``null``, at any depth.

    The typed decoders parse numbers directly from their text and reject an empty one. Such messages are rare and are
    decoded a second time: ``msgspec.convert(drop_empty_fields(msgspec.json.decode(line)), …)``.
    """
    if isinstance(value, Mapping):
        return {
            key: drop_empty_fields(field)
            for key, field in value.items()
            if not (key in MAY_BE_EMPTY and (field is None or field == ""))
        }
    if isinstance(value, list):
        return [drop_empty_fields(item) for item in value]
    return value


def decode_with_valid_numbers(decode: Callable[[bytes | str, int], T], frame: bytes | str, received: int) -> T:
    """``decode(frame, received)``; if that fails, once more with JSON's invalid numbers replaced.

    Raises:
        MalformedTick: the frame cannot be decoded either way.
    """
    try:
        return decode(frame, received)
    except MalformedTick:
        valid = replace_invalid_numbers(frame)
        if valid is None:
            raise
    return decode(valid, received)


def replace_invalid_numbers(frame: bytes | str) -> bytes | None:
    """The frame with null for ``NaN`` and ``Infinity``, which JSON does not have; None if that does not make it JSON.

    Programs in Python write such numbers; they cost the field and not the frame.
    """
    try:
        text = frame if isinstance(frame, str) else frame.decode()
        if "NaN" not in text and "Infinity" not in text:
            return None
        return msgspec.json.encode(json.loads(text, parse_constant=lambda _: None))
    except (*DECODE_ERRORS, OverflowError):
        return None


def malformed_from(error: Exception) -> MalformedTick:
    """The ``MalformedTick`` for ``error``, one of ``DECODE_ERRORS``.

    msgspec writes "Expected `float`, got `str` - at `$.x`", and gives the object's path for a missing field.
    """
    if isinstance(error, RecursionError):
        return MalformedTick("JSON is nested too deeply")
    match = _LOCATED.fullmatch(str(error))
    reason, path = (match["reason"], match["path"] or "$") if match else (str(error), "$")
    missing = _MISSING.fullmatch(reason)
    if missing:
        return MalformedTick("required and missing", f"{path}.{missing['field']}")
    return MalformedTick(reason, path)


def with_path_prefix(fault: MalformedTick, path: str) -> MalformedTick:
    """The same fault with ``path`` in place of the root ``$`` of its path."""
    return MalformedTick(fault.reason, path + fault.path.removeprefix("$"))


def read_time(text: str, path: str) -> int:
    """Nanoseconds of an RFC 3339 or Go timestamp; raises ``MalformedTick`` at ``path`` if it is neither."""
    try:
        return parse_time(text)
    except ValueError as error:
        raise MalformedTick(str(error), path) from error


def valid_price(price: float, path: str) -> float:
    """The price itself; raises ``MalformedTick`` unless it is finite and above zero."""
    if 0.0 < price < inf:
        return price
    raise MalformedTick(f"Expected a finite price above 0, got {price}", path)


def valid_size(size: float, path: str) -> float:
    """The size itself, also if it is NaN (missing); raises ``MalformedTick`` for a negative or infinite one."""
    if 0.0 <= size < inf or isnan(size):
        return size
    raise MalformedTick(f"Expected a finite size of 0 or more, got {size}", path)


def quote_side(price: float, size: float, price_path: str, size_path: str) -> tuple[float, float]:
    """Price and size of one side of the book; both are NaN where the side is empty (price 0 or missing).

    Raises:
        MalformedTick: a negative or infinite number.
    """
    if 0.0 < price < inf and 0.0 <= size < inf:
        return price, size
    if price == 0.0 or isnan(price):
        return nan, nan
    return valid_price(price, price_path), valid_size(size, size_path)


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
