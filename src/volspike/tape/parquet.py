"""Parquet tapes, the compact form: columns, writing, and reading; tables of trades made elsewhere are read as well."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
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


def layout_of(path: Path, schema: pa.Schema, metadata: Mapping[bytes, bytes], simulated: bool | None = None) -> Layout:
    """The layout of the file at ``path``; ``metadata`` is its key-value metadata.

    ``simulated`` states the origin of a tape of volspike whose metadata is missing.

    A file without ``kind`` is a table of ticks made elsewhere. It needs a time and a price, under any name of
    ``fields``. If it has no column for the product, its name must state it.

    Raises:
        UnreadableFile: it is no tape; the message names columns that are missing, duplicate or of the wrong type.
    """
    if _FEATURE_COLUMN in schema.names:
        raise UnreadableFile(path, f"no tape: it is a feature file (column {_FEATURE_COLUMN}); name the tapes")
    names = match_names(tuple(schema.names))
    twice = [name for name in names.of.values() if schema.names.count(name) > 1]
    if twice:
        raise UnreadableFile(
            path,
            f"no tape: {len(schema.get_all_field_indices(twice[0]))} columns are named {twice[0]}; rename or drop one",
        )
    columns, notes = _columns(schema, names)
    missing = [name for name in ("time", "price") if name not in columns]
    if missing:
        there = ", ".join(schema.names[:8]) + (", …" if len(schema.names) > 8 else "") or "no columns"
        wanted = listed([*missing, "timestamp"])
        raise UnreadableFile(path, f"no tape: column {', '.join(missing)} missing, found {there}; looked for {wanted}")
    types = {column: schema.field(column).type for column in columns.values()}
    wrong = [f"{column} is {types[column]}" for name, column in columns.items() if not _fits(name, types[column])]
    if wrong:
        raise UnreadableFile(
            path, f"no tape: {', '.join(wrong)}; times must be timestamps, prices, sizes and ids numbers, the rest text"
        )
    product = None if "product_id" in columns else product_of(path)
    if product is None and "product_id" not in columns:
        raise UnreadableFile(path, "no product: add a column product_id, or name the file ticks_BTCUSD_….parquet")
    if METADATA_KEY not in metadata and set(TAPE_SCHEMA.names) <= set(schema.names) and simulated is None:
        raise UnreadableFile(
            path,
            "a tape of volspike without its metadata, as after saving with another program, so its origin is unknown: "
            "state it with --origin real or --origin simulated",
        )
    return Layout(columns, product, _is_simulated(path, metadata, simulated), notes)


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
    is_text = bool(pa.types.is_string(words) or pa.types.is_large_string(words) or pa.types.is_null(words))
    if name in INSTANTS:
        return bool(pa.types.is_timestamp(kind))
    if name in _TEXTS:
        return is_text
    if name in IDS and is_text:
        return True
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )


def _is_simulated(path: Path, metadata: Mapping[bytes, bytes], stated: bool | None) -> bool:
    text = metadata.get(METADATA_KEY)
    if text is None:
        return bool(stated)
    try:
        facts = json.loads(text)
        number, simulated = int(facts["format"]), bool(facts["simulated"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableFile(path, f"its {METADATA_KEY.decode()} metadata cannot be read: {error}") from error
    if number > FORMAT:
        raise UnreadableFile(path, f"tape format {number}, this version reads up to {FORMAT}: install a newer volspike")
    return simulated


ROW_GROUP = 131_072

_DIFFERENCES = (*INSTANTS, *IDS)
"""Columns stored as differences of few bits, which compression makes hardly smaller.

Prices and sizes repeat, so a dictionary makes them smaller and faster to read.
"""

_KIND_WORDS = {int(kind): kind.name.lower() for kind in Kind}
_SIDE_WORDS = {int(Side.BUY): "buy", int(Side.SELL): "sell"}


class ParquetTape:
    """A Parquet tape being written, as ``<name>.part`` until the block ends without an error.

    ``simulated`` and ``metadata`` (further key-value metadata) may be set until then.
    """

    def __init__(self, path: Path, *, simulated: bool = False) -> None:
        self.path = Path(path)
        self.simulated = simulated
        self.metadata: dict[bytes, bytes] = {}
        self.ticks = 0
        self._part = self.path.with_name(self.path.name + ".part")
        self._writer = pq.ParquetWriter(
            self._part,
            TAPE_SCHEMA,
            compression={name: "none" if name in _DIFFERENCES else "zstd" for name in TAPE_SCHEMA.names},
            use_dictionary=[name for name in TAPE_SCHEMA.names if name not in _DIFFERENCES],
            column_encoding=dict.fromkeys(_DIFFERENCES, "DELTA_BINARY_PACKED"),
            write_statistics=list(INSTANTS),
        )

    def write(self, ticks: Ticks) -> None:
        """Writes one row group (or several, of ``ROW_GROUP`` rows each)."""
        self._writer.write_table(_table(ticks), row_group_size=ROW_GROUP)
        self.ticks += len(ticks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._writer.add_key_value_metadata(tape_metadata(self.simulated) | self.metadata)
        self._writer.close()
        if kind is None:
            with self._part.open("r+b") as part:
                os.fsync(part.fileno())
            self._part.replace(self.path)
        else:
            self._part.unlink(missing_ok=True)


def write_parquet(parts: Iterable[Ticks], path: Path, *, simulated: bool = False) -> int:
    """Writes chunks of ticks as one Parquet tape and returns their number; if it fails, an existing file stays."""
    with ParquetTape(path, simulated=simulated) as tape:
        for part in rechunk(parts, ROW_GROUP):
            tape.write(part)
    return tape.ticks


def rechunk(parts: Iterable[Ticks], chunk: int) -> Iterator[Ticks]:
    """The same ticks in chunks of exactly ``chunk``; the last one is shorter."""
    waiting: list[Ticks] = []
    count = 0
    for part in parts:
        waiting.append(part)
        count += len(part)
        if count < chunk:
            continue
        joined = Ticks.join(waiting) if len(waiting) > 1 else part
        for start in range(0, count - chunk + 1, chunk):
            yield joined[start : start + chunk]
        count %= chunk
        waiting = [joined[len(joined) - count :]]
    if count:
        yield Ticks.join(waiting) if len(waiting) > 1 else waiting[0]


def _table(ticks: Ticks) -> pa.Table:
    arrays: dict[str, Any] = {name: pa.array(column) for name, column in ticks.columns()}
    for name in INSTANTS:
        arrays[name] = arrays[name].view(TAPE_SCHEMA.field(name).type)
    arrays["kind"] = _dictionary(ticks.kind, _KIND_WORDS)
    arrays["side"] = _dictionary(ticks.side, _SIDE_WORDS)
    arrays["product_id"] = pa.DictionaryArray.from_arrays(
        pa.array(ticks.product), pa.array(ticks.products, pa.string())
    )
    return pa.table([arrays[name] for name in TAPE_SCHEMA.names], schema=TAPE_SCHEMA)


def _dictionary(codes: NDArray[np.int8], words: Mapping[int, str]) -> pa.DictionaryArray:
    """The codes as texts; a code without a text is null."""
    places = np.full(256, -1, np.int32)
    for place, code in enumerate(words):
        places[code % 256] = place
    indices = places[codes.view(np.uint8)]
    is_null = indices < 0
    return pa.DictionaryArray.from_arrays(
        pa.array(indices, mask=is_null if is_null.any() else None), pa.array(list(words.values()), pa.string())
    )


_KINDS = {kind.name.lower(): int(kind) for kind in Kind}
_UNKNOWN = -9


def parquet_ticks(
    path: Path, report: TapeReport, rejected: RejectedLines | None = None, *, rows: int
) -> Iterator[Ticks]:
    """The ticks of one Parquet tape in the order of its rows; see ``numbered_rows``."""
    for part in numbered_rows(path, report, rejected, rows=rows):
        yield part.ticks


def numbered_rows(
    path: Path,
    report: TapeReport,
    rejected: RejectedLines | None = None,
    *,
    rows: int,
    clock: TapeZone | None = None,
    simulated: bool | None = None,
) -> Iterator[NumberedTicks]:
    """The ticks of one Parquet tape in the order of its rows, about ``rows`` at a time.

    ``clock`` learns whether the times have a zone. Invalid rows are added to ``report`` and ``rejected`` with their
    number, from 1.

    Raises:
        UnreadableFile: it is no Parquet file, or no tape.
    """
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            layout = layout_of(path, file.schema_arrow, file.metadata.metadata or {}, simulated)
            if clock is not None:
                _find_zones(file.schema_arrow, layout, clock)
            yield from _Reading(path, layout, report, rejected).ticks(file, rows)
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(path, f"cannot be read as Parquet ({_first_line(error)})") from error


def _find_zones(schema: pa.Schema, layout: Layout, clock: TapeZone) -> None:
    time = layout.columns["time"]
    received = layout.columns.get("received", time)
    clock.naive_time, clock.naive_received = (schema.field(name).type.tz is None for name in (time, received))


def row_group_ticks(file: pq.ParquetFile, group: int) -> Ticks:
    """The ticks of one row group of a tape that volspike wrote, in its order."""
    table = file.read_row_group(group, columns=TAPE_SCHEMA.names, use_threads=False).combine_chunks()
    layout = Layout({name: name for name in TAPE_SCHEMA.names}, None, False)
    batches = table.to_batches()
    return Ticks.join([_Batch(batch, layout).ticks() for batch in batches])


class _Reading:
    """One Parquet tape being read."""

    def __init__(self, path: Path, layout: Layout, report: TapeReport, rejected: RejectedLines | None) -> None:
        self._path = path
        self._layout = layout
        self._report = report
        self._rejected = rejected

    def ticks(self, file: pq.ParquetFile, rows: int) -> Iterator[NumberedTicks]:
        self._report.simulated |= self._layout.simulated
        for note in self._layout.notes:
            self._report.add_note(self._path, note, is_loss=False)
        has_unread_ids = False
        total, size = file.metadata.num_rows, self._path.stat().st_size
        done = 0
        columns = list(dict.fromkeys(self._layout.columns.values()))
        for batch in file.iter_batches(batch_size=rows, columns=columns):
            part = self._valid_ticks(batch, done + 1)
            if not has_unread_ids and self._has_unread_ids(batch, part.ticks):
                has_unread_ids = True
                self._report.add_note(self._path, UNREAD_IDS, is_loss=False)
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
        return bool((ticks.trade_id == MISSING_ID).any() and batch.column(name).null_count < len(batch))

    def _valid_ticks(self, batch: pa.RecordBatch, first: int) -> NumberedTicks:
        table = _Batch(batch, self._layout)
        ticks = table.ticks()
        faults = table.faults(ticks)
        numbers = np.arange(first, first + len(ticks))
        if not faults:
            return NumberedTicks(ticks, numbers)
        is_invalid = np.zeros(len(ticks), np.bool_)
        for mask in faults.values():
            is_invalid |= mask
        for row in np.flatnonzero(is_invalid):
            reason = next(reason for reason, mask in faults.items() if mask[row])
            self._report.add_rejected(self._path, first + int(row), reason)
            if self._rejected is not None:
                text = json.dumps(_row(batch, int(row)), default=str)
                self._rejected.add(first + int(row), reason, text.encode())
        return NumberedTicks(ticks[~is_invalid], numbers[~is_invalid])


class _Batch:
    """Some rows of a Parquet tape; columns that the file lacks are filled with missing values."""

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
        """The array of a column that the file has."""
        return self._batch.column(self._columns[name])

    def _instants(self, name: str) -> NDArray[np.int64]:
        column = self._column(name)
        if column.type.unit != "ns":
            column = column.cast(pa.timestamp("ns", tz=column.type.tz))
        if column.null_count:
            column = pc.fill_null(column.cast(pa.int64()), NOT_A_TIME)
        return np.asarray(column.view(pa.int64()))

    def _numbers(self, name: str) -> NDArray[np.float64]:
        if name not in self._columns:
            return np.full(len(self._batch), np.nan)
        column = self._column(name)
        if not pa.types.is_float64(column.type):
            column = column.cast(pa.float64())
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
        if not pa.types.is_integer(column.type):
            return np.array([read_identifier(value) for value in column.to_pylist()], np.int64)
        if not pa.types.is_int64(column.type):
            column = column.cast(pa.int64())
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


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
