"""The Parquet form of a tape: its columns, and which foreign tables of trades are read as well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from volspike.errors import UnreadableFile
from volspike.tape.names import product_of

METADATA_KEY = b"volspike_tape"
FORMAT = 1

_INSTANT = pa.timestamp("ns", tz="UTC")
_WORD = pa.dictionary(pa.int32(), pa.string())

TAPE_SCHEMA = pa.schema(
    [
        pa.field("time", _INSTANT, nullable=False),
        pa.field("received", _INSTANT, nullable=False),
        pa.field("kind", _WORD, nullable=False),
        pa.field("product_id", _WORD, nullable=False),
        pa.field("price", pa.float64(), nullable=False),
        pa.field("best_bid", pa.float64(), nullable=False),
        pa.field("best_ask", pa.float64(), nullable=False),
        pa.field("bid_size", pa.float64(), nullable=False),
        pa.field("ask_size", pa.float64(), nullable=False),
        pa.field("last_size", pa.float64(), nullable=False),
        pa.field("side", _WORD),
        pa.field("trade_id", pa.int64(), nullable=False),
        pa.field("sequence", pa.int64(), nullable=False),
    ]
)
"""The columns of ``Tick``. Untold numbers are NaN, untold ids -1, an untold side null."""

INSTANTS = ("time", "received")
WORDS = ("kind", "product_id", "side")
IDS = ("trade_id", "sequence")

_ALIASES = {
    "time": ("timestamp",),
    "trade_id": ("id",),
    "last_size": ("size", "quantity", "qty", "amount"),
}


class Layout(NamedTuple):
    """How a file holds a tape: its column for each of ``Tick``'s that it has, and what stands for those it lacks."""

    columns: dict[str, str]
    product_id: str | None
    simulated: bool


def tape_metadata(simulated: bool) -> dict[bytes, bytes]:
    """What a Parquet tape says of itself."""
    return {METADATA_KEY: json.dumps({"format": FORMAT, "simulated": simulated}).encode()}


def layout_of(path: Path, schema: pa.Schema, metadata: Mapping[bytes, bytes]) -> Layout:
    """How the file at ``path`` holds a tape; ``metadata`` is its key-value metadata.

    A file without ``kind`` is a foreign table of trades: it needs ``time``, ``price`` and a size. One that tells
    no product is taken to be of the product in its name.

    Raises:
        UnreadableFile: it is no tape; columns that miss or are of the wrong type are named.
    """
    columns = _columns(schema)
    needed = ("time", "price") if "kind" in columns else ("time", "price", "last_size")
    missing = [name for name in needed if name not in columns]
    if missing:
        there = ", ".join(schema.names[:8]) + (", …" if len(schema.names) > 8 else "")
        raise UnreadableFile(
            path,
            f"no tape: missing {', '.join(missing)} (there are {there or 'no columns'}); "
            "give a tape of volspike, or trades with time, price and size",
        )
    wrong = [f"{told} is {schema.field(told).type}" for name, told in columns.items() if not _fits(name, schema, told)]
    if wrong:
        raise UnreadableFile(
            path, f"no tape: {', '.join(wrong)}; times are timestamps, figures and ids numbers, words text"
        )
    product = None if "product_id" in columns else product_of(path)
    if product is None and "product_id" not in columns:
        raise UnreadableFile(path, "tells no product: add a column product_id, or name it ticks_BTCUSD_….parquet")
    return Layout(columns, product, _is_simulated(path, metadata))


def _columns(schema: pa.Schema) -> dict[str, str]:
    columns = {}
    for name in TAPE_SCHEMA.names:
        source = next((known for known in (name, *_ALIASES.get(name, ())) if known in schema.names), None)
        if source is not None:
            columns[name] = source
    if "time" not in columns and "received" in columns:
        columns["time"] = columns["received"]
    return columns


def _fits(name: str, schema: pa.Schema, source: str) -> bool:
    kind = schema.field(source).type
    if name in INSTANTS:
        return bool(pa.types.is_timestamp(kind))
    if name in WORDS:
        words = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(pa.types.is_string(words) or pa.types.is_large_string(words) or pa.types.is_null(words))
    if name in IDS:
        return bool(pa.types.is_integer(kind) or pa.types.is_null(kind))
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )


def _is_simulated(path: Path, metadata: Mapping[bytes, bytes]) -> bool:
    told = metadata.get(METADATA_KEY)
    if told is None:
        return False
    try:
        facts = json.loads(told)
        number, simulated = int(facts["format"]), bool(facts["simulated"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(path, f"its {METADATA_KEY.decode()} metadata cannot be read: {error}") from error
    if number > FORMAT:
        raise UnreadableFile(path, f"tape format {number}, this version reads up to {FORMAT}: install a newer volspike")
    return simulated
