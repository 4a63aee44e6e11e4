"""Tapes of any form → chunks of ticks in time order, in constant memory.

Tapes follow each other by the receive time of their first tick and are merged by receive time where they overlap. The
order within one tape is kept even if its receive times step back, because the live system saw its ticks in that order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from volspike.errors import UnreadableFile, UsageError
from volspike.market import Ticks
from volspike.tape.blocks import holds_parquet
from volspike.tape.names import tapes_of
from volspike.tape.parquet import parquet_ticks, rechunk
from volspike.tape.parse import BLOCK_BYTES, ndjson_ticks
from volspike.tape.report import RejectedLines, TapeReport, rejected_path

CHUNK = 65_536
"""Ticks per chunk."""

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
    sources: str | Path | Sequence[str | Path],
    *,
    chunk: int = CHUNK,
    report: TapeReport | None = None,
    keep_rejected: bool = True,
    block_bytes: int = BLOCK_BYTES,
    prefetcher: Prefetcher | None = None,
) -> Iterator[Ticks]:
    """The ticks of tapes, folders and globs by receive time, in chunks of ``chunk``.

    Damaged lines are counted in ``report`` and, with ``keep_rejected``, written to ``<tape>.rejected.ndjson`` when the
    tape has been read. ``report`` is complete once the iterator is exhausted; its ``bytes_read`` grows meanwhile. A
    tape without a tick among others gets a note there.

    Raises:
        UsageError: a source names no tape, or ``chunk`` is below 1; at the call.
        UnreadableFile: a Parquet file that is no tape, or no tick in any of the tapes; while iterating.
    """
    if chunk < 1:
        raise UsageError(f"a chunk holds at least 1 tick, got {chunk}")
    paths = tapes_of(sources)
    report = TapeReport() if report is None else report
    report.files = [str(path) for path in paths]
    report.total_bytes = sum(path.stat().st_size for path in paths)
    return _Reading(paths, report, keep_rejected, chunk, block_bytes, prefetcher).ticks()


class _Reading:
    """One reading of several tapes."""

    def __init__(
        self,
        paths: Sequence[Path],
        report: TapeReport,
        keep_rejected: bool,
        chunk: int,
        block_bytes: int,
        prefetcher: Prefetcher | None,
    ) -> None:
        self._paths = paths
        self._report = report
        self._keep_rejected = keep_rejected
        self._chunk = chunk
        self._block_bytes = block_bytes
        self._prefetcher = prefetcher
        self._rejected_files: set[Path] = set()

    def ticks(self) -> Iterator[Ticks]:
        """The ticks of all tapes."""
        read = self._read if self._prefetcher is None else self._prefetcher.ticks
        tapes: list[TimedTape] = []
        in_order: list[tuple[int, Path]] = []
        for path in self._paths:
            first = self._first_received(path)
            if first is None:
                self._count_lines(path)
            else:
                tapes.append(TimedTape(first, partial(read, path)))
                in_order.append((first, path))
        if not tapes:
            raise UnreadableFile(*self._no_tick())
        if self._prefetcher is not None:
            self._prefetcher.expect([path for _, path in sorted(in_order, key=lambda tape: tape[0])])
        yield from rechunk(merge_tapes(tapes), self._chunk)

    def _first_received(self, path: Path) -> int | None:
        """When the tape's first tick was received; None if it has none."""
        if holds_parquet(path):
            parts = parquet_ticks(path, TapeReport(), rows=_FIRST_ROWS)
        else:
            parts = ndjson_ticks(path, TapeReport(), block_bytes=_FIRST_BYTES)
        for part in parts:
            if len(part):
                return int(part.received[0])
        return None

    def _read(self, path: Path) -> Iterator[Ticks]:
        """One tape from its start; its rejected lines are kept at its end."""
        rejected = (
            RejectedLines(path, appends=rejected_path(path) in self._rejected_files) if self._keep_rejected else None
        )
        try:
            for part in self._parts(path, rejected):
                self._report.add_ticks(part)
                yield part
            if rejected is not None:
                self._keep(path, rejected)
        finally:
            if rejected is not None:
                rejected.discard()

    def _parts(self, path: Path, rejected: RejectedLines | None) -> Iterator[Ticks]:
        if holds_parquet(path):
            return parquet_ticks(path, self._report, rejected, rows=self._chunk)
        return ndjson_ticks(path, self._report, rejected, block_bytes=self._block_bytes)

    def _keep(self, path: Path, rejected: RejectedLines) -> None:
        kept = rejected.keep()
        if kept is not None:
            self._rejected_files.add(kept)
            if str(kept) not in self._report.rejected_files:
                self._report.rejected_files.append(str(kept))
        if rejected.fault is not None:
            self._report.add_note(path, rejected.fault)

    def _count_lines(self, path: Path) -> None:
        """Counts the lines of a file without a tick; none of them are kept as rejected, because it is no tape."""
        before = self._report.rejected
        for _ in self._parts(path, None):
            pass
        rejected = self._report.rejected - before
        self._report.add_note(
            path, "is empty" if path.stat().st_size == 0 else f"no tick in it, {rejected} lines rejected"
        )

    def _no_tick(self) -> tuple[str, str]:
        """The files, and what was found in them instead of ticks."""
        report = self._report
        others = len(self._paths) - 1
        files = f"{self._paths[0]} and {others} more" if others else str(self._paths[0])
        if report.lines == 0:
            return files, "empty: record a tape first, or name another"
        found = [f"{report.lines} lines, no tick"]
        if report.ignored:
            found.append(", ".join(f"{number} {name}" for name, number in report.ignored.most_common(5)))
        if report.rejections:
            first = report.rejections[0]
            found.append(f"{report.rejected} rejected, the first at line {first.line}: {first.reason}")
        return files, f"{'; '.join(found)}; a tape holds one tick or one Coinbase frame per line"


class TimedTape(NamedTuple):
    """A tape whose first tick was received at ``first`` (ns UTC); ``open`` reads it from there."""

    first: int
    open: Callable[[], Iterator[Ticks]]


def merge_tapes(tapes: Sequence[TimedTape]) -> Iterator[Ticks]:
    """The ticks of all tapes by receive time; equal times in the order of the tapes.

    A tape is opened when the others have reached its first tick, so that only overlapping tapes hold a chunk in memory.
    """
    waiting = sorted(tapes, key=lambda tape: tape.first)
    heads: list[_Head] = []
    rank = 0
    while waiting or heads:
        while waiting and all((waiting[0].first, rank) <= head.last for head in heads):
            head = _Head(rank, waiting.pop(0).open())
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
    """An open tape and its current chunk. ``keys`` is the running maximum of the receive times."""

    rank: int
    chunks: Iterator[Ticks]
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
                self.keys = np.maximum(np.maximum.accumulate(chunk.received), self.reached)
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
