"""Files of any format → chunks of ticks: CSV, Parquet tables, and the JSON trades of ccxt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volspike.errors import UnreadableFile, UsageError
from volspike.tape.blocks import Blocks, TextStream
from volspike.tape.chronology import TapeZone
from volspike.tape.csv_columns import CsvRows
from volspike.tape.file_formats import CCXT, NAUTILUS, holds_ticks
from volspike.tape.foreign_columns import FileReading, ForeignFile, ForeignTable, TradeFileReport
from volspike.tape.foreign_sources import ForeignSource, Recognition, opened, parquet_schema, text_head
from volspike.tape.importers import BLOCK_BYTES, CsvReading
from volspike.tape.report import NumberedTicks, RejectionSink

MOST_JSON_BYTES: Final = 256 << 20
"""The longest JSON list, which is held in memory; lines of JSON have no limit."""

_PARQUET_ROWS: Final = 65_536


class ParquetReading:
    """A Parquet table of another program being read."""

    def __init__(self, reading: FileReading) -> None:
        file, columns = reading.file, reading.columns
        self._file = file
        self._report = reading.report
        schema, metadata = parquet_schema(file.path)
        self._schema = schema
        fields = self._named(columns) if columns is not None else file.file_format.fields_of(schema.names)
        if not holds_ticks(fields):
            raise UnreadableFile(
                file.path, f"not the columns of {file.file_format.name}: it has {', '.join(schema.names[:20])}"
            )
        self._constant = ""
        if file.file_format is NAUTILUS:
            self._check_nautilus(fields)
            stated = (schema.metadata or {}) | dict(metadata)
            if "product_id" not in fields and b"instrument_id" in stated:
                self._constant = stated[b"instrument_id"].decode()
                fields = {**fields, "product_id": "instrument_id"}
        self._report.has_header = True
        self._table = ForeignTable(reading, fields)

    def _named(self, columns: Mapping[str, str]) -> dict[str, str]:
        absent = [f"{name}={column}" for name, column in columns.items() if column not in self._schema.names]
        found = ", ".join(self._schema.names[:20])
        if absent:
            raise UsageError(f"--columns {absent[0]}: {self._file.path} has no such column; it has {found}")
        return dict(columns)

    def _check_nautilus(self, fields: Mapping[str, str]) -> None:
        for name in ("price", "last_size", "best_bid", "best_ask", "bid_size", "ask_size"):
            if name not in fields:
                continue
            kind = self._schema.field(fields[name]).type
            is_fixed = pa.types.is_fixed_size_binary(kind) and kind.byte_width in {8, 16}
            if not (is_fixed or pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
                raise UnreadableFile(
                    self._file.path, f"column {fields[name]} is {kind}, which no known version of nautilus writes"
                )

    def ticks(self) -> Iterator[NumberedTicks]:
        """The ticks of the table in the order of its rows, each with the number of its row from 1."""
        path, fields = self._file.path, self._table.fields
        columns = [column for column in dict.fromkeys(fields.values()) if column in self._schema.names]
        try:
            with pq.ParquetFile(path, pre_buffer=False) as file:
                total, size = max(1, file.metadata.num_rows), path.stat().st_size
                done = 0
                for batch in file.iter_batches(batch_size=_PARQUET_ROWS, columns=columns, use_threads=False):
                    numbers = np.arange(done + 1, done + 1 + len(batch), dtype=np.int64)
                    yield self._table.ticks(CsvRows(self._with_constant(batch), numbers))
                    done += len(batch)
                    self._report.bytes_read = size * done // total
        except (pa.ArrowException, OSError) as error:
            raise UnreadableFile(path, f"cannot be read as Parquet ({str(error).partition(chr(10))[0]})") from error
        self._table.check_end()

    def _with_constant(self, batch: pa.RecordBatch) -> pa.Table:
        table = pa.Table.from_batches([batch])
        if self._file.file_format is NAUTILUS:
            table = _raw_integers(table)
        if not self._constant:
            return table
        words = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(batch), np.int32)), pa.array([self._constant]))
        return table.append_column("instrument_id", words)


def _raw_integers(table: pa.Table) -> pa.Table:
    """Prices and sizes of older catalogues, integers with nine decimals, as eight bytes."""
    for place, column_field in enumerate(table.schema):
        if pa.types.is_integer(column_field.type) and re.search("price|size", column_field.name):
            column = table.column(place).combine_chunks().cast(pa.int64())
            column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
            values = np.asarray(column)
            fixed = pa.Array.from_buffers(pa.binary(8), len(values), [None, pa.py_buffer(values.tobytes())])
            table = table.set_column(place, column_field.name, fixed)
    return table


class _CcxtTrade(msgspec.Struct):
    """A trade as ``fetch_trades`` of ccxt returns it."""

    timestamp: int | float | str | None = None
    datetime: str | None = None
    symbol: str | None = None
    id: str | int | None = None
    side: str | None = None
    price: float | str | None = None
    amount: float | str | None = None


_TRADE: Final = msgspec.json.Decoder(_CcxtTrade)
_TRADES: Final = msgspec.json.Decoder(list[msgspec.Raw])


class CcxtReading:
    """Trades of ccxt being read, as a JSON list or one JSON object or list in each line."""

    def __init__(self, reading: FileReading) -> None:
        self._file = reading.file
        self._report = reading.report
        self._table = ForeignTable(reading, CCXT.fields_of(_CcxtTrade.__struct_fields__))

    def ticks(self, stream: TextStream, *, is_list: bool) -> Iterator[NumberedTicks]:
        """The ticks of the text; ``is_list``: the complete text is one list, whose elements are numbered from 1.

        Raises:
            UnreadableFile: the list is longer than ``MOST_JSON_BYTES`` or damaged.
        """
        for first, texts in self._list(stream) if is_list else self._lines(stream):
            yield self._part(texts, first)
            self._report.bytes_read = stream.consumed
        self._report.fault = stream.fault
        self._table.check_end()

    def _list(self, stream: TextStream) -> Iterator[tuple[int, list[bytes]]]:
        parts: list[bytes] = []
        size = 0
        while data := stream.read(BLOCK_BYTES):
            parts.append(data)
            size += len(data)
            if size > MOST_JSON_BYTES:
                raise UnreadableFile(
                    self._file.path,
                    f"a JSON list of more than {MOST_JSON_BYTES >> 20} MiB: write one trade in each line instead",
                )
        try:
            trades = _TRADES.decode(b"".join(parts))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UnreadableFile(self._file.path, f"no JSON list of trades ({error})") from error
        for start in range(0, len(trades), _PARQUET_ROWS):
            yield start + 1, [bytes(trade) for trade in trades[start : start + _PARQUET_ROWS]]

    def _lines(self, stream: TextStream) -> Iterator[tuple[int, list[bytes]]]:
        first = 1
        with Blocks(self._file.path, BLOCK_BYTES, stream) as blocks:
            for block in blocks:
                texts = block.removesuffix(b"\n").split(b"\n")
                yield first, texts
                first += len(texts)

    def _part(self, texts: list[bytes], first: int) -> NumberedTicks:
        trades: list[_CcxtTrade] = []
        numbers: list[int] = []
        for number, text in enumerate(texts, first):
            if not text.strip():
                continue
            try:
                trade = _TRADE.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                self._table.reject(number, str(error), text)
                continue
            trades.append(trade)
            numbers.append(number)
        columns: dict[str, Any] = {
            "timestamp": pa.array([_time_text(trade) for trade in trades], pa.string()),
            **{
                name: pa.array([_text(getattr(trade, name)) for trade in trades], pa.string())
                for name in ("symbol", "id", "side")
            },
            **{
                name: pa.array([_number(getattr(trade, name)) for trade in trades], pa.float64())
                for name in ("price", "amount")
            },
        }
        return self._table.ticks(CsvRows(pa.table(columns), np.array(numbers, np.int64)), texts, first)


def _time_text(trade: _CcxtTrade) -> str | None:
    return _text(trade.timestamp if trade.timestamp is not None else trade.datetime)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: float | str | None) -> float | None:
    """A number; NaN, which is rejected, for a text that is none."""
    try:
        return None if value is None else float(value)
    except ValueError:
        return float("nan")


def read_foreign(
    source: ForeignSource,
    recognition: Recognition,
    product_id: str | None,
    report: TradeFileReport,
    rejected: RejectionSink | None,
    *,
    latest: int,
    columns: Mapping[str, str] | None = None,
    clock: TapeZone | None = None,
) -> Iterator[NumberedTicks]:
    """The ticks of one source in its order.

    Raises:
        UnreadableFile: the source is not of the format, or most of its rows are damaged; while iterating.
    """
    file = ForeignFile(
        path=source.label,
        file_format=recognition.file_format,
        product_id=product_id,
        latest=latest,
        named_product=recognition.product_id,
        venue=recognition.origin.venue,
        market=recognition.market,
    )
    reading = FileReading(file, report, rejected, columns, TapeZone() if clock is None else clock)
    if recognition.is_parquet:
        yield from ParquetReading(reading).ticks()
        return
    if recognition.file_format is CCXT:
        is_list = text_head(source).lstrip()[:1] == b"["
        with opened(source) as stream:
            yield from CcxtReading(reading).ticks(stream, is_list=is_list)
        return
    with opened(source) as stream:
        yield from CsvReading(reading).ticks(stream)
