"""Tapes of any kind → chunks of ticks in time order. The one door through which recorded ticks come in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

from volspike.errors import UnreadableFile, UsageError
from volspike.market import Ticks
from volspike.tape.merge import TimedTape, merged, rechunked
from volspike.tape.names import is_parquet, tapes_of
from volspike.tape.parquet import parquet_ticks
from volspike.tape.parse import BLOCK_BYTES, ndjson_ticks
from volspike.tape.report import SetAside, TapeReport, rejected_path

CHUNK = 65_536
"""Ticks handed out at a time, about."""


class Elsewhere(Protocol):
    """Who reads tapes in another process."""

    def expect(self, tapes: Sequence[Path]) -> None:
        """Tells the tapes that will be asked for, in their order of time."""

    def ticks(self, tape: Path) -> Iterator[Ticks]:
        """Every tick of a tape in its order; what became of the tape is added to the report."""
        ...


_FIRST_BYTES = 1 << 16
_FIRST_ROWS = 1_024


def read_ticks(
    sources: str | Path | Sequence[str | Path],
    *,
    chunk: int = CHUNK,
    report: TapeReport | None = None,
    set_aside: bool = True,
    block_bytes: int = BLOCK_BYTES,
    elsewhere: Elsewhere | None = None,
) -> Iterator[Ticks]:
    """The ticks of tapes, folders and globs by receive time, in chunks of ``chunk``, in constant memory.

    Tapes follow each other by their first ``received`` and are merged where they overlap; see ``merge``. Damaged
    lines are told to ``report`` and, with ``set_aside``, written to ``<tape>.rejected.ndjson`` beside the tape
    once it is read to its end. ``report`` is whole once the iterator is exhausted; its ``bytes_read`` grows
    meanwhile. A tape without a tick among others is noted there. ``elsewhere`` reads the tapes in this
    function's stead, as other processes do.

    Raises:
        UsageError: a source names no tape, or ``chunk`` is below 1; at the call.
        UnreadableFile: a Parquet file that is no tape, or not one tick in any of the tapes; while iterating.
    """
    if chunk < 1:
        raise UsageError(f"a chunk holds at least 1 tick, was {chunk}")
    paths = tapes_of(sources)
    told = TapeReport() if report is None else report
    told.files = [str(path) for path in paths]
    told.total_bytes = sum(path.stat().st_size for path in paths)
    return _Readers(paths, told, set_aside, chunk, block_bytes, elsewhere).ticks()


class _Readers:
    """One reading of several tapes."""

    def __init__(
        self,
        paths: Sequence[Path],
        report: TapeReport,
        set_aside: bool,
        chunk: int,
        block_bytes: int,
        elsewhere: Elsewhere | None,
    ) -> None:
        self._paths = paths
        self._report = report
        self._set_aside = set_aside
        self._chunk = chunk
        self._block_bytes = block_bytes
        self._kept: set[Path] = set()
        self._elsewhere = elsewhere

    def ticks(self) -> Iterator[Ticks]:
        timed, in_time = [], list[tuple[int, Path]]()
        elsewhere = self._elsewhere
        for path in self._paths:
            first = self._first_received(path)
            if first is None:
                self._read_in_vain(path)
            else:
                timed.append(TimedTape(first, partial(self._one if elsewhere is None else elsewhere.ticks, path)))
                in_time.append((first, path))
        if not timed:
            raise UnreadableFile(*self._nothing())
        if elsewhere is not None:
            elsewhere.expect([path for _, path in sorted(in_time, key=lambda tape: tape[0])])
        yield from rechunked(merged(timed), self._chunk)

    def _first_received(self, path: Path) -> int | None:
        """When the tape's first tick was received; None where it has none."""
        if is_parquet(path):
            parts = parquet_ticks(path, TapeReport(), rows=_FIRST_ROWS)
        else:
            parts = ndjson_ticks(path, TapeReport(), block_bytes=_FIRST_BYTES)
        for part in parts:
            if len(part):
                return int(part.received[0])
        return None

    def _one(self, path: Path) -> Iterator[Ticks]:
        """One tape from its start, its damaged lines set aside when it is done."""
        aside = SetAside(path, joins=rejected_path(path) in self._kept) if self._set_aside else None
        try:
            for part in self._parts(path, aside):
                self._report.add_ticks(part)
                yield part
            if aside is not None:
                self._keep(path, aside)
        finally:
            if aside is not None:
                aside.discard()

    def _parts(self, path: Path, aside: SetAside | None) -> Iterator[Ticks]:
        if is_parquet(path):
            return parquet_ticks(path, self._report, aside, rows=self._chunk)
        return ndjson_ticks(path, self._report, aside, block_bytes=self._block_bytes)

    def _keep(self, path: Path, aside: SetAside) -> None:
        kept = aside.keep()
        if kept is not None:
            self._kept.add(kept)
            if str(kept) not in self._report.set_aside:
                self._report.set_aside.append(str(kept))
        if aside.fault is not None:
            self._report.add_note(path, aside.fault)

    def _read_in_vain(self, path: Path) -> None:
        """A file without a tick: what it holds is counted, but nothing of it set aside, for it is no tape."""
        before = self._report.rejected
        for _ in self._parts(path, None):
            pass
        refused = self._report.rejected - before
        self._report.add_note(
            path, "is empty" if path.stat().st_size == 0 else f"no tick in it, {refused} lines refused"
        )

    def _nothing(self) -> tuple[str, str]:
        """Where nothing could be read: which files, and what was found there."""
        report = self._report
        others = len(self._paths) - 1
        files = f"{self._paths[0]} and {others} more" if others else str(self._paths[0])
        if report.lines == 0:
            return files, "empty: record a tape first, or name another"
        found = [f"{report.lines} lines, not one tick"]
        if report.ignored:
            found.append(", ".join(f"{number} {name}" for name, number in report.ignored.most_common(5)))
        if report.rejections:
            first = report.rejections[0]
            found.append(f"{report.rejected} refused, the first at line {first.line}: {first.reason}")
        return files, f"{'; '.join(found)}; a tape holds one tick or one frame of Coinbase per line"
