"""The past of a product as bars, for the chart: the last day from memory, earlier times from tape and predictions.

A bar covers a round number of seconds. Bars of one second are kept in memory, with constant work per row and bounded
size. Earlier prices are read from the recorder's files, earlier probabilities from the outcome database, both in a
thread; the bars of an hour's file are cached.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from volspike.errors import DataError, UsageError
from volspike.market import SECOND_NS, Gap, Ticks
from volspike.market.time import MILLISECOND_NS
from volspike.monitoring.outcome_database import StoredRange
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape import TapeReport, read_ticks
from volspike.tape.ledger import read_ledger
from volspike.tape.names import HOUR_NS, drop_replaced, read_hour_name, symbol_of

STEPS_S: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
COLUMNS: Final = (
    *("open", "high", "low", "close", "spread_bps", "probability", "threshold"),
    *("expected_bp", "low_bp", "high_bp"),
)
DAY_S: Final = 86_400
LONGEST_RANGE_S: Final = 31 * DAY_S
USUAL_RANGE_S: Final = 2 * 3600
FEWEST_POINTS, USUAL_POINTS, MOST_POINTS = 10, 1200, 3000
CACHED_HOURS: Final = 24 * 31
CLOCK_STEP_S: Final = 300
"""A row this much earlier than the newest begins a new history, as on the next of several tapes."""

_OPEN, _HIGH, _LOW, _CLOSE, _SPREAD, _PROBABILITY, _THRESHOLD = range(7)
_FIRST_ROWS: Final = 1024

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Bars:
    """n bars: ``second`` (n,) is the Unix second that each begins with, ``values`` (n, ``COLUMNS``), NaN: unknown."""

    second: NDArray[np.int64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.second)

    @classmethod
    def empty(cls) -> Bars:
        """No bar."""
        return cls(np.empty(0, np.int64), np.empty((0, len(COLUMNS))))

    @classmethod
    def joined(cls, parts: Sequence[Bars]) -> Bars:
        """The bars of several parts in order of time, with equal times next to each other."""
        if not parts:
            return cls.empty()
        second = np.concatenate([part.second for part in parts])
        order = np.argsort(second, kind="stable")
        return cls(second[order], np.concatenate([part.values for part in parts])[order])

    def grouped(self, step_s: int) -> Bars:
        """Longer bars: first open, highest high, lowest low, last close, mean spread, highest probability.

        Threshold and expected move are the last known ones. Times without a bar have none here either.
        """
        if len(self) == 0:
            return self
        key = self.second // step_s
        first = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
        values = np.empty((len(first), len(COLUMNS)))
        values[:, _OPEN] = _first_known(self.values[:, _OPEN], first)
        values[:, _HIGH] = np.fmax.reduceat(self.values[:, _HIGH], first)
        values[:, _LOW] = np.fmin.reduceat(self.values[:, _LOW], first)
        values[:, _SPREAD] = _mean_known(self.values[:, _SPREAD], first)
        values[:, _PROBABILITY] = np.fmax.reduceat(self.values[:, _PROBABILITY], first)
        for column in (_CLOSE, *range(_THRESHOLD, len(COLUMNS))):
            values[:, column] = _last_known(self.values[:, column], first)
        return Bars(key[first] * step_s, values)

    def columns(self) -> dict[str, list[float | None]]:
        """The values by name, None where unknown, and ``time`` in ms."""
        lists: dict[str, list[Any]] = {"time": (1000 * self.second).tolist()}
        for number, name in enumerate(COLUMNS):
            lists[name] = [value if isfinite(value) else None for value in self.values[:, number].tolist()]
        return lists


def _mean_known(values: NDArray[np.float64], first: NDArray[np.intp]) -> NDArray[np.float64]:
    is_known = ~np.isnan(values)
    count = np.add.reduceat(is_known, first, dtype=np.int64)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.add.reduceat(np.where(is_known, values, 0.0), first) / count)


def _last_known(values: NDArray[np.float64], first: NDArray[np.intp]) -> NDArray[np.float64]:
    place = np.where(np.isnan(values), -1, np.arange(len(values)))
    last = np.maximum.reduceat(place, first)
    return np.where(last >= 0, values[last], nan)


def _first_known(values: NDArray[np.float64], first: NDArray[np.intp]) -> NDArray[np.float64]:
    place = np.where(np.isnan(values), len(values), np.arange(len(values)))
    found = np.minimum.reduceat(place, first)
    return np.where(found < len(values), values[np.minimum(found, len(values) - 1)], nan)


class SecondBars:
    """The one-second bars of the last ``seconds`` seconds with a row."""

    def __init__(self, seconds: int = DAY_S) -> None:
        self._limit = seconds
        self._second = np.empty(min(_FIRST_ROWS, seconds), np.int64)
        self._values = np.empty((len(self._second), len(COLUMNS)))
        self._count = 0
        self._next = 0
        self._current = -1
        self._bar: list[float] = []
        self._spreads = 0  # ticks with a quote in the newest bar

    def __len__(self) -> int:
        return self._count + (self._current >= 0)

    @property
    def first_second(self) -> int | None:
        """The second of the oldest bar; None without one."""
        if self._count == 0:
            return None if self._current < 0 else self._current
        return int(self._second[self._next if self._count == self._limit else 0])

    def add_tick(self, second: int, price: float, spread_bps: float = nan) -> None:
        """Add a tick in ``second``. Ticks before the newest second are ignored, unless time steps back."""
        if not price > 0.0 or not self._begin(second):
            return
        bar = self._bar
        if isnan(bar[_OPEN]):
            bar[_OPEN : _CLOSE + 1] = (price, price, price, price)
        else:
            bar[_HIGH], bar[_LOW], bar[_CLOSE] = max(bar[_HIGH], price), min(bar[_LOW], price), price
        if not isnan(spread_bps):
            self._spreads += 1
            before = 0.0 if self._spreads == 1 else bar[_SPREAD]
            bar[_SPREAD] = before + (spread_bps - before) / self._spreads

    def add_score(
        self, second: int, probability: float, threshold: float, move: tuple[float, float, float] = (nan, nan, nan)
    ) -> None:
        """Add the score of a row in ``second``, which comes after the ticks that made the row."""
        if not self._begin(second):
            return
        bar = self._bar
        if isfinite(probability) and not bar[_PROBABILITY] >= probability:
            bar[_PROBABILITY] = probability
        bar[_THRESHOLD:] = (threshold, *move)

    def _begin(self, second: int) -> bool:
        """Whether the newest bar is that of ``second``, which it becomes if that is later."""
        if second == self._current:
            return True
        if second < self._current:
            if second > self._current - CLOCK_STEP_S:
                return False
            self._count = self._next = 0
        elif self._current >= 0:
            self._store()
        self._current, self._spreads = second, 0
        self._bar = [nan] * len(COLUMNS)
        return True

    def _store(self) -> None:
        if self._next == len(self._second) < self._limit:
            size = min(self._limit, 2 * len(self._second))
            self._second = np.resize(self._second, size)
            self._values = np.resize(self._values, (size, len(COLUMNS)))
        self._next %= self._limit
        self._second[self._next] = self._current
        self._values[self._next] = self._bar
        self._next += 1
        self._count = min(self._count + 1, self._limit)
        if self._next == self._limit:
            self._next = 0

    def between(self, first: int, last: int) -> Bars:
        """The bars of seconds from ``first`` to ``last``, excluded."""
        oldest = self._next if self._count == self._limit else 0
        parts = []
        for part in (slice(oldest, self._count), slice(0, oldest)):
            second, values = self._second[part], self._values[part]
            start, end = np.searchsorted(second, (first, last))
            parts.append((second[start:end], values[start:end]))
        if first <= self._current < last:
            parts.append((np.array([self._current]), np.array([self._bar])))
        return Bars(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]))


def tick_bars(ticks: Ticks, product: str) -> Bars:
    """The one-second bars of a product's ticks by the exchange's time; without probabilities."""
    if product not in ticks.products:
        return Bars.empty()
    rows = np.flatnonzero((ticks.product == ticks.products.index(product)) & (ticks.price > 0.0))
    second = ticks.time[rows] // SECOND_NS
    order = np.argsort(second, kind="stable")
    rows, second = rows[order], second[order]
    values = np.full((len(rows), len(COLUMNS)), nan)
    values[:, _OPEN : _CLOSE + 1] = ticks.price[rows][:, None]
    bid, ask = ticks.best_bid[rows], ticks.best_ask[rows]
    with np.errstate(invalid="ignore", divide="ignore"):
        values[:, _SPREAD] = np.where((bid > 0.0) & (ask > 0.0), 1e4 * (ask - bid) / (0.5 * (ask + bid)), nan)
    return Bars(second, values).grouped(1)


class TapeBars:
    """The one-second bars of a folder that a recorder writes to, by file and product; those used last are cached.

    Only files of real markets, or only those of simulated ones, are read: a folder may hold both.
    """

    def __init__(self, folder: Path, *, simulated: bool = False, cached_hours: int = CACHED_HOURS) -> None:
        self._folder, self._simulated, self._limit = folder, simulated, cached_hours
        self._cache: OrderedDict[tuple[Path, str], tuple[tuple[int, int], Bars]] = OrderedDict()

    def first_second(self, product: str) -> int | None:
        """The second in which a product's oldest file begins, or its hour if its name has no more; None without one."""
        files = self._files(product)
        if not files:
            return None
        path, hour = min(files, key=lambda file: file[1])
        name = read_hour_name(path)
        start = "" if name is None else name.start
        return hour + (60 * int(start[:2]) + int(start[2:]) if start else 0)

    def between(self, product: str, first: int, last: int, step_s: int) -> Bars:
        """The bars of ``step_s`` seconds, a divisor of an hour, that begin from ``first`` to ``last``, excluded."""
        hour_s = HOUR_NS // SECOND_NS
        files = [path for path, hour in self._files(product) if hour < last and hour + hour_s + CLOCK_STEP_S > first]
        parts = []
        for path in drop_replaced(files):
            bars = self._bars(path, product)
            inside = (bars.second >= first) & (bars.second < last)
            parts.append(Bars(bars.second[inside], bars.values[inside]).grouped(step_s))
        return Bars.joined(parts).grouped(step_s)

    def gaps(self) -> list[Gap]:
        """The gaps of the folder's ledger; none if it cannot be read."""
        try:
            return read_ledger(self._folder).gaps
        except DataError as error:
            log.warning("history_without_gaps", reason=str(error))
            return []

    def _files(self, product: str) -> list[tuple[Path, int]]:
        """The files of a product, each with the Unix second in which its hour begins."""
        found = []
        for path in sorted(self._folder.glob(f"ticks_{symbol_of(product)}_*")):
            name = read_hour_name(path)
            if name is not None and name.symbol == symbol_of(product):
                hour = datetime.strptime(name.hour, "%Y%m%d_%H").replace(tzinfo=UTC)
                found.append((path, int(hour.timestamp())))
        return found

    def _bars(self, path: Path, product: str) -> Bars:
        try:
            status = path.stat()
        except OSError:
            return Bars.empty()  # compacted or deleted meanwhile
        version, key = (status.st_size, status.st_mtime_ns), (path, product)
        known = self._cache.get(key)
        if known is not None and known[0] == version:
            self._cache.move_to_end(key)
            return known[1]
        parts, report = [], TapeReport()
        try:
            parts = [tick_bars(ticks, product) for ticks in read_ticks([path], keep_rejected=False, report=report)]
        except (DataError, UsageError) as error:  # a damaged file: the others are shown
            log.warning("history_file_unreadable", file=str(path), reason=str(error))
        bars = Bars.joined(parts if report.simulated == self._simulated else []).grouped(1)
        self._cache[key] = version, bars
        if len(self._cache) > self._limit:
            self._cache.popitem(last=False)
        return bars


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
    """The bars, spikes and recorded gaps of a range; ``earliest`` is the oldest second with data, None without one."""

    product: str
    range: HistoryRange
    earliest: int | None
    bars: Bars
    spikes: list[dict[str, Any]]
    gaps: list[Gap]

    def fields(self) -> dict[str, Any]:
        """Everything but the gaps as JSON values; times in ms."""
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
        bars = Bars.joined([stored.bars(product, first, seam, step), recent.grouped(step)]).grouped(step)
        past = stored.predictions(product, first, seam, step)
        rows = (
            [] if past is None else list(zip(past.spike_second.tolist(), past.spike_volatility.tolist(), strict=True))
        )
        rows += [row for row in spikes if max(first, seam) <= row[0] < last]
        spans = spike_spans([second for second, _ in rows], [value for _, value in rows], stored.horizon_s)
        begins = [second for second in (known_from, stored.first_second(product)) if second is not None]
        return History(product, wanted, min(begins, default=None), bars, spans, stored.gaps())

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
            stored = None if self._outcomes is None else self._outcomes.first_second(product, simulated=self._simulated)
        return min((each for each in (tape, stored) if each is not None), default=None)

    def bars(self, product: str, first: int, last: int, step_s: int) -> Bars:
        """The stored bars that begin from ``first`` to ``last``, excluded."""
        if first >= last:
            return Bars.empty()
        with self._lock:
            parts = [] if self._tape is None else [self._tape.between(product, first, last, step_s)]
        stored = self.predictions(product, first, last, step_s)
        if stored is not None and len(stored.second):
            values = np.full((len(stored.second), len(COLUMNS)), nan)
            values[:, _PROBABILITY], values[:, _THRESHOLD] = stored.probability, stored.threshold
            parts.append(Bars(stored.second, values))
        return Bars.joined(parts).grouped(step_s)

    def predictions(self, product: str, first: int, last: int, step_s: int) -> StoredRange | None:
        """The stored probabilities and spikes of a range; None if they cannot be read."""
        if self._outcomes is None or first >= last:
            return None
        with self._lock:
            try:
                return self._outcomes.range(product, first, last, step_s, simulated=self._simulated)
            except DataError as error:
                log.warning("history_without_predictions", reason=str(error))
                return None

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
