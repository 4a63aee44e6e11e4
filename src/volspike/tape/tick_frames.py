"""Frames of ticks from elsewhere → tapes in memory: times and numbers of any type as importing reads them.

A frame comes from a CSV file, a database or a notebook. Its times may be texts or numbers, its prices texts, and the
order of its rows is not that of a recorder.
"""

from __future__ import annotations

from time import time_ns
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volspike.errors import UnreadableFile, UsageError
from volspike.market.product import canonical_product
from volspike.market.time import NOT_A_TIME
from volspike.tape.fields import match_names
from volspike.tape.file_formats import LATEST_AHEAD_NS
from volspike.tape.foreign_times import column_times
from volspike.tape.table import TableTape

_NUMBERS: Final = ("price", "best_bid", "best_ask", "bid_size", "ask_size", "last_size")
_REMEDY: Final = "pd.to_datetime(…, utc=True) or pl.from_epoch(…)"


def frame_tape(table: pa.Table, name: str, product: str | None = None) -> TableTape:
    """The rows of a frame as a tape.

    Times may be timestamps, ISO 8601 texts, or numbers since 1970 whose size gives their unit (s, ms, µs, ns); numbers
    may be texts. Without a price, the middle of bid and ask is the price. Values that cannot be read are missing, so
    their rows are rejected. Without times of receipt, the times must not go back.

    Args:
        table: rows of ticks under any name of ``fields``.
        name: how messages name it.
        product: the product of all rows; None if a column has it.

    Raises:
        UsageError: ``product`` is no name of a product, or a column has the products.
        UnreadableFile: no value of the time column is a time, or no value of a column of numbers a number.
    """
    names = match_names(tuple(table.column_names)).of
    if product is not None:
        product = canonical_product(product)
        if "product_id" in names:
            raise UsageError(f"{name} has a column {names['product_id']}: leave out product=, or drop the column")
    if "is_warm" in table.column_names or len(set(table.column_names)) < len(table.column_names):
        return TableTape(table, name, product)  # the reader refuses it
    time = next((names[field] for field in ("time", "timestamp", "received") if field in names), None)
    for column in dict.fromkeys([time, names.get("received")]):
        if column is not None and not pa.types.is_timestamp(table.schema.field(column).type):
            table = _with_times(table, column, name)
    for field in _NUMBERS:
        if field in names and _is_text(table.schema.field(names[field]).type):
            table = _with_numbers(table, names[field], name)
    quotes = [names[field] for field in ("best_bid", "best_ask") if field in names]
    if "price" not in names and len(quotes) == 2 and all(_is_number(table.schema.field(name).type) for name in quotes):
        bid, ask = (_floats(table, column) for column in quotes)
        middle = np.where((bid > 0.0) & (ask > 0.0), (bid + ask) / 2, np.nan)
        table = table.append_column("price", pa.array(middle))
    rising = None if _has_receipt(table, names) else time
    read = [names[field] for field in sorted(names)]
    notes = _remarks_on_copies(table, time, read, has_ids="trade_id" in names)
    return TableTape(table, name, product, rising, time_ns() + LATEST_AHEAD_NS, notes)


_MANY_COPIES: Final = 0.25
"""The share of rows that equal the row before above which they are hardly trades of one moment."""


def _remarks_on_copies(table: pa.Table, time: str | None, read: list[str], *, has_ids: bool) -> tuple[str, ...]:
    """A remark if many rows equal the row before; copies of trades with an id are found by that."""
    if has_ids or time is None or len(table) < 2:
        return ()
    is_copy = np.ones(len(table) - 1, np.bool_)
    for column in [time, *read]:
        is_copy &= _equals_row_before(table[column])
        if is_copy.mean() < _MANY_COPIES:
            return ()
    text = (
        f"{np.count_nonzero(is_copy):,} of {len(table):,} rows equal the row before; if they are copies, drop them, "
        "e.g. with frame.unique(maintain_order=True) or frame.drop_duplicates()"
    )
    return (text,)


def _equals_row_before(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """(n - 1,) whether each value but the first equals the one before; missing ones equal each other."""
    if not (_is_number(column.type) or _is_text(column.type) or pa.types.is_timestamp(column.type)):
        return np.ones(len(column) - 1, np.bool_)  # of nulls; the reader refuses other types
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    later, earlier = column.slice(1), column.slice(0, len(column) - 1)
    if pa.types.is_floating(column.type):
        later, earlier = (pc.if_else(pc.is_nan(part), pa.scalar(None, column.type), part) for part in (later, earlier))
    is_equal = pc.fill_null(pc.equal(later, earlier), False)
    return np.asarray(pc.or_(is_equal, pc.and_(pc.is_null(later), pc.is_null(earlier))))


def _has_receipt(table: pa.Table, names: dict[str, str]) -> bool:
    """Whether a column has times of receipt; ``timestamp`` is one next to a ``time`` (see ``fields``)."""
    if "received" in names:
        return True
    return (
        "time" in names and "timestamp" in names and pa.types.is_timestamp(table.schema.field(names["timestamp"]).type)
    )


def _is_text(kind: pa.DataType) -> bool:
    words = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(words) or pa.types.is_large_string(words) or pa.types.is_string_view(words))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal128(kind))


def _with_times(table: pa.Table, column: str, name: str) -> pa.Table:
    """The table with a column of texts or numbers as times; a column of another type is left as it is."""
    values = table[column].combine_chunks()
    kind = values.type
    if not (_is_number(kind) or _is_text(kind)):
        return table
    if pa.types.is_dictionary(kind):
        values = values.cast(pa.string())
    times, _, is_naive = column_times(values)
    is_missing = (times == NOT_A_TIME) | np.asarray(values.is_null().to_numpy(zero_copy_only=False))
    if len(times) and is_missing.all():
        raise UnreadableFile(
            name,
            f"no value of column {column} ({kind}) is a time, such as 2026-01-01T00:00:00Z or a number since 1970; "
            f"the first is {values[0].as_py()!r}: convert the column with {_REMEDY}",
        )
    unit = pa.timestamp("ns") if is_naive else pa.timestamp("ns", tz="UTC")
    return _replaced(table, column, pa.array(times, mask=is_missing).cast(unit))


def _with_numbers(table: pa.Table, column: str, name: str) -> pa.Table:
    """The table with a column of texts as numbers; a text that is none is NaN."""
    texts = table[column].combine_chunks().cast(pa.string())
    try:
        values = pc.utf8_trim_whitespace(texts).cast(pa.float64())
    except pa.ArrowInvalid:
        numbers = [_number(text) for text in texts.to_pylist()]
        values = pa.array(numbers, pa.float64())
        if np.isnan(numbers).all():
            raise UnreadableFile(
                name, f"no value of column {column} is a number; the first is {texts[0].as_py()!r}: convert the column"
            ) from None
    return _replaced(table, column, values)


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def _floats(table: pa.Table, column: str) -> NDArray[np.float64]:
    return np.asarray(table[column].cast(pa.float64()).to_numpy(), np.float64)


def _replaced(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(column), column, values)
