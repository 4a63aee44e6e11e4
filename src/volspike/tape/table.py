"""Tables of ticks, in memory or Parquet: their columns, and their rows as ticks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volspike.errors import UnreadableFile
from volspike.market import MISSING_ID, Kind, Side, Ticks
from volspike.market.time import NOT_A_TIME
from volspike.tape.chronology import TapeZone
from volspike.tape.fields import (
    MAKER_SIDE,
    UNREAD_IDS,
    FieldNames,
    kind_of,
    listed,
    match_names,
    read_identifier,
    side_of,
)
from volspike.tape.file_formats import EARLIEST_NS
from volspike.tape.names import product_of
from volspike.tape.report import NumberedTicks, RejectedLines, TapeReport

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
"""The columns of ``Tick``. A missing number is NaN, a missing id -1, a missing side null."""

INSTANTS = ("time", "received")
WORDS = ("kind", "product_id", "side")
_TEXTS = (*WORDS, "venue", "type")
IDS = ("trade_id", "sequence")


@dataclass(frozen=True, slots=True, eq=False)
class TableTape:
    """A table in memory that is read as a tape.

    Attributes:
        table: rows of ticks; see ``TableReading``.
        name: how messages name it.
        product: the product of all rows, if the table has no column for it.
        rising: the column whose times must not go back, if the table has no times of receipt.
        latest: the last possible time in ns UTC; with it, times before 1990 are impossible too. None for any time.
        notes: remarks about its rows, for the report.
    """

    table: pa.Table
    name: str = "the frame"
    product: str | None = None
    rising: str | None = None
    latest: int | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def batches(self, rows: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """The columns in batches of ``rows`` rows whatever the table's chunks, as views; rows across two are copied."""
        selected = self.table.select(columns)
        for start in range(0, len(selected), rows):
            yield from selected.slice(start, rows).combine_chunks().to_batches()


TapeSource: TypeAlias = Path | TableTape
"""The file or the table of one tape."""


class Layout(NamedTuple):
    """The file's column for each column of ``Tick`` that it has, and the product if it has no column for it.

    ``type`` is among the columns where messages have a type instead of a ``kind``. ``notes`` are remarks about columns
    that are not read.
    """

    columns: dict[str, str]
    product_id: str | None
    simulated: bool
    notes: tuple[str, ...] = ()


def tape_metadata(simulated: bool) -> dict[bytes, bytes]:
    """The key-value metadata of a Parquet tape."""
    return {METADATA_KEY: json.dumps({"format": FORMAT, "simulated": simulated}).encode()}


def _layout_of(tape: TapeSource, schema: pa.Schema, simulated: bool | None) -> Layout:
    """The layout of a file or table with this schema."""
    if _FEATURE_COLUMN in schema.names:
        found = "it holds feature rows" if isinstance(tape, TableTape) else "it is a feature file"
        raise UnreadableFile(tape, f"no tape: {found} (column {_FEATURE_COLUMN}); name the ticks")
    names = match_names(tuple(schema.names))
    twice = [name for name in names.of.values() if schema.names.count(name) > 1]
    if twice:
        raise UnreadableFile(
            tape,
            f"no tape: {len(schema.get_all_field_indices(twice[0]))} columns are named {twice[0]}; rename or drop one",
        )
    columns, notes = _columns(schema, names)
    missing = [name for name in ("time", "price") if name not in columns]
    if missing:
        there = ", ".join(schema.names[:8]) + (", …" if len(schema.names) > 8 else "") or "no columns"
        fields = {"time": ("time", "timestamp"), "price": ("price",)}
        wanted = "; ".join(f"{listed(fields[name])} ({name})" for name in missing)
        raise UnreadableFile(tape, f"no tape: column {', '.join(missing)} missing, found {there}; looked for {wanted}")
    types = {column: schema.field(column).type for column in columns.values()}
    wrong = [f"{column} is {types[column]}" for name, column in columns.items() if not _fits(name, types[column])]
    if wrong:
        raise UnreadableFile(
            tape,
            f"no tape: {', '.join(wrong)}; convert them: times must be timestamps, prices, sizes and ids numbers, "
            "the rest text",
        )
    product = None
    if "product_id" not in columns:
        product = tape.product if isinstance(tape, TableTape) else product_of(tape)
        if product is None:
            other = "state it with product=" if isinstance(tape, TableTape) else "name the file ticks_BTCUSD_….parquet"
            raise UnreadableFile(tape, f"no product: add a column product_id, or {other}")
    metadata = schema.metadata or {}
    if METADATA_KEY not in metadata and set(TAPE_SCHEMA.names) <= set(schema.names) and simulated is None:
        raise UnreadableFile(
            tape,
            "a tape of volspike without its metadata, as after saving with another program, so its origin is unknown: "
            "state it with --origin real or --origin simulated",
        )
    return Layout(columns, product, _is_simulated(tape, metadata, simulated), notes)


_FEATURE_COLUMN = "is_warm"


def _columns(schema: pa.Schema, names: FieldNames) -> tuple[dict[str, str], tuple[str, ...]]:
    """The columns by field, and remarks about the others; ``timestamp`` is read as in a JSON line (see ``fields``)."""
    columns, notes = dict(names.of), names.notes
    if "kind" in columns and columns["kind"] != "kind":
        columns["type"] = columns.pop("kind")
        if not _fits("type", schema.field(columns["type"]).type):
            del columns["type"]
    stamp = columns.pop("timestamp", None)
    if stamp is not None and "time" not in columns:
        columns["time"] = stamp
    elif stamp is not None and "received" not in columns and _fits("received", schema.field(stamp).type):
        columns["received"] = stamp
    elif stamp is not None:
        notes += (f"{stamp} is not used, because the time is read from {columns['time']}",)
    if "time" not in columns and "received" in columns:
        columns["time"] = columns["received"]
    return columns, notes


def _fits(name: str, kind: pa.DataType) -> bool:
    words = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = any(
        test(words)
        for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
    )
    if name in INSTANTS:
        return bool(pa.types.is_timestamp(kind))
    if name in _TEXTS:
        return is_text
    if name in IDS and is_text:
        return True
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )


def _is_simulated(tape: TapeSource, metadata: Mapping[bytes, bytes], stated: bool | None) -> bool:
    text = metadata.get(METADATA_KEY)
    if text is None:
        return bool(stated)
    try:
        facts = json.loads(text)
        number, simulated = int(facts["format"]), bool(facts["simulated"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(tape, f"its {METADATA_KEY.decode()} metadata cannot be read: {error}") from error
    if number > FORMAT:
        raise UnreadableFile(tape, f"tape format {number}, this version reads up to {FORMAT}: install a newer volspike")
    return simulated


_KINDS = {kind.name.lower(): int(kind) for kind in Kind}
_UNKNOWN = -9


class TableReading:
    """One reading of the rows of a tape, the file or table ``tape``, whose ``schema`` has its key-value metadata.

    A tape without ``kind`` is a table of ticks made elsewhere. It needs a time and a price, under any name of
    ``fields``. If it has no column for the product, the name of the file must state it, or the ``TableTape``.
    ``simulated`` states the origin of a tape of volspike whose metadata is missing. ``clock`` learns whether the times
    have a zone. Invalid rows are added to ``report`` and ``rejected``.

    Raises:
        UnreadableFile: it is no tape; the message names columns that are missing, duplicate or of the wrong type.
    """

    def __init__(
        self,
        tape: TapeSource,
        schema: pa.Schema,
        report: TapeReport,
        rejected: RejectedLines | None,
        clock: TapeZone | None,
        simulated: bool | None,
    ) -> None:
        self._tape = tape
        self._layout = _layout_of(tape, schema, simulated)
        self._report = report
        self._rejected = rejected
        if clock is not None:
            names = self._layout.columns
            time, received = names["time"], names.get("received", names["time"])
            clock.naive_time, clock.naive_received = (schema.field(name).type.tz is None for name in (time, received))

    @property
    def columns(self) -> list[str]:
        """The columns that are read."""
        return list(dict.fromkeys(self._layout.columns.values()))

    def ticks(self, batches: Iterable[pa.RecordBatch], total: int, size: int) -> Iterator[NumberedTicks]:
        """The valid ticks of the batches, which have ``total`` rows and ``size`` bytes in the tape."""
        self._report.simulated |= self._layout.simulated
        for note in (*self._layout.notes, *(self._tape.notes if isinstance(self._tape, TableTape) else ())):
            self._report.add_note(self._tape, note, is_loss=False)
        has_unread_ids = False
        done = 0
        for batch in batches:
            part = self._valid_ticks(batch, done + 1)
            if not has_unread_ids and self._has_unread_ids(batch, part.ticks):
                has_unread_ids = True
                self._report.add_note(self._tape, UNREAD_IDS, is_loss=False)
            yield part
            self._report.lines += len(batch)
            # Arrow does not report how far it has read; the share of rows is close enough for a progress bar.
            self._report.bytes_read += size * (done + len(batch)) // total - size * done // total
            done += len(batch)
        if total == 0:
            self._report.bytes_read += size

    def _has_unread_ids(self, batch: pa.RecordBatch, ticks: Ticks) -> bool:
        name = self._layout.columns.get("trade_id")
        if name is None or pa.types.is_integer(batch.schema.field(name).type):
            return False
        return bool(np.count_nonzero(ticks.trade_id == MISSING_ID) > batch.column(name).null_count)

    def _valid_ticks(self, batch: pa.RecordBatch, first: int) -> NumberedTicks:
        table = TickBatch(batch, self._layout)
        ticks = table.ticks()
        faults = table.faults(ticks)
        if isinstance(self._tape, TableTape) and self._tape.latest is not None and not self._layout.simulated:
            is_beyond = (ticks.time < EARLIEST_NS) | (ticks.time > self._tape.latest)
            faults |= {"no time between 1990 and tomorrow": is_beyond} if is_beyond.any() else {}
        numbers = np.arange(first, first + len(ticks))
        if not faults:
            return NumberedTicks(ticks, numbers)
        is_invalid = np.zeros(len(ticks), np.bool_)
        for mask in faults.values():
            is_invalid |= mask
        for row in np.flatnonzero(is_invalid):
            reason = next(reason for reason, mask in faults.items() if mask[row])
            self._report.add_rejected(self._tape, first + int(row), reason)
            if self._rejected is not None:
                text = json.dumps(_row(batch, int(row)), default=str)
                self._rejected.add(first + int(row), reason, text.encode())
        return NumberedTicks(ticks[~is_invalid], numbers[~is_invalid])


class TickBatch:
    """Some rows of a table of ticks; columns that it lacks are filled with missing values."""

    def __init__(self, batch: pa.RecordBatch, layout: Layout) -> None:
        self._batch = batch
        self._columns = layout.columns
        self._product = layout.product_id

    def ticks(self) -> Ticks:
        """All rows, invalid ones included."""
        time = self._instants("time")
        received = self._instants("received") if "received" in self._columns else time
        products, product = self._products()
        bid, bid_size = self._quote("best_bid", "bid_size")
        ask, ask_size = self._quote("best_ask", "ask_size")
        last_size = self._numbers("last_size")
        is_quoted = "best_bid" in self._columns or "best_ask" in self._columns
        has_size = ~np.isnan(last_size) if is_quoted else np.full(len(time), "last_size" in self._columns)
        kind, is_match = self._kinds(has_size & np.isnan(bid) & np.isnan(ask))
        side = self._coded("side", _side_code, int(Side.UNKNOWN))
        if is_match.any() or self._columns.get("side") == MAKER_SIDE:  # they state the maker's side
            is_match |= self._columns.get("side") == MAKER_SIDE
            side = np.where(is_match & (side != _UNKNOWN), -side, side)
        return Ticks(
            products=products,
            time=time,
            received=received,
            kind=kind,
            product=product,
            price=self._numbers("price"),
            best_bid=bid,
            best_ask=ask,
            bid_size=bid_size,
            ask_size=ask_size,
            last_size=last_size,
            side=side,
            trade_id=self._ids("trade_id"),
            sequence=self._ids("sequence"),
        )

    def faults(self, ticks: Ticks) -> dict[str, NDArray[np.bool_]]:
        """The invalid rows by reason; empty if all are valid."""
        masks = {
            "the time is missing": (ticks.time == NOT_A_TIME) | (ticks.received == NOT_A_TIME),
            "the product is missing": ticks.product < 0,
            "Expected a finite price above 0": ~((ticks.price > 0.0) & (ticks.price < np.inf)),
            "Expected a finite quote above 0": _beyond(ticks.best_bid, ticks.best_ask),
            "Expected a finite size of 0 or more": _beyond(ticks.bid_size, ticks.ask_size, ticks.last_size),
            "Expected a kind 'ticker' or 'trade'": ticks.kind == _UNKNOWN,
            "Expected a side 'buy' or 'sell'": ticks.side == _UNKNOWN,
        }
        return {reason: mask for reason, mask in masks.items() if mask.any()}

    def _column(self, name: str) -> Any:
        """The array of a column that the table has."""
        return self._batch.column(self._columns[name])

    def _cast(self, name: str, kind: pa.DataType) -> Any:
        """The array of a column in another type; an error names the column."""
        try:
            return self._column(name).cast(kind)
        except pa.ArrowException as error:
            raise pa.ArrowInvalid(f"column {self._columns[name]}: {first_line(error)}") from error

    def _instants(self, name: str) -> NDArray[np.int64]:
        column = self._column(name)
        if column.type.unit != "ns":
            column = self._cast(name, pa.timestamp("ns", tz=column.type.tz))
        if column.null_count:
            column = pc.fill_null(column.cast(pa.int64()), NOT_A_TIME)
        return np.asarray(column.view(pa.int64()))

    def _numbers(self, name: str) -> NDArray[np.float64]:
        if name not in self._columns:
            return np.full(len(self._batch), np.nan)
        if pa.types.is_decimal(self._column(name).type):  # Arrow turns the decimal 100.1 into 100.10000000000001
            column = self._cast(name, pa.string()).cast(pa.float64())
        else:
            column = self._cast(name, pa.float64())
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)

    def _quote(self, price: str, size: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """One side of the book; an empty one (price 0) has neither price nor size."""
        prices, sizes = self._numbers(price), self._numbers(size)
        is_empty = (prices == 0.0) | np.isnan(prices)
        if not is_empty.any():
            return prices, sizes
        return np.where(is_empty, np.nan, prices), np.where(is_empty, np.nan, sizes)

    def _ids(self, name: str) -> NDArray[np.int64]:
        if name not in self._columns:
            return np.full(len(self._batch), MISSING_ID, np.int64)
        column = self._column(name)
        if pa.types.is_floating(column.type):  # as pandas holds integers if some are missing
            numbers = column.to_numpy(zero_copy_only=False).astype(np.float64)
            is_id = (numbers >= 0.0) & (numbers < 2.0**63) & (numbers == np.floor(numbers))
            return np.where(is_id, numbers, MISSING_ID).astype(np.int64)
        if not pa.types.is_integer(column.type):
            return np.array([read_identifier(value) for value in column.to_pylist()], np.int64)
        column = self._cast(name, pa.int64())
        return np.asarray(pc.fill_null(column, MISSING_ID) if column.null_count else column)

    def _kinds(self, is_bare: NDArray[np.bool_]) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """The kind of each row, and whether its type is ``match``; without either, a size without quotes is a trade."""
        if "kind" in self._columns:
            return self._coded("kind", lambda word: _KINDS.get(word, _UNKNOWN), _UNKNOWN), np.zeros_like(is_bare)
        kind = np.where(is_bare, np.int8(Kind.TRADE), np.int8(Kind.TICKER))
        if "type" not in self._columns:
            return kind, np.zeros_like(is_bare)
        stated = self._coded("type", _kind_code, _UNKNOWN)
        is_match = self._coded("type", lambda word: int(word == "match"), 0)
        return np.where(stated == _UNKNOWN, kind, stated), is_match == 1

    def _products(self) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        if self._product is not None:
            return (self._product,), np.zeros(len(self._batch), np.int32)
        names, codes = self._words("product_id")
        if "venue" in self._columns:
            names, codes = self._at_venues(names, codes)
        empty = [code for code, name in enumerate(names) if not name]
        return tuple(names), np.where(np.isin(codes, empty), -1, codes).astype(np.int32) if empty else codes

    def _at_venues(self, symbols: Sequence[str], symbol: NDArray[np.int32]) -> tuple[list[str], NDArray[np.int32]]:
        """The products of rows that state their venue in a column of its own, and the index of each row into them."""
        venues, venue = self._words("venue")
        pairs, codes = np.unique(np.column_stack([venue, symbol]), axis=0, return_inverse=True)
        names = []
        for of, at in pairs.tolist():
            symbol_of_row = "" if at < 0 else symbols[at]
            is_bare = bool(symbol_of_row) and ":" not in symbol_of_row and of >= 0 and bool(venues[of])
            names.append(f"{venues[of].strip().lower()}:{symbol_of_row}" if is_bare else symbol_of_row)
        return names, codes.astype(np.int32)

    def _coded(self, name: str, code: Callable[[str], int], missing: int) -> NDArray[np.int8]:
        if name not in self._columns:
            return np.full(len(self._batch), missing, np.int8)
        words, indices = self._words(name)
        table = np.array([*(code(word) for word in words), missing], np.int8)
        return np.asarray(table[indices])

    def _words(self, name: str) -> tuple[list[str], NDArray[np.int32]]:
        """The distinct words of a column and the index of each row into them, -1 for null."""
        column = self._column(name)
        if pa.types.is_null(column.type):
            return [], np.full(len(self._batch), -1, np.int32)
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        indices = column.indices.cast(pa.int32())  # other programs write unsigned ones, which have no -1
        indices = pc.fill_null(indices, -1) if indices.null_count else indices
        return [word or "" for word in column.dictionary.to_pylist()], np.asarray(indices)


def _side_code(word: str) -> int:
    side = side_of(word)
    return _UNKNOWN if side is None else int(side)


def _kind_code(word: str) -> int:
    kind = kind_of(word)
    return _UNKNOWN if kind is None else int(kind)


def _row(batch: pa.RecordBatch, row: int) -> dict[str, Any]:
    """One row by column name; times as Arrow writes them, since Python's hold no nanoseconds."""
    one = batch.slice(row, 1)
    columns = zip(one.schema.names, one.columns, strict=True)
    return {
        name: (column.cast(pa.string()) if pa.types.is_timestamp(column.type) else column)[0].as_py()
        for name, column in columns
    }


def _beyond(*columns: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Where any column holds a negative or infinite number; NaN is a missing value and valid."""
    beyond = np.zeros(len(columns[0]), np.bool_)
    for column in columns:
        beyond |= (column < 0.0) | (column == np.inf)
    return beyond


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return str(error).partition("\n")[0] or type(error).__name__
