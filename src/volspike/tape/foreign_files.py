"""Parquet tables and JSON trades of other programs → chunks of ticks; and the format of a file by its content."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volspike.errors import UnreadableFile, UsageError
from volspike.tape.blocks import Blocks, OpenedStream, TextStream, open_text
from volspike.tape.chronology import TapeZone
from volspike.tape.csv_columns import CsvRows
from volspike.tape.file_formats import (
    BITCOINCHARTS,
    CCXT,
    CSV,
    FORMATS,
    KRAKEN,
    NAUTILUS,
    FileFormat,
    FileOrigin,
    holds_ticks,
    market_of_header,
    market_venue,
    origin_of,
    product_of_symbol,
)
from volspike.tape.foreign_columns import ForeignFile, ForeignTable, TradeFileReport
from volspike.tape.importers import BLOCK_BYTES, CsvReading, csv_head, layout_of_rows
from volspike.tape.parquet import METADATA_KEY
from volspike.tape.report import NumberedTicks, RejectionSink

MOST_JSON_BYTES: Final = 256 << 20
"""The longest JSON list, which is held in memory; lines of JSON have no limit."""

_HEAD_BYTES: Final = 1 << 16
_PARQUET_ROWS: Final = 65_536
_ZIP: Final = b"PK\x03\x04"
_EMPTY_ZIP: Final = b"PK\x05\x06"
_TEXT_ENDINGS: Final = (".csv", ".txt", ".tsv", ".json", ".jsonl", ".ndjson")


@dataclass(frozen=True, slots=True)
class ForeignSource:
    """One table to import: a file, or a ``member`` of a zip archive; ``size`` is that of what is read, in bytes."""

    path: Path
    size: int
    member: str = ""

    @property
    def label(self) -> Path:
        """The name in messages."""
        return self.path / self.member if self.member else self.path

    @property
    def name(self) -> Path:
        """The name that may state product and venue."""
        return self.path.parent / Path(self.member).name if self.member else self.path


def sources_of_file(path: Path) -> list[ForeignSource]:
    """The tables in a file: its text members if it is a zip archive, otherwise the file.

    The name of an archive with one member counts, as that is the name that exchanges document.

    Raises:
        UnreadableFile: the file cannot be opened, or is an archive without a text file.
    """
    head = read_head(path)
    if not head.startswith((_ZIP, _EMPTY_ZIP)):
        return [ForeignSource(path, path.stat().st_size)]
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if _is_text_member(info.filename)]
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise UnreadableFile(path, f"the zip archive cannot be read ({error}): download it again") from error
    if not members:
        raise UnreadableFile(path, f"the zip archive holds no file with the ending {', '.join(_TEXT_ENDINGS)}")
    return [ForeignSource(path, info.file_size, info.filename) for info in members]


def _is_text_member(name: str) -> bool:
    return name.lower().endswith(_TEXT_ENDINGS) and not name.startswith("__MACOSX/") and not name.endswith("/")


def read_head(path: Path) -> bytes:
    """The first bytes of a file.

    Raises:
        UnreadableFile: it is a folder, or cannot be opened.
    """
    if path.is_dir():
        raise UnreadableFile(path, "is a folder: name its files, such as folder/*.csv.gz")
    try:
        with path.open("rb") as file:
            return file.read(64)
    except OSError as error:
        raise UnreadableFile(path, f"cannot be opened ({error.strerror or error})") from error


@contextmanager
def opened(source: ForeignSource) -> Iterator[TextStream]:
    """The text of a source, uncompressed.

    Raises:
        UnreadableFile: it is encrypted, compressed in an unknown way, or damaged at its beginning.
    """
    if not source.member:
        stream = open_text(source.path)
        try:
            yield stream
        finally:
            stream.close()
        return
    try:
        with zipfile.ZipFile(source.path) as archive, archive.open(source.member) as file:
            yield OpenedStream(cast("BinaryIO", file))
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError) as error:
        raise UnreadableFile(source.label, f"the zip archive cannot be read ({error})") from error


def text_head(source: ForeignSource) -> bytes:
    """The first 64 KiB of the text, fewer if it is shorter; ends with a line end if there is one."""
    with opened(source) as stream:
        parts: list[bytes] = []
        size = 0
        while size < _HEAD_BYTES and (data := stream.read(_HEAD_BYTES - size)):
            parts.append(data)
            size += len(data)
        if not parts and stream.fault is not None:
            raise UnreadableFile(source.label, stream.fault)
    text = b"".join(parts).removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    return text[: text.rfind(b"\n") + 1] if size >= _HEAD_BYTES and b"\n" in text else text


@dataclass(frozen=True, slots=True)
class Recognition:
    """The format of a file, and the market, venue and symbol that its columns and its name show."""

    file_format: FileFormat
    is_parquet: bool = False
    market: str = ""
    origin: FileOrigin = field(default_factory=FileOrigin)

    @property
    def product_id(self) -> str | None:
        """The product that the name of the file states, or None."""
        symbol = self.origin.symbol
        venue = market_venue(self.file_format, symbol, self.market) or self.origin.venue
        return product_of_symbol(venue, symbol) if symbol and venue else None


def recognize(source: ForeignSource, name: str = "auto", *, has_columns: bool = False) -> Recognition:
    """The format of a file; ``name`` is a format, or ``auto`` to find it by the content.

    Raises:
        UnreadableFile: no format or several fit; the message names the candidates and the option.
        UsageError: there is no format of that name.
    """
    if name != "auto" and name not in FORMATS:
        raise UsageError(f"--format {name}: unknown; choose one of auto, {', '.join(FORMATS)}")
    stated = CSV if has_columns and name == "auto" else FORMATS.get(name)
    origin = origin_of(source.name)
    if not source.member and read_head(source.path).startswith(b"PAR1"):
        return Recognition(stated or _parquet_format(source.path), is_parquet=True, origin=origin)
    head = text_head(source)
    start = head.lstrip()
    if not start:
        raise UnreadableFile(source.label, "the file is empty")
    if start[:1] in b"[{":
        if stated not in {None, CCXT}:
            raise UnreadableFile(source.label, f"holds JSON, which is no file of {name}; use --format ccxt")
        _refuse_tape(source, start)
        return Recognition(CCXT, origin=origin)
    _refuse_binary(source, start)
    table = csv_head(head)
    header = table.rows[0] if table.rows else []
    if stated is not None:
        return Recognition(stated, market=_market(stated, table.rows), origin=origin)
    found = [file_format for file_format in FORMATS.values() if file_format.is_signed(header)]
    if not found and holds_ticks(CSV.fields_of(header)):
        found = [CSV]
    if not found:
        found = [file_format for file_format in FORMATS.values() if layout_of_rows(file_format, table.rows)]
    if {KRAKEN, BITCOINCHARTS} == set(found):  # the same columns; the names of the files differ
        by_name = _by_name(source.name, origin)
        found = found if by_name is None else [by_name]
    if len(found) == 1:
        return Recognition(found[0], market=_market(found[0], table.rows), origin=origin)
    shown = ", ".join(value[:30] for value in header[:20])
    if found:
        names = " and ".join(file_format.name for file_format in found)
        raise UnreadableFile(
            source.label, f"its columns fit {names}; choose one with --format, and the product with --product"
        )
    raise UnreadableFile(
        source.label,
        f"no known format; its first line is {shown!r}: choose one of {', '.join(FORMATS)} with --format, or name the "
        "columns with --columns time=…,price=…",
    )


def _market(file_format: FileFormat, rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    if holds_ticks(file_format.fields_of(rows[0])):
        return market_of_header(file_format, rows[0])
    layout = layout_of_rows(file_format, rows)
    return "" if layout is None else layout.market


def _by_name(name: Path, origin: FileOrigin) -> FileFormat | None:
    """Kraken's files are named XBTUSD.csv, those of bitcoincharts krakenUSD.csv."""
    if re.fullmatch(r"[A-Z0-9]{5,12}", name.name.partition(".")[0]) or name.parent.name.lower() == "kraken":
        return KRAKEN
    return BITCOINCHARTS if origin.venue and origin.symbol.startswith("BTC-") else None


def _refuse_binary(source: ForeignSource, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableFile(source.label, "is text in UTF-16: save it as UTF-8")
    if sum(byte < 9 or 13 < byte < 32 for byte in start[:512]) > 2:  # a damaged row may hold one
        raise UnreadableFile(source.label, "is no text: name a CSV, JSON or Parquet file, or a zip archive of them")


def _refuse_tape(source: ForeignSource, start: bytes) -> None:
    line = start.partition(b"\n")[0]
    if line[:1] == b"{" and (b'"raw"' in line or b'"product_id"' in line) and b'"info"' not in line:
        raise UnreadableFile(source.label, "is a tape already: volspike reads it directly with --raw")


def _parquet_format(path: Path) -> FileFormat:
    schema, metadata = _schema(path)
    if METADATA_KEY in metadata:
        raise UnreadableFile(path, "is a tape already: volspike reads it directly with --raw")
    names = list(schema.names)
    if NAUTILUS.is_signed(names):
        return NAUTILUS
    found = [file_format for file_format in FORMATS.values() if file_format.is_signed(names)]
    if found:
        return found[0]
    if holds_ticks(CSV.fields_of(names)):
        return CSV
    raise UnreadableFile(
        path, f"no known format; its columns are {', '.join(names[:20])}: name them with --columns time=…,price=…"
    )


def _schema(path: Path) -> tuple[pa.Schema, Mapping[bytes, bytes]]:
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            return file.schema_arrow, file.metadata.metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFile(path, f"cannot be read as Parquet ({str(error).partition(chr(10))[0]})") from error


class ParquetReading:
    """A Parquet table of another program being read; the arguments are those of ``CsvReading``."""

    def __init__(
        self,
        file: ForeignFile,
        report: TradeFileReport,
        rejected: RejectionSink | None = None,
        columns: Mapping[str, str] | None = None,
        clock: TapeZone | None = None,
    ) -> None:
        self._file = file
        self._report = report
        schema, metadata = _schema(file.path)
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
        report.has_header = True
        self._table = ForeignTable(file, fields, report, rejected, clock)

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
_CCXT_FIELDS: Final = {
    "time": "timestamp",
    "product_id": "symbol",
    "trade_id": "id",
    "side": "side",
    "price": "price",
    "last_size": "amount",
}


class CcxtReading:
    """Trades of ccxt being read, as a JSON list or one JSON object or list in each line."""

    def __init__(
        self,
        file: ForeignFile,
        report: TradeFileReport,
        rejected: RejectionSink | None = None,
        clock: TapeZone | None = None,
    ) -> None:
        self._file = file
        self._report = report
        fields = dict(_CCXT_FIELDS)
        self._table = ForeignTable(file, fields, report, rejected, clock)

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
    if recognition.is_parquet:
        yield from ParquetReading(file, report, rejected, columns, clock).ticks()
        return
    if recognition.file_format is CCXT:
        is_list = text_head(source).lstrip()[:1] == b"["
        with opened(source) as stream:
            yield from CcxtReading(file, report, rejected, clock).ticks(stream, is_list=is_list)
        return
    with opened(source) as stream:
        yield from CsvReading(file, report, rejected, columns, clock).ticks(stream)
