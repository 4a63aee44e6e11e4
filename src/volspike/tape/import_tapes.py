"""Files of exchanges and other programs → Parquet tapes, in constant memory.

Each file becomes one tape in time order. A file that is newest first is reversed and one without an order is sorted, by
way of a first tape on disk. Missing trade ids become gaps of the folder's ledger. A file that has been imported with
the same options is not imported again.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from volspike.errors import UnreadableFile, UsageError
from volspike.market import SECOND_NS, Cause, Gap, Ticks
from volspike.market.product import canonical_product
from volspike.tape.chronology import TapeZone, localized, zone_of
from volspike.tape.file_formats import CSV, FORMATS, LATEST_AHEAD_NS
from volspike.tape.foreign_columns import TradeFileReport
from volspike.tape.foreign_files import read_foreign
from volspike.tape.foreign_sources import ForeignSource, Recognition, recognize, sources_of_file
from volspike.tape.ledger import Ledger, read_ledger
from volspike.tape.parquet import ROW_GROUP, ParquetTape, row_group_ticks
from volspike.tape.report import NumberedTicks, RejectedLines
from volspike.tape.tick_statistics import TickOrder, TickRate, TradeIdCheck, latest_ticks, without_duplicates

IMPORT_KEY: Final = b"volspike_import"

_SORTED_ROWS: Final = 1 << 20
_MINUTE_NS: Final = 60 * SECOND_NS

COLUMN_FIELDS: Final = {
    "time": "time",
    "received": "received",
    "price": "price",
    "size": "last_size",
    "side": "side",
    "buyer_is_maker": "buyer_is_maker",
    "id": "trade_id",
    "bid": "best_bid",
    "ask": "best_ask",
    "bid_size": "bid_size",
    "ask_size": "ask_size",
    "product": "product_id",
    "venue": "venue",
}
"""The names in ``--columns`` and the fields of a tick that they are."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """The options of an import; None or ``auto``: by the file."""

    file_format: str = "auto"
    product_id: str | None = None
    columns: Mapping[str, str] | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class ImportedProduct:
    """The figures of one product of a file; ``missing`` is None where no missing trade could be noticed."""

    product_id: str
    ticks: int
    first: int
    last: int
    missing: int | None
    median_per_second: float
    active_share: float


@dataclass(slots=True)
class ImportedFile:
    """One imported file: its tape, and how it was read. ``report`` is None if it is already there."""

    source: ForeignSource
    tape: Path
    format_name: str
    report: TradeFileReport | None = None
    products: list[ImportedProduct] = field(default_factory=list)
    duplicates: int = 0
    gaps: list[Gap] = field(default_factory=list)
    order: str = ""
    rejected_file: Path | None = None


def read_columns(texts: Sequence[str]) -> dict[str, str]:
    """The columns that ``--columns`` names, by field.

    >>> read_columns(["time=ts,price=p", "size=3"])
    {'time': 'ts', 'price': 'p', 'last_size': '3'}

    Raises:
        UsageError: a part has another form, an unknown field or one named before; or time or price are missing.
    """
    found: dict[str, str] = {}
    for part in ",".join(texts).split(","):
        name, equals, column = part.strip().partition("=")
        tick_field = COLUMN_FIELDS.get(name.strip())
        if not equals or not column.strip() or tick_field is None:
            raise UsageError(
                f"--columns {part.strip()!r}: write FIELD=COLUMN, FIELD one of {', '.join(COLUMN_FIELDS)}, and COLUMN "
                "a name of the header or a number from 1"
            )
        if tick_field in found:
            raise UsageError(f"--columns: {name} is named twice")
        found[tick_field] = column.strip()
    if "time" not in found or not ("price" in found or {"best_bid", "best_ask"} <= found.keys()):
        raise UsageError("--columns must name at least time=… and price=…, or time=…, bid=… and ask=…")
    return found


def import_files(
    paths: Sequence[Path],
    folder: Path,
    options: ImportOptions = ImportOptions(),
    *,
    clock: Callable[[], int] = time.time_ns,
    on_progress: Callable[[ForeignSource, int], object] = lambda *_: None,
) -> Iterator[ImportedFile]:
    """Imports each file into ``folder`` and yields its result.

    ``on_progress`` receives a source and the bytes of it that have been read. ``clock`` is our time in ns UTC.

    Raises:
        UsageError: an option is invalid, or the folder cannot be written.
        UnreadableFile: a file is of no known format, its product is unknown, or most of its rows are damaged.
    """
    if options.product_id is not None:
        canonical_product(options.product_id)
    if options.timezone is not None:
        zone_of(options.timezone)
    if options.columns is not None and options.file_format not in {"auto", CSV.name}:
        raise UsageError(f"--columns describes files of the format csv: remove --format {options.file_format}")
    if options.file_format != "auto" and options.file_format not in FORMATS:
        raise UsageError(f"--format {options.file_format}: unknown; choose one of auto, {', '.join(FORMATS)}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {folder}: cannot be written ({error.strerror or error})") from error
    claimed: set[Path] = set()
    for path in paths:
        sources = sources_of_file(path)
        for number, source in enumerate(sources):
            name = _stem(source.member if len(sources) > 1 else path.name)
            yield _Import(source, folder, name, options, clock, on_progress, claimed, appends=number > 0).run()


def _stem(name: str) -> str:
    """The name of a tape from that of a file: without its endings."""
    stem = Path(name).name.lstrip(".")
    return re.sub(r"(?:\.(?:zip|gz|zst|bz2|xz|csv|tsv|txt|jsonl|ndjson|json|parquet))+$", "", stem, flags=re.IGNORECASE)


class _Import:
    """One file being imported."""

    def __init__(
        self,
        source: ForeignSource,
        folder: Path,
        name: str,
        options: ImportOptions,
        clock: Callable[[], int],
        on_progress: Callable[[ForeignSource, int], object],
        claimed: set[Path],
        *,
        appends: bool,
    ) -> None:
        self._source = source
        self._folder = folder
        self._options = options
        self._clock = clock
        self._on_progress = on_progress
        self._appends = appends
        self._facts = self._facts_of_source()
        self._tape, self._is_there = self._target(name, claimed)
        claimed.add(self._tape)

    def _facts_of_source(self) -> dict[str, Any]:
        """The facts that identify the import: the content of the file and the options."""
        try:
            with self._source.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise UnreadableFile(self._source.path, f"cannot be opened ({error.strerror or error})") from error
        return {
            "file": self._source.path.name,
            "member": self._source.member,
            "sha256": digest,
            "options": asdict(self._options),
            "folder": hashlib.sha256(str(self._source.path.resolve().parent).encode()).hexdigest()[:16],
        }

    def _target(self, name: str, claimed: set[Path]) -> tuple[Path, bool]:
        """The tape of the file, and whether it is there.

        A tape of the same file with other content or options is replaced. One of another file keeps its name.
        """
        number = 1
        while True:
            path = self._folder / f"{name}{'' if number == 1 else f'_{number}'}.parquet"
            number += 1
            if not path.exists() and path not in claimed:
                return path, False
            facts = imported_facts(path)
            if facts is None or path in claimed or facts.get("member") != self._facts["member"]:
                continue
            if facts.get("sha256") == self._facts["sha256"]:
                return path, facts.get("options") == self._facts["options"]
            if facts.get("file") == self._facts["file"] and facts.get("folder") == self._facts["folder"]:
                return path, False

    def run(self) -> ImportedFile:
        """Imports the file, or reports that it is there."""
        has_columns = self._options.columns is not None
        recognition = recognize(self._source, self._options.file_format, has_columns=has_columns)
        result = ImportedFile(self._source, self._tape, recognition.file_format.name)
        if self._is_there:
            return result
        report = result.report = TradeFileReport()
        rejected = RejectedLines(self._source.path, appends=self._appends)
        first = self._tape.with_name(self._tape.name + ".unordered")
        order = TickOrder()
        try:
            figures = _Figures(recognition)
            with ParquetTape(first) as tape:
                for part in self._parts(recognition, report, rejected):
                    order.add(part)
                    _write(tape, figures.checked(part))
                tape.metadata = self._metadata(recognition, report)
            self._use(first, order, figures, recognition, result)
            result.rejected_file = rejected.keep()
        finally:
            rejected.discard()
            first.unlink(missing_ok=True)
        if rejected.fault is not None:
            report.add_note(rejected.fault)
        self._write_gaps(result)
        return result

    def _metadata(self, recognition: Recognition, report: TradeFileReport | None) -> dict[bytes, bytes]:
        unit = "" if report is None else report.size_unit
        facts = self._facts | {"format": recognition.file_format.name, "size_unit": unit or "base currency"}
        return {IMPORT_KEY: json.dumps(facts).encode()}

    def _parts(self, recognition: Recognition, report: TradeFileReport, rejected: RejectedLines) -> Iterator[Ticks]:
        zone = TapeZone()
        options = self._options
        parts: Iterable[NumberedTicks] = read_foreign(
            self._source,
            recognition,
            None if options.product_id is None else canonical_product(options.product_id),
            report,
            rejected,
            latest=self._clock() + LATEST_AHEAD_NS,
            columns=options.columns,
            clock=zone,
        )
        if options.timezone is not None:
            parts = localized(parts, zone, zone_of(options.timezone))
        for part in parts:
            self._on_progress(self._source, report.bytes_read)
            yield part.ticks
        if zone.naive_time and options.timezone is None:
            report.add_note("times without a zone are read as UTC; if they are local, use --timezone")

    def _use(
        self, first: Path, order: TickOrder, figures: _Figures, recognition: Recognition, result: ImportedFile
    ) -> None:
        """Gives the tape its name; it is written again if its ticks are in another order."""
        if order.is_ascending:
            first.replace(self._tape)
        else:
            figures = _Figures(recognition)
            result.order = "newest first, so it was reversed" if order.is_newest_first else "unsorted, so it was sorted"
            ordered = _reversed(first) if order.is_newest_first else _sorted(first)
            with ParquetTape(self._tape) as tape:
                for part in ordered:
                    _write(tape, figures.checked(part))
                tape.metadata = self._metadata(recognition, result.report)
        result.duplicates = figures.duplicates
        result.products = figures.products()
        result.gaps = figures.gaps()

    def _write_gaps(self, result: ImportedFile) -> None:
        known = read_ledger(self._folder)
        ledger = Ledger(self._folder)
        for gap in result.gaps:
            is_known = any(
                span.start <= gap.start and gap.end <= span.end and set(gap.products) <= set(span.products)
                for span in known.unverifiable
            )
            if not (gap in known.gaps if gap.verifiable else is_known):
                ledger.add(gap)
        if not ledger.flush():
            raise UsageError(f"{ledger.fault}: the gaps of {result.tape.name} could not be written")


def _write(tape: ParquetTape, ticks: Ticks) -> None:
    """Writes ticks, unless there are none: a row group without rows has no bounds."""
    if len(ticks):
        tape.write(ticks)


def imported_facts(path: Path) -> dict[str, Any] | None:
    """The file and the options from which a tape was imported; None if it was not, or cannot be read."""
    try:
        text = (pq.read_metadata(path).metadata or {}).get(IMPORT_KEY)
        facts = None if text is None else json.loads(text)
    except (pa.ArrowException, OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


class _Figures:
    """The figures of the products of one file, collected as its ticks pass in their final order."""

    def __init__(self, recognition: Recognition) -> None:
        self.duplicates = 0
        self._is_consecutive = True if recognition.file_format.has_consecutive_ids else None
        self._ids: dict[str, TradeIdCheck] = {}
        self._rates: dict[str, TickRate] = {}
        self._before: Ticks | None = None

    def checked(self, ticks: Ticks) -> Ticks:
        """The ticks without duplicates."""
        ticks, duplicates = without_duplicates(ticks, self._before)
        self.duplicates += duplicates
        if len(ticks):
            self._before = latest_ticks(ticks)
        for code, name in enumerate(ticks.products):
            rows: slice | NDArray[np.bool_] = slice(None) if len(ticks.products) == 1 else ticks.product == code
            times = ticks.time[rows]
            if len(times):
                self._rates.setdefault(name, TickRate()).add(times)
                check = self._ids.setdefault(name, TradeIdCheck(name, self._is_consecutive))
                check.add(ticks.trade_id[rows], ticks.received[rows])
        return ticks

    def products(self) -> list[ImportedProduct]:
        """The figures of each product, in the order of their first ticks."""
        return [
            ImportedProduct(
                product_id=name,
                ticks=rate.ticks,
                first=rate.first,
                last=rate.last,
                missing=self._ids[name].missing if self._ids[name].is_verifiable else None,
                median_per_second=rate.median,
                active_share=rate.active_share,
            )
            for name, rate in self._rates.items()
        ]

    def gaps(self) -> list[Gap]:
        """The missing trade ids of all products, and the spans in which a missing trade could not be noticed."""
        gaps = [gap for check in self._ids.values() for gap in check.gaps()]
        return gaps + [
            Gap(
                start=rate.first,
                end=rate.last,
                products=(name,),
                cause=Cause.UNVERIFIABLE,
                detail="the file has no consecutive trade ids",
                verifiable=False,
            )
            for name, rate in self._rates.items()
            if not self._ids[name].is_verifiable
        ]


def _reversed(path: Path) -> Iterator[Ticks]:
    """The ticks of a Parquet tape from its end."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for group in range(file.num_row_groups - 1, -1, -1):
            yield row_group_ticks(file, group)[::-1]


def _sorted(path: Path) -> Iterator[Ticks]:
    """The ticks of a Parquet tape by their time of receipt, those of the same time in the order of the tape.

    Each pass over the tape takes the next span of time, of about a million ticks, from the row groups that have some.
    """
    with pq.ParquetFile(path, pre_buffer=False) as file:
        bounds = _bounds(file)
        minutes: dict[int, int] = {}
        for group in range(file.num_row_groups):
            times = _received(file, group)
            for minute, count in zip(*np.unique(times // _MINUTE_NS, return_counts=True), strict=True):
                minutes[int(minute)] = minutes.get(int(minute), 0) + int(count)
        for start, end in _spans(minutes):
            parts = []
            for group, (least, most) in enumerate(bounds):
                if least >= end or most < start:
                    continue
                times = _received(file, group)
                is_inside = (times >= start) & (times < end)
                if is_inside.any():
                    parts.append(row_group_ticks(file, group)[is_inside])
            ticks = Ticks.join(parts)
            ordered = ticks[np.argsort(ticks.received, kind="stable")]
            for place in range(0, len(ordered), ROW_GROUP):
                yield ordered[place : place + ROW_GROUP]


def _spans(minutes: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Spans of time (ns) of up to about ``_SORTED_ROWS`` ticks."""
    start, count, last = None, 0, 0
    for minute in sorted(minutes):
        if start is not None and count + minutes[minute] > _SORTED_ROWS:
            yield start * _MINUTE_NS, minute * _MINUTE_NS
            start, count = None, 0
        start = minute if start is None else start
        count += minutes[minute]
        last = minute
    if start is not None:
        yield start * _MINUTE_NS, (last + 1) * _MINUTE_NS


def _bounds(file: pq.ParquetFile) -> list[tuple[int, int]]:
    """The least and the greatest time of receipt of each row group."""
    bounds = []
    for group in range(file.num_row_groups):
        times = _received(file, group)
        bounds.append((int(times.min()), int(times.max())))
    return bounds


def _received(file: pq.ParquetFile, group: int) -> NDArray[np.int64]:
    column = file.read_row_group(group, columns=["received"], use_threads=False).column(0)
    return np.asarray(column.cast(pa.int64()).combine_chunks().to_numpy())
