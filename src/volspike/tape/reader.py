"""Tapes of any form → chunks of ticks in time order, in constant memory.

Tapes follow each other by the receive time of their first tick and are merged by receive time where they overlap. The
order within one tape is kept even if its receive times step back, because the live system saw its ticks in that order.
Where the recorder's clock was set to another time, the exchange's time decides (``ReceiptOrder``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from volspike.errors import UnreadableFile, UsageError
from volspike.market import SECOND_NS, Ticks
from volspike.tape.blocks import holds_parquet
from volspike.tape.chronology import TapeZone, TimeFilter, is_newest_first, localized, oldest_first, zone_of
from volspike.tape.names import tapes_of, venue_of, with_venue
from volspike.tape.parquet import numbered_rows, rechunk
from volspike.tape.parse import BLOCK_BYTES, ndjson_ticks
from volspike.tape.report import NumberedTicks, RejectedLines, TapeReport, rejected_path
from volspike.tape.table import TableTape, TapeSource
from volspike.tape.write import tape_line

CHUNK = 65_536
"""Ticks per chunk."""

_LARGEST_LATENCY_CHANGE_NS = SECOND_NS

_FIRST_BYTES = 1 << 16
_FIRST_ROWS = 1_024


class Prefetcher(Protocol):
    """Reads tapes ahead of their use, in other processes."""

    def expect(self, tapes: Sequence[Path]) -> None:
        """Announces the tapes that will be read, in their order of time."""

    def ticks(self, tape: Path) -> Iterator[Ticks]:
        """Every tick of a tape in its order; the reading is added to the report."""
        ...


def read_ticks(
    sources: str | Path | Sequence[str | Path] | TableTape,
    *,
    chunk: int = CHUNK,
    report: TapeReport | None = None,
    keep_rejected: bool = True,
    block_bytes: int = BLOCK_BYTES,
    timezone: str | None = None,
    simulated: bool | None = None,
    prefetcher: Prefetcher | None = None,
) -> Iterator[Ticks]:
    """The ticks of tapes, folders and globs, or of a table, by receive time, in chunks of ``chunk``.

    A tape that is newest first is read in reverse. Times without a zone are local times of ``timezone``, or UTC. Ticks
    with impossible times are rejected, and clock steps noted (see ``chronology``). Damaged lines and rejected ticks are
    counted in ``report`` and, with ``keep_rejected``, written to ``<tape>.rejected.ndjson`` when the tape has been
    read; those of a table are only counted. ``report`` is complete once the iterator is exhausted; its ``bytes_read``
    grows meanwhile. A tape without a tick among others gets a note there. ``simulated`` states the origin of Parquet
    tapes and tables whose metadata is missing.

    Raises:
        UsageError: a source names no tape, ``chunk`` is below 1, or ``timezone`` does not exist; at the call.
        UnreadableFile: a Parquet file that is no tape, no tick in any of the tapes, or local times without
            ``timezone`` across a change of the clocks; while iterating.
    """
    if chunk < 1:
        raise UsageError(f"a chunk holds at least 1 tick, got {chunk}")
    tapes: list[TapeSource] = [sources] if isinstance(sources, TableTape) else [*tapes_of(sources)]
    report = TapeReport() if report is None else report
    report.files = [str(tape) for tape in tapes]
    report.total_bytes = sum(_size(tape) for tape in tapes)
    zone = None if timezone is None else zone_of(timezone)
    return _Reading(tapes, report, keep_rejected, chunk, block_bytes, zone, simulated, prefetcher).ticks()


def _size(tape: TapeSource) -> int:
    """The size of a file or table in bytes."""
    return int(tape.table.nbytes) if isinstance(tape, TableTape) else tape.stat().st_size


class _TapeHead(NamedTuple):
    """The beginning of a tape: its first times of receipt and of the exchange, the usual latency, and its order."""

    received: int
    time: int
    latency: int
    is_newest_first: bool


class _Reading:
    """One reading of several tapes."""

    def __init__(
        self,
        tapes: Sequence[TapeSource],
        report: TapeReport,
        keep_rejected: bool,
        chunk: int,
        block_bytes: int,
        zone: ZoneInfo | None,
        simulated: bool | None,
        prefetcher: Prefetcher | None,
    ) -> None:
        self._tapes = tapes
        self._report = report
        self._keep_rejected = keep_rejected
        self._chunk = chunk
        self._block_bytes = block_bytes
        self._zone = zone
        self._simulated = simulated
        self._prefetcher = prefetcher
        self._rejected_files: set[Path] = set()
        self._newest_first: set[TapeSource] = set()

    def ticks(self) -> Iterator[Ticks]:
        """The ticks of all tapes."""
        heads: dict[TapeSource, _TapeHead] = {}
        for tape in self._tapes:
            head = self._head(tape)
            if head is None:
                self._count_lines(tape)
            else:
                heads[tape] = head
        if not heads:
            raise UnreadableFile(*self._no_tick())
        order = ReceiptOrder([head.latency for head in heads.values()])
        firsts = {tape: order.key(head.received, head.time) for tape, head in heads.items()}
        if self._prefetcher is not None:
            ahead = sorted(heads, key=lambda tape: firsts[tape])
            self._prefetcher.expect([tape for tape in ahead if isinstance(tape, Path)])
        tapes = [TimedTape(firsts[tape], partial(self._open, tape)) for tape in heads]
        yield from rechunk(merge_tapes(tapes, order.keys), self._chunk)

    def _open(self, tape: TapeSource) -> Iterator[Ticks]:
        if self._prefetcher is None or isinstance(tape, TableTape):
            return self._read(tape)
        return self._prefetcher.ticks(tape)

    def _head(self, tape: TapeSource) -> _TapeHead | None:
        """The beginning of a tape; None if it has no tick. The report learns whether the tape is simulated."""
        parts = self._raw_parts(tape, _FIRST_ROWS, _FIRST_BYTES)
        first = next((part for part in parts if len(part)), None)
        if first is None:
            return None
        newest_first = is_newest_first(chain([first], parts))
        if newest_first:
            self._newest_first.add(tape)
            for part in self._raw_parts(tape, CHUNK, self._block_bytes):
                first = part if len(part) else first
        place = -1 if newest_first else 0
        latency = int(np.median(first.received - first.time))
        return _TapeHead(int(first.received[place]), int(first.time[place]), latency, newest_first)

    def _raw_parts(self, tape: TapeSource, rows: int, block_bytes: int) -> Iterator[Ticks]:
        """The ticks of a tape as they are in the file or table; the report learns only whether they are simulated."""
        clock, report = TapeZone(), TapeReport()
        parts = self._numbered(tape, report, None, clock, rows, block_bytes)
        for part in parts if self._zone is None else localized(parts, clock, self._zone):
            self._report.simulated |= report.simulated
            yield part.ticks

    def _numbered(
        self,
        tape: TapeSource,
        report: TapeReport,
        rejected: RejectedLines | None,
        clock: TapeZone,
        rows: int,
        block_bytes: int,
    ) -> Iterator[NumberedTicks]:
        if isinstance(tape, TableTape) or holds_parquet(tape):
            return numbered_rows(tape, report, rejected, rows=rows, clock=clock, simulated=self._simulated)
        return ndjson_ticks(tape, report, rejected, block_bytes=block_bytes, clock=clock)

    def _read(self, tape: TapeSource) -> Iterator[Ticks]:
        """One tape from its start; the rejected lines of a file are kept at its end."""
        if not self._keep_rejected or isinstance(tape, TableTape):
            yield from self._parts(tape, None)
            return
        rejected = RejectedLines(tape, appends=rejected_path(tape) in self._rejected_files)
        try:
            yield from self._parts(tape, rejected)
            self._keep(tape, rejected)
        finally:
            rejected.discard()

    def _parts(self, tape: TapeSource, rejected: RejectedLines | None) -> Iterator[Ticks]:
        clock = TapeZone()
        # the same rows whatever the chunks, so that the same ticks are impossible
        parts = self._numbered(tape, self._report, rejected, clock, CHUNK, self._block_bytes)
        parts = _at_venue(parts, None if isinstance(tape, TableTape) else venue_of(tape))
        if tape in self._newest_first:
            self._report.add_note(tape, "is newest first: it is read from its end", is_loss=False)
            parts = oldest_first(parts, in_memory=isinstance(tape, TableTape))
        if self._zone is not None:
            parts = localized(parts, clock, self._zone)

        def reject(part: NumberedTicks, place: int, reason: str) -> None:
            number = int(part.numbers[place])
            self._report.add_rejected(tape, number, reason)
            if rejected is not None:
                rejected.add(number, reason, tape_line(part.ticks.tick(place)).rstrip(b"\n"))

        rising = tape.rising if isinstance(tape, TableTape) else None
        times = TimeFilter(tape, self._report, clock, reject, has_zone=self._zone is not None, rising=rising)
        for ticks in times.possible(parts):
            self._report.add_ticks(ticks)
            yield ticks

    def _keep(self, path: Path, rejected: RejectedLines) -> None:
        kept = rejected.keep()
        if kept is not None:
            self._rejected_files.add(kept)
            if str(kept) not in self._report.rejected_files:
                self._report.rejected_files.append(str(kept))
        if rejected.fault is not None:
            self._report.add_note(path, rejected.fault)

    def _count_lines(self, tape: TapeSource) -> None:
        """Counts the lines of a tape without a tick; none of them are kept as rejected, because it is no tape."""
        before = self._report.rejected
        for _ in self._parts(tape, None):
            pass
        rejected = self._report.rejected - before
        self._report.add_note(tape, "is empty" if _size(tape) == 0 else f"no tick in it, {rejected} lines rejected")

    def _no_tick(self) -> tuple[str, str]:
        """The tapes, and what was found in them instead of ticks."""
        report, is_table = self._report, isinstance(self._tapes[0], TableTape)
        others = len(self._tapes) - 1
        tapes = f"{self._tapes[0]} and {others} more" if others else str(self._tapes[0])
        if report.lines == 0:
            return tapes, "it has no rows" if is_table else "empty: record a tape first, or name another"
        lines = "rows" if is_table else "lines"
        found = [f"{report.lines} {lines}, no tick"]
        if report.ignored:
            found.append(", ".join(f"{number} {name}" for name, number in report.ignored.most_common(5)))
        if report.rejections:
            first = report.rejections[0]
            found.append(f"{report.rejected} rejected, the first at {lines[:-1]} {first.line}: {first.reason}")
        if not is_table:
            found.append("a tape holds one tick or one Coinbase frame per line")
        return tapes, "; ".join(found)


def _at_venue(parts: Iterable[NumberedTicks], venue: str | None) -> Iterator[NumberedTicks]:
    """The same ticks under canonical product names; ``venue`` is that of names without one."""
    for ticks, numbers in parts:
        products = with_venue(ticks.products, venue)
        yield NumberedTicks(ticks if products == ticks.products else replace(ticks, products=products), numbers)


class TimedTape(NamedTuple):
    """A tape whose first tick has the place ``first`` (ns UTC); ``open`` reads it from there."""

    first: int
    open: Callable[[], Iterator[Ticks]]


class ReceiptOrder:
    """The order of ticks by receive time, corrected where a recorder's clock was set to another time.

    ``latencies`` are those of the tapes, received minus exchange's time, in ns. Where a tick's differs from their
    median by more than a second, the exchange's time, later by that median, replaces its receive time.
    """

    def __init__(self, latencies: Sequence[int]) -> None:
        self._latency = sorted(latencies)[(len(latencies) - 1) // 2]

    def key(self, received: int, time: int) -> int:
        """The place of one tick, in ns."""
        is_usual = abs(received - time - self._latency) <= _LARGEST_LATENCY_CHANGE_NS
        return received if is_usual else time + self._latency

    def keys(self, ticks: Ticks) -> NDArray[np.int64]:
        """The places of n ticks, in ns."""
        usual = np.abs(ticks.received - ticks.time - self._latency) <= _LARGEST_LATENCY_CHANGE_NS
        return ticks.received if usual.all() else np.where(usual, ticks.received, ticks.time + self._latency)


def merge_tapes(
    tapes: Sequence[TimedTape], keys: Callable[[Ticks], NDArray[np.int64]] = attrgetter("received")
) -> Iterator[Ticks]:
    """The ticks of all tapes by their ``keys`` (ns); equal ones in the order of the tapes.

    A tape is opened when the others have reached its first tick, so that only overlapping tapes hold a chunk in memory.
    """
    waiting = sorted(tapes, key=lambda tape: tape.first)
    heads: list[_Head] = []
    rank = 0
    while waiting or heads:
        while waiting and all((waiting[0].first, rank) <= head.last for head in heads):
            head = _Head(rank, waiting.pop(0).open(), keys)
            rank += 1
            if head.advance():
                heads.append(head)
        if not heads:
            continue
        slowest = min(heads, key=lambda head: head.last)
        yield _merge_parts([head.take_until(slowest.last) for head in heads])
        heads = [head for head in heads if len(head.ticks) or head.advance()]


@dataclass(slots=True)
class _Head:
    """An open tape and its current chunk. ``keys`` is the running maximum of the places of its ticks."""

    rank: int
    chunks: Iterator[Ticks]
    keys_of: Callable[[Ticks], NDArray[np.int64]]
    ticks: Ticks = field(default_factory=lambda: Ticks.join(()))
    keys: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    reached: int = np.iinfo(np.int64).min

    @property
    def last(self) -> tuple[int, int]:
        """A place in the order that every later chunk of this tape comes after."""
        return self.reached, self.rank

    def advance(self) -> bool:
        """Reads the next chunk that is not empty; False at the tape's end."""
        for chunk in self.chunks:
            if len(chunk):
                self.ticks = chunk
                self.keys = np.maximum(np.maximum.accumulate(self.keys_of(chunk)), self.reached)
                self.reached = int(self.keys[-1])
                return True
        return False

    def take_until(self, place: tuple[int, int]) -> tuple[Ticks, NDArray[np.int64]]:
        """Removes and returns the ticks of the chunk up to ``place`` (time, rank), with their keys."""
        time, rank = place
        cut = int(np.searchsorted(self.keys, time, side="right" if self.rank <= rank else "left"))
        taken = self.ticks[:cut], self.keys[:cut]
        self.ticks, self.keys = self.ticks[cut:], self.keys[cut:]
        return taken


def _merge_parts(parts: Iterable[tuple[Ticks, NDArray[np.int64]]]) -> Ticks:
    present = [(ticks, keys) for ticks, keys in parts if len(ticks)]
    if len(present) == 1:
        return present[0][0]
    order = np.argsort(np.concatenate([keys for _, keys in present]), kind="stable")
    return Ticks.join([ticks for ticks, _ in present])[order]
