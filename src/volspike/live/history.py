"""The past of a product as bars, for the chart: the last day from memory, earlier times from tape and predictions.

Earlier prices are read from the tapes of the recorder's folder, earlier probabilities from the outcome database, both
in a thread; the bars of tapes are cached.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import structlog

from volspike.errors import DataError, UsageError
from volspike.live.bars import CLOCK_STEP_S, DAY_S, Bars, SecondBars, tick_bars
from volspike.market import SECOND_NS, Gap
from volspike.market.time import MILLISECOND_NS
from volspike.monitoring.outcome_database import AlertEntry, StoredRange
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape import TapeReport, read_ticks
from volspike.tape.ledger import read_ledger
from volspike.tape.names import HOUR_NS, drop_replaced, read_hour_name, symbol_of, venue_of, with_venue
from volspike.tape.parquet import row_group_ticks
from volspike.tape.table import METADATA_KEY

STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
LONGEST_RANGE_S: Final = 31 * DAY_S
USUAL_RANGE_S: Final = 2 * 3600
FEWEST_POINTS, USUAL_POINTS, MOST_POINTS = 10, 1200, 3000
MOST_ALERTS: Final = 2000
"""Stored alerts of one range."""
CACHED_BARS: Final = 31 * DAY_S
"""One-second bars of tapes in memory, with 48 bytes each."""

_ALL: Final = -1

T = TypeVar("T")

log = structlog.get_logger(__name__)


class _ImportedTape(NamedTuple):
    """A Parquet tape of any length: its products, and the first and last Unix second of each of its row groups."""

    products: tuple[str, ...]
    groups: list[tuple[int, int]]


class TapeBars:
    """The one-second bars of a folder of tapes, by file and product; those used last are cached.

    The folder has the recorder's files of an hour, and may have Parquet tapes that were imported or downloaded, of
    which only the row groups of a range are read. Seconds that the recorder has are not taken from these. Only files of
    real markets, or only those of simulated ones, are read: a folder may hold both.
    """

    def __init__(self, folder: Path, *, simulated: bool = False, cached_bars: int = CACHED_BARS) -> None:
        self._folder, self._simulated, self._limit = folder, simulated, cached_bars
        self._cache: OrderedDict[tuple[Path, int, str], tuple[tuple[int, int], Bars]] = OrderedDict()
        self._cached = 0
        self._imports: dict[Path, tuple[tuple[int, int], _ImportedTape]] = {}

    def first_second(self, product: str) -> int | None:
        """The second in which a product's oldest file begins, or its hour if its name has no more; None without one."""
        firsts = [group[0] for _, tape in self._imported(product) for group in tape.groups]
        if files := self._files(product):
            path, hour = min(files, key=lambda file: file[1])
            name = read_hour_name(path)
            start = "" if name is None else name.start
            firsts.append(hour + (60 * int(start[:2]) + int(start[2:]) if start else 0))
        return min(firsts, default=None)

    def between(self, product: str, first: int, last: int, step_s: int) -> Bars:
        """The bars of ``step_s`` seconds, a divisor of an hour, that begin from ``first`` to ``last``, excluded."""
        hour_s = HOUR_NS // SECOND_NS
        files = [path for path, hour in self._files(product) if hour < last and hour + hour_s + CLOCK_STEP_S > first]
        recorded = [self._bars(path, product).between(first, last) for path in drop_replaced(files)]
        parts = [bars.grouped(step_s) for bars in recorded]
        known = [bars.second for bars in recorded]
        for path, tape in self._imported(product):
            groups = [number for number, group in enumerate(tape.groups) if group[0] < last and group[1] >= first]
            if groups:
                bars = Bars.joined([self._bars(path, product, group) for group in groups]).grouped(1)
                bars = bars.between(first, last).without(np.concatenate([np.empty(0, np.int64), *known]))
                known.append(bars.second)
                parts.append(bars.grouped(step_s))
        return Bars.joined(parts).grouped(step_s)

    def gaps(self) -> list[Gap]:
        """The gaps of the folder's ledger; none if it cannot be read."""
        try:
            return read_ledger(self._folder).gaps
        except DataError as error:
            log.warning("history_without_gaps", reason=str(error))
            return []

    def _files(self, product: str) -> list[tuple[Path, int]]:
        """The recorder's files of a product, each with the Unix second in which its hour begins."""
        found = []
        for path in sorted(self._folder.glob(f"ticks_{symbol_of(product)}_*")):
            name = read_hour_name(path)
            if name is not None and name.symbol == symbol_of(product):
                hour = datetime.strptime(name.hour, "%Y%m%d_%H").replace(tzinfo=UTC)
                found.append((path, int(hour.timestamp())))
        return found

    def _imported(self, product: str) -> list[tuple[Path, _ImportedTape]]:
        """The other Parquet tapes with ticks of a product; files of other programs are left out."""
        found = []
        for path in sorted(self._folder.glob("*.parquet")):
            version = None if read_hour_name(path) is not None else _version(path)
            if version is None:
                continue
            known = self._imports.get(path)
            if known is None or known[0] != version:
                known = self._imports[path] = version, _imported_tape(path, simulated=self._simulated)
            if product in known[1].products:
                found.append((path, known[1]))
        return found

    def _bars(self, path: Path, product: str, group: int = _ALL) -> Bars:
        """The bars of a file, or of one of its row groups."""
        version = _version(path)
        if version is None:
            return Bars.empty()  # compacted or deleted meanwhile
        key = (path, group, product)
        known = self._cache.pop(key, None)
        if known is not None:
            self._cached -= len(known[1])
        if known is None or known[0] != version:
            known = version, self._read(path, product, group).prices()
        self._cache[key] = known
        self._cached += len(known[1])
        while self._cached > self._limit and len(self._cache) > 1:
            _, (_, oldest) = self._cache.popitem(last=False)
            self._cached -= len(oldest)
        return known[1].complete()

    def _read(self, path: Path, product: str, group: int) -> Bars:
        parts, report = [], TapeReport()
        try:
            if group != _ALL:
                with pq.ParquetFile(path) as file:
                    ticks = row_group_ticks(file, group)
                return tick_bars(replace(ticks, products=with_venue(ticks.products, venue_of(path))), product)
            parts = [tick_bars(ticks, product) for ticks in read_ticks([path], keep_rejected=False, report=report)]
        except (DataError, UsageError, pa.ArrowException, OSError) as error:  # a damaged file: the others are shown
            log.warning("history_file_unreadable", file=str(path), reason=str(error))
        return Bars.joined(parts if report.simulated == self._simulated else []).grouped(1)


def _version(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _imported_tape(path: Path, *, simulated: bool) -> _ImportedTape:
    """The content of a Parquet tape that volspike wrote, without a product for any other file."""
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            facts = json.loads((metadata.metadata or {}).get(METADATA_KEY, b"{}"))
            if facts.get("simulated") is not simulated:
                return _ImportedTape((), [])
            column = file.schema_arrow.get_field_index("time")
            times = [metadata.row_group(number).column(column).statistics for number in range(metadata.num_row_groups)]
            groups = [(each.min_raw // SECOND_NS, each.max_raw // SECOND_NS) for each in times]
            names: dict[str, None] = {}
            for batch in file.iter_batches(columns=["product_id"], use_threads=False):
                names |= dict.fromkeys(pc.unique(batch.column(0)).to_pylist())
    except (pa.ArrowException, OSError, ValueError, KeyError, AttributeError) as error:
        log.warning("history_file_unreadable", file=str(path), reason=str(error))
        return _ImportedTape((), [])
    return _ImportedTape(with_venue(tuple(names), venue_of(path)), groups)


@dataclass(frozen=True, slots=True)
class HistoryRange:
    """A requested range in ms UTC, and the step of its bars in seconds."""

    start: int
    end: int
    step_s: int

    @classmethod
    def of(cls, query: Mapping[str, str], newest_ms: int) -> HistoryRange:
        """The range of a request; by default the two hours before the newest row.

        Raises:
            UsageError: a number that is none or out of range, or a range that is empty or too long.
        """
        end = _number(query, "to", newest_ms + 1)
        start = _number(query, "from", end - 1000 * USUAL_RANGE_S)
        points = _number(query, "points", USUAL_POINTS)
        if not FEWEST_POINTS <= points <= MOST_POINTS:
            raise UsageError(f"points must be from {FEWEST_POINTS} to {MOST_POINTS}, was {points}")
        if not 0 <= start < end:
            raise UsageError(f"from must be before to, both in ms since 1970, were {start} and {end}")
        if end - start > 1000 * LONGEST_RANGE_S or end > 2**53:
            raise UsageError(f"a range has at most {LONGEST_RANGE_S // DAY_S} days, was {start} to {end}")
        wanted = (end - start) / 1000 / points
        return cls(start, end, next((step for step in STEPS_S if step >= wanted), STEPS_S[-1]))

    def overlaps(self, start: int, end: int | None) -> bool:
        """Whether a span in ms, which lasts if it has no end, overlaps the range."""
        return start < self.end and (end is None or end >= self.start)


@dataclass(frozen=True, slots=True)
class History:
    """The bars, spikes, stored alerts and recorded gaps of a range.

    ``earliest`` is the oldest second with data, None without one.
    """

    product: str
    range: HistoryRange
    earliest: int | None
    bars: Bars
    spikes: list[dict[str, Any]]
    alerts: list[AlertEntry]
    gaps: list[Gap]

    def fields(self) -> dict[str, Any]:
        """Everything but alerts and gaps as JSON values; times in ms."""
        return {
            "product": self.product,
            "from": self.range.start,
            "to": self.range.end,
            "step_ms": 1000 * self.range.step_s,
            "earliest": None if self.earliest is None else 1000 * self.earliest,
            **self.bars.columns(),
            "spikes": self.spikes,
        }


async def read_history(
    product: str,
    wanted: HistoryRange,
    memory: SecondBars,
    spikes: Sequence[tuple[int, float]],
    stored: StoredHistory,
) -> History:
    """A range of a product: what is in memory, and before it what is stored, which is read in a thread.

    ``spikes`` are the rows in memory that a spike followed, as second and volatility.
    """
    step, last = wanted.step_s, -(-wanted.end // 1000)
    first = wanted.start // 1000 // step * step
    known_from = memory.first_second
    recent = memory.between(first, last)  # a copy, made here since the event loop adds to the memory
    seam = last if known_from is None else min(max(known_from, first), last)

    def read() -> History:
        past = stored.predictions(product, first, seam, step)
        bars = Bars.joined([stored.bars(product, first, seam, step, past), recent.grouped(step)]).grouped(step)
        rows = (
            [] if past is None else list(zip(past.spike_second.tolist(), past.spike_volatility.tolist(), strict=True))
        )
        rows += [row for row in spikes if max(first, seam) <= row[0] < last]
        spans = spike_spans([second for second, _ in rows], [value for _, value in rows], stored.horizon_s)
        begins = [second for second in (known_from, stored.first_second(product)) if second is not None]
        alerts = stored.alerts(product, wanted)
        return History(product, wanted, min(begins, default=None), bars, spans, alerts, stored.gaps())

    return await asyncio.to_thread(read)


def _number(query: Mapping[str, str], name: str, usual: int) -> int:
    text = query.get(name)
    if text is None:
        return usual
    if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and len(text) <= 17):
        raise UsageError(f"{name} must be an integer, was {text[:40]!r}")
    return int(text)


class StoredHistory:
    """The past of all products before this process: tape and outcomes; either may be missing. Reads block."""

    def __init__(self, tape: Path | None, outcomes: OutcomeStore | None, *, simulated: bool, horizon_s: int) -> None:
        self._tape = None if tape is None else TapeBars(tape, simulated=simulated)
        self._outcomes, self._simulated, self.horizon_s = outcomes, simulated, horizon_s
        self._lock = threading.Lock()  # one reader at a time: a slow disk is not read by many threads

    def first_second(self, product: str) -> int | None:
        """The oldest second of a product that may be stored; None if there is none."""
        with self._lock:
            tape = None if self._tape is None else self._tape.first_second(product)
        stored = self._ask(lambda outcomes: outcomes.first_second(product, simulated=self._simulated), None)
        return min((each for each in (tape, stored) if each is not None), default=None)

    def bars(self, product: str, first: int, last: int, step_s: int, scores: StoredRange | None) -> Bars:
        """The stored bars that begin from ``first`` to ``last``, excluded; ``scores`` are the predictions of them."""
        if first >= last:
            return Bars.empty()
        with self._lock:
            parts = [] if self._tape is None else [self._tape.between(product, first, last, step_s)]
        if scores is not None and len(scores.second):
            parts.append(Bars.of_scores(scores.second, scores.probability, scores.threshold))
        return Bars.joined(parts).grouped(step_s)

    def predictions(self, product: str, first: int, last: int, step_s: int) -> StoredRange | None:
        """The stored probabilities and spikes of a range; None if they cannot be read."""
        if first >= last:
            return None
        return self._ask(lambda outcomes: outcomes.range(product, first, last, step_s, simulated=self._simulated), None)

    def alerts(self, product: str, wanted: HistoryRange) -> list[AlertEntry]:
        """The stored alerts of a range, the newest ``MOST_ALERTS``; none if they cannot be read."""
        span = wanted.start * MILLISECOND_NS, wanted.end * MILLISECOND_NS
        return self._ask(
            lambda outcomes: outcomes.alerts(simulated=self._simulated, limit=MOST_ALERTS, product=product, span=span),
            list[AlertEntry](),
        )

    def _ask(self, ask: Callable[[OutcomeStore], T], missing: T) -> T:
        """An answer of the outcomes; ``missing`` without them, or while their file cannot be read."""
        if self._outcomes is None:
            return missing
        with self._lock:
            try:
                return ask(self._outcomes)
            except DataError as error:
                log.warning("history_without_outcomes", reason=str(error))
                return missing

    def gaps(self) -> list[Gap]:
        """The gaps of the tape's ledger."""
        return [] if self._tape is None else self._tape.gaps()


def spike_spans(second: Iterable[int], volatility: Iterable[float], horizon_s: int) -> list[dict[str, Any]]:
    """Spike events from spike rows in order of time, as the chart shows them; joined where less than a horizon apart.

    ``first`` and ``last`` are the times in ms of the first and last row that a spike follows within the horizon. The
    spike itself begins one horizon after the first of them (``start``), which completes its horizon, and ends with
    the last (``end``). ``peak_bp`` is the highest volatility over the horizon.
    """
    spans: list[dict[str, Any]] = []
    last = None
    for each, value in zip(second, volatility, strict=True):
        peak = 1e4 * value * horizon_s**0.5 if isfinite(value) else None
        if last is not None and each - last < horizon_s:
            span = spans[-1]
            span["last"] = 1000 * (each + 1)
            span["end"] = max(span["last"], span["end"])
            span["peak_bp"] = max((p for p in (span["peak_bp"], peak) if p is not None), default=None)
        else:
            row, start = 1000 * (each + 1), 1000 * (each + 1 + horizon_s)
            spans.append({"first": row, "last": row, "start": start, "end": start + 1000, "peak_bp": peak})
        last = each
    return spans


def gap_spans(gaps: Iterable[Gap], product: str, asked: HistoryRange) -> list[dict[str, Any]]:
    """The known losses of a product that overlap a range, without duplicates, in order of time."""
    start, end = asked.start * MILLISECOND_NS, asked.end * MILLISECOND_NS
    found = {
        (gap.start, gap.end, str(gap.cause))
        for gap in gaps
        if gap.verifiable and product in gap.products and gap.end >= start and gap.start < end
    }
    return [
        {"start": first // MILLISECOND_NS, "end": last // MILLISECOND_NS, "cause": cause}
        for first, last, cause in sorted(found)
    ]
