"""Trades and quotes in the files of exchanges and other programs → chunks of ticks, in constant memory.

``FORMATS`` describes the CSV files; ``read_trades`` reads one of them. A column is found by its name in the header, or
by its place where the format has files without a header. Rows that are damaged are counted and reported with the number
of their line, never dropped silently.
"""

from __future__ import annotations

import time as system_time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volspike.errors import MalformedTick, UnreadableFile, VolspikeError
from volspike.market import MISSING_ID, SECOND_NS, Kind, Side, Ticks
from volspike.market.product import canonical_product, hyphenated, product_name
from volspike.market.time import NOT_A_TIME, parse_times
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
    CsvRows,
    count_lines,
    split_line,
)
from volspike.tape.fields import UNREAD_IDS, normalize_name, read_identifier, read_instant, side_of
from volspike.tape.parse import RejectionSink
from volspike.tape.report import KEPT_REJECTIONS, NumberedTicks, Rejection

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

BLOCK_BYTES: Final = 4 << 20
"""Bytes of text converted at once."""

EARLIEST_NS: Final = 631_152_000 * SECOND_NS
"""1990-01-01; an earlier time is an error of its unit, or a missing one."""

LATEST_AHEAD_NS: Final = 86_400 * SECOND_NS
"""The furthest that a time may be ahead of our clock."""

REQUIRED: Final = frozenset({"time", "price", "last_size", "side", "buyer_is_maker", "trade_id"})
"""Fields that a damaged row lacks: the dumps of exchanges have no row without them."""

_UNREAD = ""
_UNKNOWN = -9


@dataclass(frozen=True, slots=True)
class FileFormat:
    """The CSV files of one origin.

    ``names`` are the names of each field of a tick in a header, the preferred one first; ``buyer_is_maker`` is true if
    the taker sold. ``layouts`` are the fields of files without a header, by column (``""``: not read). ``signatures``
    are sets of names, any of which identifies the format. ``optional`` fields may be empty. ``venue`` is that of rows
    that state none. ``has_consecutive_ids``: a jump of the trade id within a product is a loss.
    """

    name: str
    names: Mapping[str, tuple[str, ...]]
    layouts: tuple[tuple[str, ...], ...] = ()
    signatures: tuple[frozenset[str], ...] = ()
    optional: frozenset[str] = frozenset()
    venue: str = ""
    has_consecutive_ids: bool = False
    has_integer_ids: bool = True

    def fields_of(self, header: Sequence[str]) -> dict[str, str]:
        """The column of each field in a header, among its own names."""
        known = {_plain(name): name for name in reversed(header)}
        found = {}
        for tick_field, names in self.names.items():
            column = next((known[_plain(name)] for name in names if _plain(name) in known), None)
            if column is not None:
                found[tick_field] = column
        return found


def _plain(name: str) -> str:
    """A name of a header in comparable form; OKX writes ``price/价格``, in GBK or UTF-8."""
    return normalize_name(name.partition("/")[0])


def _signatures(*headers: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(_plain(name) for name in header.split()) for header in headers)


_TARDIS_NAMES: Final = {
    "time": ("timestamp",),
    "received": ("local_timestamp",),
    "venue": ("exchange",),
    "product_id": ("symbol",),
    "trade_id": ("id",),
    "side": ("side",),
    "price": ("price",),
    "last_size": ("amount",),
    "best_bid": ("bid_price", "bids[0].price"),
    "best_ask": ("ask_price", "asks[0].price"),
    "bid_size": ("bid_amount", "bids[0].amount"),
    "ask_size": ("ask_amount", "asks[0].amount"),
}

FORMATS: Final[Mapping[str, FileFormat]] = {
    file_format.name: file_format
    for file_format in (
        FileFormat(
            name="binance",
            names={
                "trade_id": ("agg_trade_id", "id", "trade_id"),
                "price": ("price",),
                "last_size": ("quantity", "qty"),
                "time": ("transact_time", "time", "timestamp"),
                "buyer_is_maker": ("is_buyer_maker",),
            },
            layouts=(
                # aggTrades of spot: …, first id, last id, time, buyer is maker, best match
                ("trade_id", "price", "last_size", _UNREAD, _UNREAD, "time", "buyer_is_maker", _UNREAD),
                # aggTrades of futures
                ("trade_id", "price", "last_size", _UNREAD, _UNREAD, "time", "buyer_is_maker"),
                # trades of spot: …, size in the quote currency, time, buyer is maker, best match
                ("trade_id", "price", "last_size", _UNREAD, "time", "buyer_is_maker", _UNREAD),
                # trades of futures
                ("trade_id", "price", "last_size", _UNREAD, "time", "buyer_is_maker"),
            ),
            signatures=_signatures("price quantity transact_time is_buyer_maker", "id price qty time is_buyer_maker"),
            venue="binance",
            has_consecutive_ids=True,
        ),
        FileFormat(
            name="bybit",
            names={
                "trade_id": ("id",),
                "time": ("timestamp",),
                "product_id": ("symbol",),
                "price": ("price",),
                "last_size": ("size", "volume"),
                "side": ("side",),
            },
            signatures=_signatures(
                "timestamp symbol side size price tickDirection trdMatchID", "id timestamp price volume side"
            ),
            venue="bybit",
        ),
        FileFormat(
            name="okx",
            names={
                "trade_id": ("trade_id",),
                "side": ("side",),
                "last_size": ("size",),
                "price": ("price",),
                "time": ("created_time",),
                "product_id": ("instrument_name", "inst_id"),
            },
            layouts=(("trade_id", "side", "last_size", "price", "time"),),
            signatures=_signatures("trade_id side size price created_time"),
            venue="okx",
            has_consecutive_ids=True,
        ),
        FileFormat(
            name="tardis",
            names=_TARDIS_NAMES,
            signatures=_signatures("exchange symbol timestamp local_timestamp"),
            optional=frozenset({"trade_id", "side"}),
            has_integer_ids=False,
        ),
        FileFormat(
            name="kraken",
            names={"time": ("time", "timestamp", "unixtime"), "price": ("price",), "last_size": ("volume",)},
            layouts=(("time", "price", "last_size"),),
            venue="kraken",
        ),
    )
}
"""The CSV files that are read without a description of their columns."""


@dataclass(slots=True)
class TradeFileReport:
    """The result of reading one file; complete once the last chunk was returned.

    ``rows`` counts the rows, rejected ones included, without the header. Times are in ns UTC, ``columns`` states how
    each column was read, and ``fault`` why the file ended early. ``size_unit`` is empty for sizes in the base currency.
    """

    rows: int = 0
    ticks: int = 0
    rejected: int = 0
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
        UnreadableFile: the columns are not those of the format, the product is unknown, no row is valid, or most rows
            are damaged; while iterating.
    """
    kind = FORMATS[file_format] if isinstance(file_format, str) else file_format
    report = TradeFileReport() if report is None else report
    reading = CsvReading(path, kind, product_id, report, rejected, clock() + LATEST_AHEAD_NS)
    for part in reading.ticks(OpenedStream(stream), block_bytes):
        yield part.ticks


def size_unit_of(product_id: str) -> str:
    """The unit of a product's sizes; empty for its base currency.

    >>> size_unit_of("binance-cm:BTC-USD-PERP"), size_unit_of("binance:BTC-USDT")
    ('contracts', '')
    """
    venue, _, symbol = product_id.rpartition(":")
    if venue == "binance-cm" or (venue == "okx" and symbol.count("-") > 1):
        return "contracts"
    return "USD" if venue == "bybit-inverse" else ""


class CsvReading:
    """One CSV file being read."""

    def __init__(
        self,
        path: Path,
        file_format: FileFormat,
        product_id: str | None,
        report: TradeFileReport,
        rejected: RejectionSink | None,
        latest: int,
    ) -> None:
        self._path = path
        self._format = file_format
        self._product = product_id
        self._report = report
        self._rejected = rejected
        self._latest = latest
        self._fields: dict[str, str] = {}
        self._header: tuple[str, ...] = ()
        self._converter: CsvConverter | None = None
        self._line = 1

    def ticks(self, stream: TextStream, block_bytes: int) -> Iterator[NumberedTicks]:
        """The ticks of the text in their order, each with the number of its line."""
        with Blocks(self._path, block_bytes, stream) as blocks:
            for text in blocks:
                block = text if self._converter is not None else self._without_header(text)
                if self._converter is not None:
                    yield self._block_ticks(self._converter, block)
            self._report.fault = blocks.fault
        self._check_end()

    def _check_end(self) -> None:
        report = self._report
        if report.ticks == 0 and not report.rejected:
            raise UnreadableFile(self._path, report.fault or "no row in the file")
        if report.ticks <= report.rejected:
            self._refuse_damaged()

    def _refuse_damaged(self) -> None:
        first = self._report.rejections[0]
        raise UnreadableFile(
            f"{self._path}:{first.line}",
            f"{first.reason}; {self._report.rejected:,} of {self._report.rows:,} rows do not fit the format "
            f"{self._format.name}: name another one, or repair the file",
        )

    def _without_header(self, block: bytes) -> bytes:
        """The block without its header; finds the columns."""
        if b"\0" in block.lstrip(b"\n").partition(b"\n")[0]:
            raise UnreadableFile(self._path, "no CSV text: it holds zero bytes; name a text file in UTF-8")
        start = len(block) - len(block.lstrip(b"\n"))
        self._line += start
        block = block[start:]
        if not block:
            return block
        end = block.find(b"\n") + 1 or len(block)
        header = split_line(block[:end], ",") or []
        fields = self._format.fields_of(header)
        if "time" in fields and ("price" in fields or {"best_bid", "best_ask"} <= fields.keys()):
            self._report.has_header = True
            self._line += 1
            self._header = tuple(header)
            self._use(header, fields)
            return block[end:]
        layout = self._layout_of(block)
        if layout is None:
            self._refuse_columns(header)
        else:
            columns = [name or f"column {place}" for place, name in enumerate(layout, 1)]
            self._use(columns, {name: name for name in layout if name})
        return block

    def _refuse_columns(self, header: Sequence[str]) -> None:
        found = ", ".join(name[:30] for name in header[:12])
        wanted = " ".join(f"{tick_field}: {' or '.join(names)};" for tick_field, names in self._format.names.items())
        raise UnreadableFile(
            self._path, f"not the columns of {self._format.name} ({wanted.rstrip(';')}); its first line is {found!r}"
        )

    def _layout_of(self, block: bytes) -> tuple[str, ...] | None:
        """The layout that the first complete rows have."""
        lines = block[: 1 << 14].split(b"\n")[:20]
        rows = [row for line in lines if (row := split_line(line, ","))]
        for layout in self._format.layouts:
            if any(len(row) == len(layout) and all(map(_may_hold, layout, row)) for row in rows):
                return layout
        return None

    def _use(self, header: Sequence[str], fields: dict[str, str]) -> None:
        if self._product is None and "product_id" not in fields:
            raise UnreadableFile(
                self._path, "its rows state no product: name it with --product, such as --product binance:BTC-USDT"
            )
        if self._product is not None:
            self._report.size_unit = size_unit_of(self._product)
        names = list(header)
        for place, name in enumerate(names):
            if name in names[:place]:
                names[place] = f"{name} ({place + 1})"
        self._fields = fields
        self._converter = CsvConverter(names, self._choices(), ",", self._reject)

    def _choices(self) -> list[ColumnTypes]:
        """The types of the columns to read, the usual ones first."""
        words = {"side": WORD, "venue": WORD, "product_id": WORD, "buyer_is_maker": FLAG}
        choices: list[ColumnTypes] = []
        for id_type in (INTEGER,) if self._format.has_integer_ids else (INTEGER, TEXT):
            for time_type in (INTEGER, DECIMAL, TEXT):
                types = words | {"time": time_type, "received": time_type, "trade_id": id_type}
                choices.append({column: types.get(name, NUMBER) for name, column in self._fields.items()})
        return choices

    def _reject(self, line: int, reason: str, text: bytes) -> None:
        values = split_line(text, ",")
        if values is not None and self._header:
            if tuple(values) == self._header:
                reason = "the header again"
            elif self._format.fields_of(values).keys() >= self._fields.keys():
                raise UnreadableFile(f"{self._path}:{line}", "another header with other columns: split the file there")
        report = self._report
        report.rows += 1
        report.rejected += 1
        if len(report.rejections) < KEPT_REJECTIONS:
            report.rejections.append(Rejection(str(self._path), line, reason))
        if self._rejected is not None:
            self._rejected.add(line, reason, text)
        if report.rejected >= 1_000 and report.rejected > report.ticks:
            self._refuse_damaged()

    def _block_ticks(self, converter: CsvConverter, block: bytes) -> NumberedTicks:
        first, lines = self._line, count_lines(block)
        self._line += lines
        parts = []
        for rows in converter.rows(block, first, lines):
            part, faults = self._converted(rows)
            if faults:
                part = self._without(part, faults, block, first)
            self._report.rows += len(part.numbers)
            parts.append(part)
        part = parts[0] if len(parts) == 1 else _join(parts)
        self._report.add_ticks(part.ticks)
        return part

    def _without(self, part: NumberedTicks, faults: Mapping[str, Mask], block: bytes, first: int) -> NumberedTicks:
        """The ticks without the invalid ones, which are rejected."""
        lines = block.split(b"\n")
        is_invalid = np.logical_or.reduce(list(faults.values()))
        for row in np.flatnonzero(is_invalid):
            number = int(part.numbers[row])
            reason = next(reason for reason, mask in faults.items() if mask[row])
            self._reject(number, reason, lines[number - first])
        return NumberedTicks(part.ticks[~is_invalid], part.numbers[~is_invalid])

    def _converted(self, rows: CsvRows) -> tuple[NumberedTicks, dict[str, Mask]]:
        """The rows as ticks, and the invalid ones by reason."""
        columns = _Columns(rows.columns, self._fields, self._report)
        time = columns.times("time")
        received = columns.times("received") if "received" in self._fields else time
        bid, ask = columns.numbers("best_bid"), columns.numbers("best_ask")
        is_quote = "price" not in self._fields
        price = (bid + ask) / 2 if is_quote else columns.numbers("price")
        products, product = self._products(columns, len(rows.numbers))
        ticks = Ticks(
            products=products,
            time=time,
            received=received,
            kind=np.full(len(time), Kind.TICKER if is_quote else Kind.TRADE, np.int8),
            product=product,
            price=price,
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
        for name in self._fields:
            is_required = (name in REQUIRED and name not in self._format.optional) or name in {"best_bid", "best_ask"}
            if is_required and (is_empty := columns.is_empty(name)) is not None:
                masks[self._at(name, "a value is missing")] = is_empty
        masks[self._at("time", "no time between 1990 and tomorrow")] = _outside(ticks.time, EARLIEST_NS, self._latest)
        if "received" in self._fields:
            masks[self._at("received", "no time after 1990")] = ticks.received < EARLIEST_NS
        masks["expected a finite price above 0"] = ~((ticks.price > 0.0) & (ticks.price < np.inf))
        for name in _NUMBERS_OF_0_OR_MORE & self._fields.keys():
            values, is_empty = getattr(ticks, name), columns.is_empty(name)
            is_beyond = ~((values >= 0.0) & (values < np.inf))
            is_invalid = is_beyond if is_empty is None else is_beyond & ~is_empty
            masks[self._at(name, "expected a finite number of 0 or more")] = is_invalid
        masks[self._at("trade_id", "expected an id of 0 or more")] = ticks.trade_id < MISSING_ID
        masks[self._at("side", "expected buy or sell")] = ticks.side == _UNKNOWN
        masks["the product is missing or has another form"] = ticks.product < 0
        return {reason: mask for reason, mask in masks.items() if mask.any()}

    def _at(self, name: str, text: str) -> str:
        return f"{self._fields.get(name, name)}: {text}"

    def _products(self, columns: _Columns, rows: int) -> tuple[tuple[str, ...], NDArray[np.int32]]:
        """The products and their indices, -1 where a row states none."""
        if self._product is not None:
            return (self._product,), np.zeros(rows, np.int32)
        symbols, symbol = columns.words("product_id")
        if "venue" in self._fields:
            venues, venue = columns.words("venue")
        else:
            venues, venue = [self._format.venue], np.zeros(rows, np.int32)
        pairs, pair = np.unique(symbol.astype(np.int64) * (len(venues) + 1) + venue, return_inverse=True)
        names, codes = list[str](), np.empty(len(pairs), np.int32)
        for place, number in enumerate(pairs.tolist()):
            at, of = divmod(number, len(venues) + 1)
            name = None if at < 0 or of == len(venues) else product_of_symbol(venues[of], symbols[at])
            if name is not None and name not in names:
                names.append(name)
            codes[place] = -1 if name is None else names.index(name)
        return tuple(names), codes[pair]


_NUMBERS_OF_0_OR_MORE: Final = frozenset({"last_size", "bid_size", "ask_size", "best_bid", "best_ask"})


def _outside(values: Integers, least: int, most: int) -> Mask:
    return (values < least) | (values > most)


def product_of_symbol(venue: str, symbol: str) -> str | None:
    """The canonical product of a symbol in the venue's spelling; None if it is none.

    >>> product_of_symbol("binance", "BTCUSDT"), product_of_symbol("coinbase", "btc/usd")
    ('binance:BTC-USDT', 'BTC-USD')
    """
    spelled = hyphenated(symbol.upper().replace("/", "-").replace("_", "-"))
    try:
        return canonical_product(product_name(venue.lower(), spelled))
    except VolspikeError:
        return None


class _Columns:
    """The columns of some rows by the fields of a tick; a field without a column is missing in every row."""

    def __init__(self, table: pa.Table, fields: Mapping[str, str], report: TradeFileReport) -> None:
        self._table = table
        self._fields = fields
        self._report = report

    def _column(self, name: str) -> pa.Array:
        column = self._table.column(self._fields[name])
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()

    def is_empty(self, name: str) -> Mask | None:
        """The rows without a value of a field that has a column; None if there are none."""
        column = self._column(name)
        return np.asarray(column.is_null().to_numpy(zero_copy_only=False)) if column.null_count else None

    def numbers(self, name: str) -> Floats:
        if name not in self._fields:
            return np.full(self._table.num_rows, np.nan)
        return np.asarray(self._column(name).to_numpy(zero_copy_only=False), np.float64)

    def ids(self) -> Integers:
        if "trade_id" not in self._fields:
            return np.full(self._table.num_rows, MISSING_ID, np.int64)
        column = self._column("trade_id")
        if column.type == INTEGER:
            return np.asarray(column.fill_null(MISSING_ID) if column.null_count else column)
        ids = np.array([read_identifier(value) for value in column.to_pylist()], np.int64)
        if (ids == MISSING_ID).any():
            self._report.add_note(UNREAD_IDS)
        return ids

    def sides(self) -> NDArray[np.int8]:
        """The taker's side; ``_UNKNOWN`` where the text is none."""
        if "buyer_is_maker" in self._fields:
            is_maker = self._column("buyer_is_maker").fill_null(False).to_numpy(zero_copy_only=False)
            return np.where(is_maker, np.int8(Side.SELL), np.int8(Side.BUY))
        if "side" not in self._fields:
            return np.full(self._table.num_rows, Side.UNKNOWN, np.int8)
        words, indices = self.words("side")
        sides = [side_of(word) for word in words]
        codes = [_UNKNOWN if side is None else int(side) for side in sides]
        return np.array([*codes, int(Side.UNKNOWN)], np.int8)[indices]

    def words(self, name: str) -> tuple[list[str], NDArray[np.int32]]:
        """The distinct texts of a column and the index of each row into them, -1 for an empty one."""
        column = self._column(name)
        indices = column.indices.fill_null(-1) if column.null_count else column.indices
        return column.dictionary.to_pylist(), np.asarray(indices)

    def times(self, name: str) -> Integers:
        """Nanoseconds UTC; ``NOT_A_TIME`` where there is none."""
        column, report = self._column(name), self._report
        if column.type == TEXT:
            times = _times_of(column.to_pylist())
            units = {"text"}
        else:
            is_whole = column.type == INTEGER
            whole = column if is_whole else pc.floor(column).cast(pa.int64(), safe=False)
            count = np.asarray(whole.fill_null(0) if whole.null_count else whole)
            times, factor, units = _in_nanoseconds(count)
            if not is_whole:
                low = np.frombuffer(column.buffers()[1], np.int64)[2 * column.offset :: 2][: len(column)]
                rest = low - count * SECOND_NS  # both modulo 2^64; the difference is below 10^9
                times += rest * factor // SECOND_NS
            if column.null_count:
                times = np.where(column.is_null().to_numpy(zero_copy_only=False), NOT_A_TIME, times)
        report.units.update(units)
        unit = ", ".join(sorted(units))
        report.columns[self._fields[name]] = f"{name}, {unit}"
        return times


_INT64_MAX: Final = 2**63 - 1
_UNITS: Final = ((10**11, SECOND_NS, "s"), (10**14, 1_000_000, "ms"), (10**17, 1_000, "µs"), (2**63, 1, "ns"))


def _in_nanoseconds(count: Integers) -> tuple[Integers, Integers | int, set[str]]:
    """Times in ns, the ns in the unit of each, which its size determines, and the names of the units that occur."""
    limits = [limit for limit, _, _ in _UNITS[:-1]]
    size = np.abs(count)
    bounds = np.searchsorted(limits, [size.min(), size.max()], side="right").tolist()
    if bounds[0] == bounds[1]:
        _, factor, unit = _UNITS[bounds[0]]
        times = count * factor
        if size.max() > _INT64_MAX // factor:
            times[size > _INT64_MAX // factor] = NOT_A_TIME
        return times, factor, {unit}
    places = np.searchsorted(limits, size, side="right")
    factors = np.array([factor for _, factor, _ in _UNITS], np.int64)[places]
    times = np.where(size > _INT64_MAX // factors, NOT_A_TIME, count * factors)
    return times, factors, {_UNITS[place][2] for place in np.unique(places).tolist()}


def _times_of(texts: Sequence[str | None]) -> Integers:
    times = parse_times([text or "" for text in texts])
    for place in np.flatnonzero(times == NOT_A_TIME).tolist():
        text = texts[place]
        try:
            times[place] = NOT_A_TIME if text is None else read_instant(text.strip(), "$")
        except (MalformedTick, OverflowError):
            continue
    return times


def _may_hold(name: str, value: str) -> bool:
    """Whether a value may be that of a field, to find the layout of a file without a header."""
    if name == _UNREAD:
        return True
    if name == "buyer_is_maker":
        return value in {"True", "False", "true", "false", "TRUE", "FALSE"}
    if name == "side":
        return bool(value) and side_of(value) is not None
    try:
        number = float(value)
    except ValueError:
        return False
    if name == "trade_id":
        return value.isdecimal()
    return number >= EARLIEST_NS / SECOND_NS if name == "time" else number >= 0.0


def _join(parts: Sequence[NumberedTicks]) -> NumberedTicks:
    numbers = [np.empty(0, np.int64), *(part.numbers for part in parts)]
    return NumberedTicks(Ticks.join([part.ticks for part in parts]), np.concatenate(numbers))
