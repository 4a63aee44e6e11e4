"""Tables of any origin → ticks, with the invalid rows by reason: CSV, Parquet and JSON give the same columns."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volspike.errors import UnreadableFile
from volspike.market import MISSING_ID, Kind, Side, Ticks
from volspike.market.product import KNOWN_VENUES, split_product
from volspike.market.time import NOT_A_TIME
from volspike.tape.chronology import TapeZone
from volspike.tape.csv_columns import CsvRows
from volspike.tape.fields import MAKER_SIDE, UNREAD_IDS, read_identifier, side_of
from volspike.tape.file_formats import (
    EARLIEST_NS,
    FileFormat,
    is_same_symbol,
    market_venue,
    product_of_symbol,
)
from volspike.tape.foreign_times import column_times
from volspike.tape.report import KEPT_REJECTIONS, NumberedTicks, Rejection, RejectionSink

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

_UNKNOWN: Final = -9
_NUMBERS: Final = ("last_size", "bid_size", "ask_size", "best_bid", "best_ask")


@dataclass(slots=True)
class TradeFileReport:
    """The result of reading one file; complete once the last chunk was returned.

    ``rows`` counts the rows, rejected ones included, without the header. Times are in ns UTC, ``columns`` states how
    each column was read (``timestamp`` → ``time, µs``), and ``fault`` why the file ended early. ``size_unit`` is empty
    for sizes in the base currency. ``bytes_read`` counts the text.
    """

    rows: int = 0
    ticks: int = 0
    rejected: int = 0
    bytes_read: int = 0
    first_time: int = NOT_A_TIME
    last_time: int = NOT_A_TIME
    first_id: int = MISSING_ID
    last_id: int = MISSING_ID
    has_header: bool = False
    fault: str | None = None
    size_unit: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    products: list[str] = field(default_factory=list)
    units: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)

    def add_note(self, text: str) -> None:
        """Adds a remark once."""
        if text not in self.notes:
            self.notes.append(text)

    def add_ticks(self, ticks: Ticks) -> None:
        """Counts ticks, in the order of the file."""
        if len(ticks) == 0:
            return
        if self.ticks == 0:
            self.first_time, self.first_id = int(ticks.time[0]), int(ticks.trade_id[0])
        self.last_time, self.last_id = int(ticks.time[-1]), int(ticks.trade_id[-1])
        self.ticks += len(ticks)
        self.products.extend(name for name in ticks.products if name not in self.products)


def size_unit_of(product_id: str) -> str:
    """The unit of a product's sizes; empty for its base currency.

    >>> size_unit_of("binance-cm:BTC-USD-PERP"), size_unit_of("binance:BTC-USDT")
    ('contracts', '')
    """
    venue, _, symbol = product_id.rpartition(":")
    if venue == "binance-cm" or (venue == "okx" and symbol.count("-") > 1):
        return "contracts"
    return "USD" if venue == "bybit-inverse" else ""


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """One file, as far as it is known: its format, and what its rows do not state.

    ``product_id`` is that of all rows, or None if they state it; ``named_product`` is that of rows that state none.
    ``venue`` and ``market`` are those of rows without a venue. ``latest`` is the last possible time in ns UTC.
    """

    path: Path
    file_format: FileFormat
    product_id: str | None
    latest: int
    named_product: str | None = None
    venue: str = ""
    market: str = ""

    def in_market(self, market: str) -> ForeignFile:
        """The file with the market that its columns show, if that was unknown."""
        return replace(self, market=self.market or market)


def join_numbered(parts: Sequence[NumberedTicks]) -> NumberedTicks:
    """The parts one after another."""
    if len(parts) == 1:
        return parts[0]
    numbers = [np.empty(0, np.int64), *(part.numbers for part in parts)]
    return NumberedTicks(Ticks.join([part.ticks for part in parts]), np.concatenate(numbers))


@dataclass(slots=True)
class FileReading:
    """One file being read.

    Attributes:
        file: the file, its format and what its rows do not state.
        report: takes counts, units and notes, and the first rejected rows.
        rejected: takes every rejected row.
        columns: the column of each field by its name, or its number from 1 in a CSV file, where the user names them.
        clock: learns whether the times have a zone.
    """

    file: ForeignFile
    report: TradeFileReport
    rejected: RejectionSink | None = None
    columns: Mapping[str, str] | None = None
    clock: TapeZone = field(default_factory=TapeZone)


class ForeignTable:
    """Turns the rows of one file into ticks; ``fields`` are the columns of the fields of a tick."""

    def __init__(self, reading: FileReading, fields: Mapping[str, str], market: str = "") -> None:
        file, report = reading.file.in_market(market), reading.report
        self.file = file
        self.fields = dict(fields)
        self.report = report
        self._rejected = reading.rejected
        self._clock = reading.clock
        if file.product_id is None and "product_id" not in fields:
            file = self.file = replace(file, product_id=file.named_product)
        if file.product_id is None and "product_id" not in fields:
            raise UnreadableFile(
                file.path,
                "neither its rows nor its name state the product: use --product, such as --product binance:BTC-USDT",
            )
        if file.product_id is not None:
            report.size_unit = size_unit_of(file.product_id)
        for name, column in self.fields.items():
            report.columns[column] = name

    def reject(self, line: int, reason: str, text: bytes) -> None:
        """Counts one damaged row.

        Raises:
            UnreadableFile: most rows so far, and at least a thousand, are damaged.
        """
        report = self.report
        report.rows += 1
        report.rejected += 1
        if len(report.rejections) < KEPT_REJECTIONS:
            report.rejections.append(Rejection(str(self.file.path), line, reason))
        if self._rejected is not None:
            self._rejected.add(line, reason, text)
        if report.rejected >= 1_000 and report.rejected > report.ticks:
            self._refuse_damaged()

    def check_end(self) -> None:
        """Checks the complete file.

        Raises:
            UnreadableFile: it has no row, or not more valid rows than damaged ones.
        """
        report = self.report
        if report.ticks == 0 and not report.rejected:
            raise UnreadableFile(self.file.path, report.fault or "no row in the file")
        if report.ticks <= report.rejected:
            self._refuse_damaged()

    def _refuse_damaged(self) -> None:
        first, report = self.report.rejections[0], self.report
        raise UnreadableFile(
            f"{self.file.path}:{first.line}",
            f"{first.reason}; {report.rejected:,} of {report.rows:,} rows do not fit the format "
            f"{self.file.file_format.name}: name another one with --format, or repair the file",
        )

    def ticks(self, rows: CsvRows, text_of: Sequence[bytes] | None = None, first: int = 1) -> NumberedTicks:
        """The valid rows as ticks; the others are rejected.

        ``text_of`` holds the texts of the rows by their number from ``first``; without it they are written as JSON.
        """
        part, faults = self._converted(rows)
        if faults:
            is_invalid = np.logical_or.reduce(list(faults.values()))
            for row in np.flatnonzero(is_invalid).tolist():
                number = int(part.numbers[row])
                text = _row_text(rows.columns, row) if text_of is None else text_of[number - first]
                self.reject(number, next(reason for reason, mask in faults.items() if mask[row]), text)
            part = NumberedTicks(part.ticks[~is_invalid], part.numbers[~is_invalid])
        self.report.rows += len(part.numbers)
        self.report.add_ticks(part.ticks)
        return part

    def _converted(self, rows: CsvRows) -> tuple[NumberedTicks, dict[str, Mask]]:
        """The rows as ticks, and the invalid ones by reason."""
        columns = _Columns(rows.columns, self.fields, self.report, self._clock)
        time = columns.times("time") if "time" in self.fields else columns.times("received")
        received = columns.times("received") if "received" in self.fields else time
        if "time" in self.fields and "time" not in self.file.file_format.required:
            time = np.where(time == NOT_A_TIME, received, time)
        bid, ask = columns.numbers("best_bid"), columns.numbers("best_ask")
        has_quotes = "best_bid" in self.fields
        is_trade = "last_size" in self.fields and not has_quotes
        products, product = self._products(columns, len(rows.numbers))
        ticks = Ticks(
            products=products,
            time=time,
            received=received,
            kind=np.full(len(time), Kind.TRADE if is_trade else Kind.TICKER, np.int8),
            product=product,
            price=columns.numbers("price") if "price" in self.fields else (bid + ask) / 2,
            best_bid=bid,
            best_ask=ask,
            bid_size=columns.numbers("bid_size"),
            ask_size=columns.numbers("ask_size"),
            last_size=columns.numbers("last_size"),
            side=columns.sides(),
            trade_id=columns.ids(),
            sequence=np.full(len(time), MISSING_ID, np.int64),
        )
        return NumberedTicks(ticks, rows.numbers), self._faults(ticks, columns)

    def _faults(self, ticks: Ticks, columns: _Columns) -> dict[str, Mask]:
        """The invalid rows by reason; empty if all are valid."""
        masks = {}
        for name in self.fields.keys() & self.file.file_format.required:
            if (is_empty := columns.is_empty(name)) is not None:
                masks[self._at(name, "a value is missing")] = is_empty
        is_past = ticks.time < EARLIEST_NS
        masks[self._at("time", "no time between 1990 and tomorrow")] = is_past | (ticks.time > self.file.latest)
        if "received" in self.fields:
            masks[self._at("received", "no time after 1990")] = ticks.received < EARLIEST_NS
        masks[self._at("price", "expected a finite price above 0")] = ~((ticks.price > 0.0) & (ticks.price < np.inf))
        for name in _NUMBERS:
            if name not in self.fields:
                continue
            values, is_empty = getattr(ticks, name), columns.is_empty(name)
            is_beyond = ~((values >= 0.0) & (values < np.inf))
            masks[self._at(name, "expected a finite number of 0 or more")] = (
                is_beyond if is_empty is None else is_beyond & ~is_empty
            )
        masks[self._at("trade_id", "expected an id of 0 or more")] = ticks.trade_id < MISSING_ID
        masks[self._at("side", "expected buy or sell")] = ticks.side == _UNKNOWN
        masks[self._at("product_id", "no product of a known form")] = ticks.product < 0
        return {reason: mask for reason, mask in masks.items() if mask.any()}

    def _at(self, name: str, text: str) -> str:
        return f"{self.fields.get(name, name)}: {text}"

    def _products(self, columns: _Columns, rows: int) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        """The products and their indices, -1 where a row states none."""
        file = self.file
        if file.product_id is not None:
            self._check_symbols(columns, file.product_id)
            return (file.product_id,), np.zeros(rows, np.int32)
        symbols, symbol = columns.words("product_id")
        venues, venue = [""], np.zeros(rows, np.int32)
        if "venue" in self.fields:
            venues, venue = columns.words("venue")
        pairs, pair = np.unique(symbol.astype(np.int64) * (len(venues) + 1) + venue + 1, return_inverse=True)
        names, codes = list[str](), np.empty(len(pairs), np.int32)
        for place, number in enumerate(pairs.tolist()):
            at, of = divmod(number, len(venues) + 1)
            name = self._product(venues[of - 1] if of else "", symbols[at]) if at >= 0 else None
            if name is not None and name not in names:
                names.append(name)
            codes[place] = -1 if name is None else names.index(name)
        for name in names:
            if unit := size_unit_of(name):
                self.report.size_unit = unit
        return tuple(names), codes[pair]

    def _product(self, venue: str, symbol: str) -> str | None:
        """The product of a row; ``venue`` is empty if the row states none."""
        file = self.file
        if file.file_format.name == "nautilus":  # BTCUSDT-PERP.BINANCE
            symbol, _, venue = symbol.rpartition(".")
        if (product := _product_with_venue(symbol)) is not None:
            return product
        venue = venue or market_venue(file.file_format, symbol, file.market) or file.venue
        if not venue:
            raise UnreadableFile(
                file.path,
                f"its rows are of {symbol[:40]} but state no venue: use --product, such as --product binance:BTC-USDT",
            )
        return product_of_symbol(venue, symbol)

    def _check_symbols(self, columns: _Columns, product_id: str) -> None:
        if "product_id" not in self.fields:
            return
        symbols, _ = columns.words("product_id")
        for symbol in symbols:
            text = symbol.rpartition(".")[0] if self.file.file_format.name == "nautilus" else symbol
            product = _product_with_venue(text)
            stated = text.partition(":")[0] if product is None else split_product(product)[1]
            is_elsewhere = product is not None and _exchange_of(product) != _exchange_of(product_id)
            if stated and (is_elsewhere or not is_same_symbol(product_id, stated)):
                raise UnreadableFile(
                    self.file.path,
                    f"its rows are of {symbol[:40]}, not of {product_id}: remove --product, or name the right one",
                )


def _product_with_venue(symbol: str) -> str | None:
    """The product of a symbol that states its venue; None for one that does not, such as those of ccxt.

    >>> _product_with_venue("bitflyer:BTC-JPY"), _product_with_venue("BTC/USDT:USDT")
    ('bitflyer:BTC-JPY', None)
    """
    venue, _, of_venue = symbol.partition(":")
    is_known = bool(of_venue) and venue.strip().lower().replace("_", "-") in KNOWN_VENUES
    return product_of_symbol(venue, of_venue) if is_known else None


def _exchange_of(product_id: str) -> str:
    """The venue of a product without its market: ``binance`` for ``binance-um``."""
    return split_product(product_id)[0].partition("-")[0]


def _row_text(table: pa.Table, row: int) -> bytes:
    values = table.slice(row, 1).to_pylist()[0]
    return json.dumps({name: str(value) for name, value in values.items()}).encode()


class _Columns:
    """The columns of some rows by the fields of a tick; a field without a column is missing in every row."""

    def __init__(self, table: pa.Table, fields: Mapping[str, str], report: TradeFileReport, clock: TapeZone) -> None:
        self._table = table
        self._fields = fields
        self._report = report
        self._clock = clock

    def _column(self, name: str) -> pa.Array:
        column = self._table.column(self._fields[name])
        if isinstance(column, pa.Array):
            return column
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def is_empty(self, name: str) -> Mask | None:
        """The rows without a value of a field that has a column; None if there are none."""
        column = self._column(name)
        return np.asarray(column.is_null().to_numpy(zero_copy_only=False)) if column.null_count else None

    def numbers(self, name: str) -> Floats:
        if name not in self._fields:
            return np.full(self._table.num_rows, np.nan)
        column = self._column(name)
        if pa.types.is_fixed_size_binary(column.type):
            column = _fixed_point(column)
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.string())  # Arrow's own conversion is not exact to the last bit
        if not pa.types.is_float64(column.type):
            column = column.cast(pa.float64())
        return np.asarray(column.to_numpy(zero_copy_only=False), np.float64)

    def ids(self) -> Integers:
        if "trade_id" not in self._fields:
            return np.full(self._table.num_rows, MISSING_ID, np.int64)
        column = self._column("trade_id")
        if pa.types.is_integer(column.type):
            column = column.cast(pa.int64())
            return np.asarray(column.fill_null(MISSING_ID) if column.null_count else column)
        ids = np.array([read_identifier(value) for value in column.to_pylist()], np.int64)
        if ((ids == MISSING_ID) & np.asarray(column.is_valid())).any():
            self._report.add_note(UNREAD_IDS)
        return ids

    def sides(self) -> NDArray[np.int8]:
        """The taker's side; ``_UNKNOWN`` where the text is none."""
        if "buyer_is_maker" in self._fields:
            column = self._column("buyer_is_maker").cast(pa.bool_())
            is_maker = column.fill_null(False).to_numpy(zero_copy_only=False)
            side = np.where(is_maker, np.int8(Side.SELL), np.int8(Side.BUY))
            return np.where(column.is_valid(), side, np.int8(Side.UNKNOWN)) if column.null_count else side
        if "side" not in self._fields:
            return np.full(self._table.num_rows, Side.UNKNOWN, np.int8)
        column = self._column("side")
        if pa.types.is_integer(column.type):  # of nautilus
            codes = np.asarray(column.fill_null(0)).astype(np.int64)
            numbered = np.array([Side.UNKNOWN, Side.BUY, Side.SELL, _UNKNOWN], np.int8)
            return numbered[np.where((codes >= 0) & (codes < 3), codes, 3)]
        words, indices = self.words("side")
        sides = [_SIDES.get(word, side_of(word)) for word in words]
        known = [_UNKNOWN if side is None else int(side) for side in sides]
        found = np.array([*known, int(Side.UNKNOWN)], np.int8)[indices]
        if self._fields["side"] == MAKER_SIDE:
            return np.where(found == _UNKNOWN, found, -found)
        return found

    def words(self, name: str) -> tuple[list[str], NDArray[np.int32]]:
        """The distinct texts of a column and the index of each row into them, -1 for an empty one."""
        column = self._column(name)
        if not pa.types.is_dictionary(column.type):
            column = column.cast(pa.string()).dictionary_encode()
        indices = column.indices.fill_null(-1) if column.null_count else column.indices
        words = [str(word or "") for word in column.dictionary.to_pylist()]
        return words, np.asarray(indices).astype(np.int32, copy=False)

    def times(self, name: str) -> Integers:
        """Nanoseconds UTC; ``NOT_A_TIME`` where there is none."""
        column = self._column(name)
        times, units, is_naive = column_times(column)
        if column.null_count:
            times = np.where(column.is_null().to_numpy(zero_copy_only=False), NOT_A_TIME, times)
        if name == "received":
            self._clock.naive_received = is_naive
        else:
            self._clock.naive_time = is_naive
            if "received" not in self._fields:
                self._clock.naive_received = is_naive
        self._report.units.update(units)
        stated = self._report.columns[self._fields[name]].split(", ")
        units_so_far = dict.fromkeys([*stated[1:], *sorted(units)])
        self._report.columns[self._fields[name]] = ", ".join([name, *units_so_far])
        return times


_SIDES: Final = {
    "BUYER": Side.BUY,
    "SELLER": Side.SELL,
    "NO_AGGRESSOR": Side.UNKNOWN,
    "0": Side.UNKNOWN,
    "1": Side.BUY,
    "2": Side.SELL,
}
"""Sides as nautilus writes them."""


def _fixed_point(column: pa.Array) -> pa.Array:
    """Numbers of nautilus: integers of 16 bytes with 16 decimals, or of 8 bytes with 9, least byte first."""
    width = column.type.byte_width
    column = pa.concat_arrays([column])  # without an offset
    data = column.buffers()[1]
    if width == 8:
        low = np.frombuffer(data, np.int64)[: len(column)]
        data = pa.py_buffer(np.stack([low, low >> 63], axis=1).tobytes())
    kind = pa.decimal128(38, 16 if width == 16 else 9)
    return pa.Array.from_buffers(kind, len(column), [None, data])
