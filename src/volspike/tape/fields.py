"""Field names and values of ticks in tapes of any origin: one table for JSON lines, frames and Parquet columns."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import isnan, nan
from typing import Any, Final

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.messages import DECODE_ERRORS, LAST_MATCH, malformed_from, read_time
from volspike.market import MISSING_ID, Kind, Side

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "time": ("time", "exchange_time", "exchange_timestamp", "event_time", "trade_time", "transact_time", "ts_event"),
    "timestamp": ("timestamp", "ts", "datetime"),
    "received": (
        "received", "received_at", "receive_time", "received_time", "recv_time", "recv_ts", "ts_recv", "received_ts",
        "receive_timestamp", "receipt_timestamp", "received_timestamp", "local_timestamp", "local_time", "ingest_time",
        "ingest_ts", "ingest_timestamp", "ingested_at", "recorded_at", "captured_at", "capture_time", "arrival_time",
    ),
    "kind": ("kind", "type", "event_type"),
    "venue": ("venue", "exchange"),
    "product_id": ("product_id", "product", "symbol", "instrument", "instrument_id", "inst_id", "pair", "market"),
    "price": ("price", "last_price", "trade_price", "last"),
    "best_bid": ("best_bid", "best_bid_price", "bid_price", "bid"),
    "best_ask": ("best_ask", "best_ask_price", "ask_price", "ask", "best_offer", "offer_price", "offer"),
    "bid_size": (
        "bid_size", "best_bid_quantity", "best_bid_size", "best_bid_qty", "bid_quantity", "bid_qty",
        "best_bid_amount", "bid_amount", "best_bid_volume", "bid_volume", "best_bid_sz", "bid_sz",
    ),
    "ask_size": (
        "ask_size", "best_ask_quantity", "best_ask_size", "best_ask_qty", "ask_quantity", "ask_qty",
        "best_ask_amount", "ask_amount", "best_ask_volume", "ask_volume", "best_ask_sz", "ask_sz", "offer_size",
    ),
    "last_size": (
        "last_size", "size", "quantity", "qty", "amount", "trade_size", "trade_quantity", "trade_qty",
        "last_quantity", "last_qty",
    ),
    "side": ("side", "taker_side", "aggressor_side", "aggressor", "trade_side", "maker_side"),
    "trade_id": ("trade_id", "id", "match_id", "tid"),
    "sequence": ("sequence", "sequence_num", "sequence_number", "seq_num", "seq"),
}  # fmt: skip
"""The names of each field of a tick, the preferred one first; case, ``_``, ``-``, ``.`` and blanks do not matter.

``timestamp`` is the recorder's clock in a line that has a ``time`` and no field of ``received``, otherwise the
exchange's. ``kind`` is also the ``type`` of Coinbase's messages.
"""

TAPE_FIELDS: Final = (*NAMES, "raw", "source", "simulated")
MAKER_SIDE: Final = "maker_side"

_UNITS = re.compile(r"_(?:ns|us|ms|utc)$")
_DAY_FIGURE = re.compile(r"24_?h|\d+_?[dwm]\b|^(?:open|high|low|close)|order_?id|change|chg|^volume$", re.IGNORECASE)
_PARTS = (("bid", "size"), ("ask", "size"), ("offer", "size"), ("bid",), ("ask",), ("offer",), ("price",), ("size",))
_SIZES = ("size", "qty", "quantity", "amount", "volume", "vol", "depth", "sz", "lots")


def normalize_name(name: str) -> str:
    """A name without case, separators and unit of time.

    >>> normalize_name("bestBidSize"), normalize_name("Best Bid-Size"), normalize_name("recv_ts_ns")
    ('bestbidsize', 'bestbidsize', 'recvts')
    """
    return re.sub(r"[^a-z0-9]", "", _UNITS.sub("", name.lower()))


_FIELD_OF = {normalize_name(name): (field, place) for field, names in NAMES.items() for place, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class FieldNames:
    """The names that an object or table uses for the fields of a tick, and remarks about the names it does not use."""

    of: dict[str, str]
    notes: tuple[str, ...]

    def __contains__(self, field: object) -> bool:
        return field in self.of


@lru_cache(maxsize=4096)
def match_names(present: tuple[str, ...]) -> FieldNames:
    """Finds the fields of a tick among the names ``present``; where a field has several names, the preferred one.

    >>> match_names(("ts", "bid_qty", "bidSize", "bid_vol1")).notes
    ('bid_qty is not used, because bid_size is read from bidSize', 'bid_vol1 is not read; \
if it is bid_size, rename it to that')
    """
    candidates: dict[str, list[tuple[int, str]]] = {}
    unknown = []
    for name in present:
        known = _FIELD_OF.get(normalize_name(name))
        if known is None:
            unknown.append(name)
        else:
            candidates.setdefault(known[0], []).append((known[1], name))
    of = {field: min(found)[1] for field, found in candidates.items()}
    notes = [
        f"{name} is not used, because {field} is read from {of[field]}"
        for field, found in candidates.items()
        for _, name in sorted(found)[1:]
        if field != "kind"
    ]
    for name in unknown:
        field = similar_field(name)
        if field is not None and name not in TAPE_FIELDS:
            notes.append(f"{name} is not read; if it is {field}, rename it to that")
    return FieldNames(of, tuple(notes))


def similar_field(name: str) -> str | None:
    """The field of a tick that an unknown name resembles, or None; figures of a day resemble none.

    >>> similar_field("top_bid_vol"), similar_field("volume_24h"), similar_field("is_buyer_maker")
    ('bid_size', None, 'side')
    """
    text = normalize_name(name)
    if _DAY_FIGURE.search(name) or len(text) > 40:
        return None
    has_size = any(word in text for word in _SIZES)
    for parts in _PARTS:
        if all(has_size if part == "size" else part in text for part in parts):
            return {
                ("bid", "size"): "bid_size",
                ("ask", "size"): "ask_size",
                ("offer", "size"): "ask_size",
                ("bid",): "best_bid",
                ("ask",): "best_ask",
                ("offer",): "best_ask",
                ("price",): "price",
                ("size",): "last_size",
            }[parts]
    if "side" in text or "aggressor" in text or "maker" in text or "taker" in text:
        return "side"
    return "trade_id" if text in {"tradeno", "tradenumber", "tradeidentifier", "execid", "executionid"} else None


# Values


def read_number(value: Any) -> float:
    """A JSON number or its text as a float; NaN for null. Raises ``MalformedTick`` for anything else."""
    if value is None:
        return nan
    try:
        return msgspec.convert(value, float, strict=False)
    except DECODE_ERRORS as error:
        raise malformed_from(error) from error


def read_identifier(value: Any) -> int:
    """A trade id or sequence number: a whole number of any type or its text; ``MISSING_ID`` for anything else.

    Ids that are no numbers (UUIDs) have no column in a tape.

    >>> read_identifier("17"), read_identifier(17.0), read_identifier("8f1c-…"), read_identifier(None)
    (17, 17, -1, -1)
    """
    if isinstance(value, str):
        try:
            value = int(value)
        except ValueError:
            value = _float_or_nan(value)
    if isinstance(value, float):
        value = MISSING_ID if isnan(value) or not value.is_integer() else int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        return MISSING_ID
    return value


UNREAD_IDS: Final = "trade ids that are no numbers are not read"


def _float_or_nan(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return nan


_SIDE_WORDS: Final = {
    **dict.fromkeys(("buy", "b", "bid", "buyer", "bought"), Side.BUY),
    **dict.fromkeys(("sell", "s", "ask", "seller", "sold"), Side.SELL),
    **dict.fromkeys(("", "unknown", "none", "null", "nan", "n/a", "-"), Side.UNKNOWN),
}


def side_of(word: str) -> Side | None:
    """The side that a text names in any case, or None.

    >>> side_of("S"), side_of("Buy"), side_of("up")
    (<Side.SELL: -1>, <Side.BUY: 1>, None)
    """
    return _SIDE_WORDS.get(word.strip().lower())


def read_side(value: Any, path: str) -> Side:
    """The side that a value names; raises ``MalformedTick`` for a text that names none."""
    side = Side.UNKNOWN if value is None else side_of(value) if isinstance(value, str) else None
    if side is None:
        raise MalformedTick(f"Expected a side 'buy' or 'sell', got {value!r}", path)
    return side


def kind_of(word: Any) -> Kind | None:
    """The kind of tick that a message type names, or None if it names none (``update``)."""
    return _KIND_WORDS.get(word.lower()) if isinstance(word, str) else None


_KIND_WORDS: Final = {
    **dict.fromkeys(("ticker", "quote", "bbo", "book_ticker", "bookticker"), Kind.TICKER),
    **dict.fromkeys(("match", LAST_MATCH, "trade", "trades", "agg_trade", "aggtrade"), Kind.TRADE),
}


def read_instant(value: Any, path: str) -> int:
    """Nanoseconds of a time as RFC 3339 text or as a number since 1970 (or its digits), whose size gives its unit.

    Seconds, milliseconds, microseconds and nanoseconds differ in magnitude; digits are read exactly, so pass
    a JSON number as ``msgspec.Raw``.

    Raises:
        MalformedTick: the value is no time.
    """
    if isinstance(value, msgspec.Raw):
        text = bytes(value).decode()
        if text[:1] in {"{", "["}:
            raise MalformedTick("Expected a time, got an object", path)
        value = msgspec.json.decode(value) if text[:1] == '"' else text
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        return read_time(value, path)
    try:
        number = Decimal(str(value))
        if number.adjusted() > _MOST_DIGITS:  # 1e999999 has as many digits as an integer
            raise MalformedTick(f"Expected a time, got {value!r}", path)
        return int((number * _unit_ns(abs(number))).to_integral_value())
    except (ArithmeticError, ValueError) as error:
        raise MalformedTick(f"Expected a time, got {value!r}", path) from error


_MOST_DIGITS = 20
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def _unit_ns(number: Decimal) -> int:
    if number < 10**11:
        return 1_000_000_000
    if number < 10**14:
        return 1_000_000
    return 1_000 if number < 10**17 else 1


def listed(fields: Collection[str]) -> str:
    """The preferred names of ``fields``, for a message about missing fields."""
    return ", ".join(dict.fromkeys(name for field in fields for name in NAMES[field][:3]))
