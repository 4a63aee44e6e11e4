"""Trades and quotes in the CSV files of exchanges and other programs → chunks of ticks, in constant memory.

``read_trades`` reads a file of a known format. Rows that are damaged are counted and reported with the number of their
line, never dropped silently.
"""

from __future__ import annotations

import re
import time as system_time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from volspike.errors import UnreadableFile, UsageError
from volspike.market import Ticks
from volspike.tape.blocks import Blocks, OpenedStream, TextStream
from volspike.tape.csv_columns import (
    DECIMAL,
    FLAG,
    INTEGER,
    NUMBER,
    TEXT,
    WORD,
    ColumnTypes,
    CsvConverter,
    count_lines,
    split_line,
)
from volspike.tape.file_formats import (
    FORMATS,
    LATEST_AHEAD_NS,
    ColumnOrder,
    FileFormat,
    holds_ticks,
    market_of_header,
)
from volspike.tape.foreign_columns import FileReading, ForeignFile, ForeignTable, TradeFileReport, join_numbered
from volspike.tape.report import NumberedTicks, RejectionSink

__all__ = ["FORMATS", "FileFormat", "TradeFileReport", "read_trades"]

BLOCK_BYTES: Final = 4 << 20
"""Bytes of text converted at once."""

_TITLE_LINES: Final = 3
_HEAD_BYTES: Final = 1 << 14
_DELIMITERS: Final = ",;\t|"


def read_trades(
    stream: BinaryIO,
    file_format: str | FileFormat,
    product_id: str | None = None,
    *,
    path: Path = Path("the file"),
    report: TradeFileReport | None = None,
    rejected: RejectionSink | None = None,
    block_bytes: int = BLOCK_BYTES,
    clock: Callable[[], int] = system_time.time_ns,
) -> Iterator[Ticks]:
    """The ticks of one CSV file in the order of its rows, about ``block_bytes`` of text at a time.

    Args:
        stream: the text, uncompressed; it is closed at the end.
        file_format: a format, or the name of one in ``FORMATS``.
        product_id: the product; None if the rows state it.
        path: the file's name in messages.
        report: takes counts, notes, and the first rejected rows.
        rejected: takes every rejected row.
        block_bytes: the size of a block.
        clock: our time in ns UTC; a time a day after it is impossible.

    Raises:
        UnreadableFile: the columns are not those of the format, the product is unknown or another one than in the
            rows, no row is valid, or most rows are damaged; while iterating.
    """
    kind = FORMATS[file_format] if isinstance(file_format, str) else file_format
    file = ForeignFile(path, kind, product_id, clock() + LATEST_AHEAD_NS)
    reading = FileReading(file, TradeFileReport() if report is None else report, rejected)
    for part in CsvReading(reading).ticks(OpenedStream(stream), block_bytes):
        yield part.ticks


class CsvHead(NamedTuple):
    """The beginning of a CSV text: its delimiter, the lines before its header or first row, and the first rows."""

    delimiter: str
    titles: int
    rows: list[list[str]]


def csv_head(text: bytes) -> CsvHead:
    """The beginning of ``text``: up to twenty rows, without blank lines.

    Up to three lines of a title before the header (fewer values than the rows have) are skipped.
    """
    lines = text[:_HEAD_BYTES].split(b"\n")
    if len(text) > _HEAD_BYTES:
        lines = lines[:-1] or lines
    filled = [line for line in lines if line.strip()][:20]
    sample = b"\n".join(filled).decode("utf-8", "replace")
    delimiter = max(_DELIMITERS, key=sample.count) if sample else ","
    rows = [row for line in filled if (row := split_line(line, delimiter))]
    width = max(map(len, rows[-5:]), default=0)
    titles = 0
    while titles < min(_TITLE_LINES, len(rows) - 1) and len(rows[titles]) == 1 < width:
        titles += 1
    return CsvHead(delimiter, titles, rows[titles:])


class CsvReading:
    """One CSV file being read."""

    def __init__(self, reading: FileReading) -> None:
        self._reading = reading
        self._file = reading.file
        self._report = reading.report
        self._header: tuple[str, ...] = ()
        self._table: ForeignTable | None = None
        self._converter: CsvConverter | None = None
        self._delimiter = ","
        self._line = 1

    def ticks(self, stream: TextStream, block_bytes: int = BLOCK_BYTES) -> Iterator[NumberedTicks]:
        """The ticks of the text in their order, each with the number of its line."""
        with Blocks(self._file.path, block_bytes, stream) as blocks:
            for text in blocks:
                block = text if self._table is not None else self._without_header(text)
                if self._table is not None and self._converter is not None and block:
                    yield self._block_ticks(self._table, self._converter, block)
                self._report.bytes_read = blocks.consumed
            self._report.fault = blocks.fault
        if self._table is None:
            raise UnreadableFile(self._file.path, self._report.fault or "no row in the file")
        self._table.check_end()

    def _block_ticks(self, table: ForeignTable, converter: CsvConverter, block: bytes) -> NumberedTicks:
        first, lines = self._line, count_lines(block)
        self._line += lines
        texts = _Lines(block)
        return join_numbered([table.ticks(part, texts, first) for part in converter.rows(block, first, lines)])

    def _without_header(self, block: bytes) -> bytes:
        """The block without its header; finds the columns."""
        if b"\0" in block.lstrip(b"\n").partition(b"\n")[0]:
            raise UnreadableFile(self._file.path, "no CSV text: it holds zero bytes; name a text file in UTF-8")
        head = csv_head(block)
        if not head.rows:
            self._line += count_lines(block) if block else 0
            return b""
        self._delimiter = head.delimiter
        if head.titles:
            self._report.add_note(f"{head.titles} lines before the header are a title and not read")
        block = self._after(block, head.titles)
        header = head.rows[0]
        if self._reading.columns is not None:
            fields, has_header = self._named_columns(self._reading.columns, head)
            if not has_header:
                header = [f"column {place}" for place in range(1, len(header) + 1)]
            self._use(header, fields, "", has_header=has_header)
            return self._after(block, 1) if has_header else block
        fields = self._file.file_format.fields_of(header)
        if holds_ticks(fields):
            self._use(header, fields, market_of_header(self._file.file_format, header), has_header=True)
            return self._after(block, 1)
        layout = layout_of_rows(self._file.file_format, head.rows)
        if layout is None:
            self._refuse_columns(header)
        else:
            names = [f"column {place}" + (f" ({name})" if name else "") for place, name in enumerate(layout.fields, 1)]
            fields = {name: column for name, column in zip(layout.fields, names, strict=True) if name}
            self._use(names, fields, layout.market, has_header=False)
        return block

    def _after(self, block: bytes, lines: int) -> bytes:
        """The block after ``lines`` lines that are not blank, and the blank lines before them."""
        start = 0
        while start < len(block):
            end = block.find(b"\n", start) + 1 or len(block)
            if block[start:end].strip():
                if lines == 0:
                    break
                lines -= 1
            start = end
            self._line += 1
        return block[start:]

    def _named_columns(self, columns: Mapping[str, str], head: CsvHead) -> tuple[dict[str, str], bool]:
        """The columns that the user names, and whether the first line is a header."""
        header = head.rows[0]
        by_name = {name.strip().lower(): name for name in reversed(header)}
        fields: dict[str, str] = {}
        has_header = False
        for name, column in columns.items():
            if column.strip().lower() in by_name and not column.isdigit():
                fields[name] = by_name[column.strip().lower()]
                has_header = True
            elif column.isdigit() and 1 <= int(column) <= len(header):
                fields[name] = column
            else:
                found = ", ".join(value[:30] for value in header[:20])
                raise UsageError(
                    f"--columns {name}={column}: {self._file.path} has no such column; its first line is {found}"
                )
        numbered = {name: int(column) for name, column in fields.items() if column.isdigit()}
        has_header |= any(not _is_number(header[place - 1]) for name, place in numbered.items() if name in _NUMERIC)
        if "time" in numbered and _has_digits_of_a_time(header[numbered["time"] - 1]):
            has_header = False
        for name, place in numbered.items():
            fields[name] = header[place - 1] if has_header else f"column {place}"
        return fields, has_header

    def _refuse_columns(self, header: Sequence[str]) -> None:
        found = ", ".join(name[:30] for name in header[:20])
        names = self._file.file_format.names
        wanted = [" or ".join(names[name][:3]) for name in ("time", "price") if name in names]
        raise UnreadableFile(
            self._file.path,
            f"not the columns of {self._file.file_format.name}: looked for {' and '.join(wanted)}, and its first line "
            f"is {found!r}; choose another --format, or name the columns with --format csv --columns time=…,price=…",
        )

    def _use(self, header: Sequence[str], fields: dict[str, str], market: str, *, has_header: bool) -> None:
        names = list(header)
        for place, name in enumerate(names):
            if name in names[:place]:
                names[place] = f"{name} ({place + 1})"
        self._report.has_header = has_header
        self._header = tuple(header) if has_header else ()
        self._table = ForeignTable(self._reading, fields, market)
        self._converter = CsvConverter(names, self._choices(fields), self._delimiter, self._reject)

    def _choices(self, fields: Mapping[str, str]) -> list[ColumnTypes]:
        """The types of the columns to read, the usual ones first."""
        words = {"side": WORD, "venue": WORD, "product_id": WORD, "kind": WORD, "buyer_is_maker": FLAG}
        choices: list[ColumnTypes] = []
        for id_type in (INTEGER,) if self._file.file_format.has_integer_ids else (INTEGER, TEXT):
            for time_type in (INTEGER, DECIMAL, TEXT):
                types = words | {"time": time_type, "received": time_type, "trade_id": id_type}
                choices.append({column: types.get(name, NUMBER) for name, column in fields.items()})
        return choices

    def _reject(self, line: int, reason: str, text: bytes) -> None:
        values = split_line(text, self._delimiter)
        if values is not None and self._header:
            if tuple(values) == self._header:
                reason = "the header again"
            elif self._table and self._file.file_format.fields_of(values).keys() >= self._table.fields.keys():
                raise UnreadableFile(
                    f"{self._file.path}:{line}", "another header with other columns: split the file there"
                )
        if self._table is not None:
            self._table.reject(line, reason, text)


_NUMERIC: Final = frozenset({"price", "last_size", "best_bid", "best_ask", "bid_size", "ask_size"})


def layout_of_rows(file_format: FileFormat, rows: Sequence[Sequence[str]]) -> ColumnOrder | None:
    """The layout of a file without a header that one of its first rows has, or None."""
    return next((layout for layout in file_format.layouts if any(layout.fits(row) for row in rows)), None)


class _Lines(Sequence[bytes]):
    """The lines of a block, which is split when the first one is needed."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._lines: list[bytes] | None = None

    def __len__(self) -> int:
        return count_lines(self._block)

    def __getitem__(self, place: int) -> bytes:  # type: ignore[override]
        if self._lines is None:
            self._lines = self._block.split(b"\n")
        return self._lines[place]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _has_digits_of_a_time(text: str) -> bool:
    return re.search(r"\d{4}", text) is not None
