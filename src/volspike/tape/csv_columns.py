"""CSV text → Arrow columns, block by block in constant memory; rows that do not fit are isolated and rejected.

A block is converted at once by Arrow. If a row in it does not fit, the block is halved until the row is alone, so that
the same conversion decides about every row and only the damaged ones are lost.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

ColumnTypes = Mapping[str, pa.DataType]

FLAG = pa.bool_()
NUMBER = pa.float64()
INTEGER = pa.int64()
DECIMAL = pa.decimal128(38, 9)
"""Numbers of seconds, exact to the nanosecond."""
TEXT = pa.string()
WORD = pa.dictionary(pa.int32(), pa.string())
"""Texts of which few differ."""

TRUE_WORDS = ("True", "true", "TRUE", "1")
FALSE_WORDS = ("False", "false", "FALSE", "0")

_KIND_NAMES = {INTEGER: "a whole number", NUMBER: "a number", DECIMAL: "a number", FLAG: "True or False"}


class CsvRows(NamedTuple):
    """Rows in the order of the file, each with the number of its line, from 1."""

    columns: pa.Table
    numbers: NDArray[np.int64]


class CsvConverter:
    """Converts blocks of CSV lines that have the columns ``names``; only the columns of ``choices`` are read.

    Args:
        names: the columns of every line, unique.
        choices: the types of the columns to read; where a block does not fit one choice, the next is tried.
        delimiter: the character between values.
        reject: takes the number, the reason and the text of each line that fits no choice.
    """

    def __init__(
        self,
        names: Sequence[str],
        choices: Sequence[ColumnTypes],
        delimiter: str,
        reject: Callable[[int, str, bytes], None],
    ) -> None:
        self.names = tuple(names)
        self._choices = tuple(choices)
        self._delimiter = delimiter
        self._reject = reject
        self._preferred = 0
        self._parsing = pacsv.ParseOptions(delimiter=delimiter)
        self._converting = [
            pacsv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                true_values=TRUE_WORDS,
                false_values=FALSE_WORDS,
            )
            for types in choices
        ]

    def rows(self, block: bytes, first: int, lines: int) -> list[CsvRows]:
        """The rows of a block of ``lines`` lines; the first line has the number ``first``. Blank lines are no rows."""
        found: list[CsvRows] = []
        waiting = [(block, first, lines)]
        while waiting:
            text, number, lines = waiting.pop()
            rows = self._convert(text, number, lines)
            if rows is not None:
                if len(rows.numbers):
                    found.append(rows)
            elif lines > 1:
                half = _middle_line_end(text)
                before = text.count(b"\n", 0, half)
                waiting.append((text[half:], number + before, lines - before))
                waiting.append((text[:half], number, before))
            elif text.strip():
                self._reject(number, self._reason(text), text.rstrip(b"\n"))
        return found

    def _convert(self, text: bytes, first: int, lines: int) -> CsvRows | None:
        """The rows of a block; None if a line of it fits no choice."""
        if text.isspace():
            return CsvRows(pa.table({}), np.empty(0, np.int64))
        if b"\r" in text or (b'"' in text and not self._has_regular_quotes(text)):
            text = text.rstrip(b"\r\n")
            if lines > 1 or b"\r" in text or split_line(text, self._delimiter) is None:
                return None
        reading = pacsv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=self.names)
        order = [self._preferred, *(place for place in range(len(self._choices)) if place != self._preferred)]
        for place in order:
            try:
                table = pacsv.read_csv(
                    pa.BufferReader(text),
                    read_options=reading,
                    parse_options=self._parsing,
                    convert_options=self._converting[place],
                )
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                continue
            numbers = _line_numbers(text, first, lines, table.num_rows)
            if numbers is None:
                return None
            self._preferred = place
            return CsvRows(table, numbers)
        return None

    def _has_regular_quotes(self, text: bytes) -> bool:
        """Whether every quote opens or closes a value: Arrow joins ``"1"2`` and runs an open quote over lines."""
        mark = self._delimiter.encode()
        framed = b"\n" + text.rstrip(b"\n") + b"\n"
        opening = framed.count(mark + b'"') + framed.count(b'\n"')
        closing = framed.count(b'"' + mark) + framed.count(b'"\n')
        return opening == closing and opening + closing == text.count(b'"')

    def _reason(self, text: bytes) -> str:
        """The reason why a line fits no choice."""
        if b"\r" in text.rstrip():
            return "a carriage return within the line"
        values = split_line(text, self._delimiter)
        if values is None:
            return "a quote is not closed"
        if len(values) != len(self.names):
            return f"expected {len(self.names)} columns, got {len(values)}"
        types = self._choices[self._preferred]
        for name, value in zip(self.names, values, strict=True):
            kind = types.get(name)
            if kind is not None and not _fits(value, kind):
                return f"{name}: expected {_KIND_NAMES.get(kind, 'a text')}, got {value[:40]!r}"
        return "the line is damaged"


def count_lines(text: bytes) -> int:
    """The number of lines; the last one may lack its end."""
    ends = np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n"))  # faster than bytes.count
    return int(ends) + (not text.endswith(b"\n"))


def split_line(text: bytes, delimiter: str) -> list[str] | None:
    """The values of one line; bytes that are not UTF-8 are replaced. None if a quote in it is not closed.

    >>> split_line(b'1,"a, b",3', ",")
    ['1', 'a, b', '3']
    """
    line = text.decode("utf-8", "replace").rstrip("\r\n")
    try:
        return next(csv.reader(io.StringIO(line), delimiter=delimiter, strict=True), [])
    except csv.Error:
        return None


def _middle_line_end(text: bytes) -> int:
    """The place after the line end nearest to the middle of a text of several lines."""
    half = len(text) // 2
    before = text.rfind(b"\n", 0, half) + 1
    return before if before > 0 else text.find(b"\n", half) + 1


def _line_numbers(text: bytes, first: int, lines: int, rows: int) -> NDArray[np.int64] | None:
    """The number of the line of each row; None if rows and lines do not correspond, as with a quote left open."""
    if rows == lines:
        return np.arange(first, first + lines)
    ends = np.flatnonzero(np.frombuffer(text, np.uint8) == ord("\n"))
    if not text.endswith(b"\n"):
        ends = np.append(ends, len(text))
    is_blank = np.diff(ends, prepend=-1) == 1
    return first + np.flatnonzero(~is_blank) if lines - int(is_blank.sum()) == rows else None


def _fits(value: str, kind: pa.DataType) -> bool:
    if not value:
        return True
    if kind == FLAG:
        return value in TRUE_WORDS + FALSE_WORDS
    if "\ufffd" in value:
        return False
    convert: Callable[[str], Any] | None = int if kind == INTEGER else float if kind in {NUMBER, DECIMAL} else None
    try:
        return convert is None or convert(value) is not None
    except ValueError:
        return False
