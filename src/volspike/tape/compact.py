"""Compaction of finished hours into Parquet tapes, and conversion of tapes between formats.

``compact`` replaces the NDJSON files of a finished hour by one Parquet tape, verified before the files are removed.
The Parquet tape is flushed to the disk and compared with the NDJSON tick by tick, then gets its name. It lists the
files that it replaces, which readers skip from then on (see ``names``). An interruption at any moment therefore
neither loses nor duplicates a tick, and the next run completes the work. ``convert`` merges any tapes into one, in time
order and constant memory.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from volspike.errors import UnreadableFile, UsageError
from volspike.locks import sync_to_disk, try_lock
from volspike.market import SECOND_NS, Ticks
from volspike.progress import OnStep, Step
from volspike.tape.names import (
    HOUR_NS,
    hour_path,
    is_parquet,
    is_tape,
    read_hour_name,
    sources_metadata,
    sources_of,
    tapes_of,
)
from volspike.tape.parquet import ROW_GROUP, ParquetTape, parquet_ticks, rechunk
from volspike.tape.reader import read_ticks
from volspike.tape.report import Note, TapeReport
from volspike.tape.write import TapeWriter

SETTLED_S = 300.0
"""A file counts as finished if it has not changed for this long."""

_UNVERIFIED = ".unverified"


@dataclass(frozen=True, slots=True)
class CompactedHour:
    """One hour of one product: its Parquet tape, the files that it replaces, and the sizes of both in bytes."""

    tape: Path
    sources: tuple[Path, ...]
    ticks: int
    rejected: int
    bytes_before: int
    bytes_after: int
    simulated: bool


@dataclass(slots=True)
class Compaction:
    """The result for a folder. ``removed`` are NDJSON files that a Parquet tape replaces."""

    hours: list[CompactedHour] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def skip(self, file: Path, reason: str) -> None:
        """Adds a note on a file that stays as it is."""
        self.notes.append(Note(str(file), reason))


def compact(
    folder: str | Path,
    *,
    keep: bool = False,
    remove_later: bool = False,
    clock: Callable[[], int] = time.time_ns,
    on_step: OnStep = lambda _: None,
) -> Compaction:
    """Converts the finished hours of a folder's recorded tapes to Parquet; with ``keep`` the NDJSON files stay.

    With ``remove_later`` they stay until the next call, so that a reader that has begun can finish.

    An hour is finished when it is over by ``clock`` (ns UTC) and no process has written to its files for five minutes
    or has them open. Damaged lines are moved to ``<tape>.rejected.ndjson``; if that fails, the tape stays. ``on_step``
    receives each hour as it begins.

    Raises:
        UsageError: the folder does not exist or cannot be written, or another compaction is running in it.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise UsageError(f"{folder} is not a folder: name the folder of the tapes")
    result = Compaction()
    try:
        with ExitStack() as locks:
            if not lock_path(path, locks):
                raise UsageError(f"{folder}: another compaction is running in it; wait until it ends")
            _remove_unverified(path)
            _complete_earlier(path, keep, result)
            hours = list(_finished_hours(path, clock()))
            for number, sources in enumerate(hours):
                on_step(Step(f"hour {number + 1} of {len(hours)}, {sources[0].name}", number / len(hours)))
                hour = _compact_locked(path, sources, result)
                if hour is None:
                    continue
                if not keep and not remove_later:
                    _remove(hour.sources, result)
                result.hours.append(hour)
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror or error}") from error
    return result


def lock_path(path: Path, locks: ExitStack) -> bool:
    """Locks a file or folder until the end of ``locks``; False if another process holds the lock."""
    if os.name == "nt" and path.is_dir():
        return True
    descriptor = os.open(path, os.O_RDONLY)
    locks.callback(os.close, descriptor)
    return try_lock(descriptor)


def _remove_unverified(folder: Path) -> None:
    """Removes the unverified tapes of a compaction that was interrupted."""
    for path in folder.glob(f"ticks_*.parquet{_UNVERIFIED}*"):
        path.unlink(missing_ok=True)


def _recorded(folder: Path) -> dict[tuple[str, str], list[Path]]:
    """The recorded files of a folder by product and hour, each group by name."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(folder.iterdir()):
        name = read_hour_name(path)
        if name is not None and path.suffix == ".ndjson" and path.is_file():
            groups.setdefault((name.symbol, name.hour), []).append(path)
    return groups


def _replaced_files(folder: Path, symbol: str, hour: str) -> set[Path]:
    """The recorded files of an hour that its Parquet tapes replace."""
    tapes = folder.glob(f"ticks_{symbol}_{hour}*.parquet")
    return {path for tape in tapes if read_hour_name(tape) is not None for path in sources_of(tape)}


def _complete_earlier(folder: Path, keep: bool, result: Compaction) -> None:
    """Removes the files that an earlier run converted and then kept, or did not reach before it was interrupted."""
    if keep:
        return
    for (symbol, hour), paths in _recorded(folder).items():
        replaced = _replaced_files(folder, symbol, hour)
        _remove([path for path in paths if path in replaced], result)


def _finished_hours(folder: Path, now: int) -> Iterator[list[Path]]:
    """The recorded files of each finished hour that are not compacted yet, earliest hour first."""
    by_hour = sorted(_recorded(folder).items(), key=lambda group: (group[0][1], group[0][0]))
    for (symbol, hour), paths in by_hour:
        if not _is_over(hour, now):
            continue
        replaced = _replaced_files(folder, symbol, hour)
        waiting = [path for path in paths if path not in replaced]
        if waiting and all(is_settled(path, now) for path in waiting):
            yield waiting


def _is_over(hour: str, now: int) -> bool:
    start = hour_start_ns(hour)
    return start is not None and start + HOUR_NS <= now


def hour_start_ns(hour: str) -> int | None:
    """The start of an hour (ns UTC) from its name in a file's name (``20251206_05``); None if there is no such hour."""
    try:
        begun = datetime.strptime(hour, "%Y%m%d_%H").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(begun.timestamp()) * SECOND_NS


def is_settled(path: Path, now: int) -> bool:
    """Whether a file has not changed for ``SETTLED_S``."""
    return now - path.stat().st_mtime_ns >= SETTLED_S * SECOND_NS


def _compact_locked(folder: Path, paths: Sequence[Path], result: Compaction) -> CompactedHour | None:
    """``_compact_hour`` while the files are locked; None if another process writes one of them."""
    with ExitStack() as locks:
        return _compact_hour(folder, paths, result) if all(lock_path(path, locks) for path in paths) else None


def _compact_hour(folder: Path, paths: Sequence[Path], result: Compaction) -> CompactedHour | None:
    """Writes, verifies and names one hour's Parquet tape; None, and a note, if the NDJSON has to stay."""
    sources = [path for path in paths if _has_ticks(path, result)]
    name = read_hour_name(paths[0])
    if not sources or name is None:
        return None
    target = hour_path(folder, name.symbol, name.hour)
    unverified = target.with_name(target.name + _UNVERIFIED)
    report = TapeReport()
    _write(sources, unverified, report)
    losses = [note.text for note in report.notes if note.is_loss]
    if losses or not _is_same(sources, unverified):
        reason = "; ".join(losses) or "the Parquet tape does not read back the same"
        result.skip(sources[0], f"not compacted: {reason}")
        unverified.unlink()
        return None
    unverified.replace(target)
    sync_to_disk(folder)
    return CompactedHour(
        tape=target,
        sources=tuple(sources),
        ticks=report.ticks,
        rejected=report.rejected,
        bytes_before=sum(path.stat().st_size for path in sources),
        bytes_after=target.stat().st_size,
        simulated=report.simulated,
    )


def _has_ticks(path: Path, result: Compaction) -> bool:
    """Whether a file has a tick; an empty file is removed, one without a tick stays."""
    try:
        next(read_ticks(path, chunk=1, keep_rejected=False))
    except UnreadableFile as error:
        if path.stat().st_size == 0 and os.name != "nt":  # Windows removes no file that is open, as this locked one is
            _remove([path], result)
        else:
            result.skip(path, error.reason)
        return False
    return True


def _write(sources: Sequence[Path], target: Path, report: TapeReport) -> None:
    with ParquetTape(target) as tape:
        for part in read_ticks(sources, chunk=ROW_GROUP, report=report):
            tape.write(part)
        tape.simulated = report.simulated
        tape.metadata = sources_metadata(sources)


def _is_same(sources: Sequence[Path], written: Path) -> bool:
    """Whether the NDJSON, read again, and the Parquet tape hold the same ticks in the same order."""
    expected = read_ticks(sources, chunk=ROW_GROUP, keep_rejected=False)
    actual = rechunk(parquet_ticks(written, TapeReport(), rows=ROW_GROUP), ROW_GROUP)
    for part in expected:
        other = next(actual, None)
        if other is None or not _are_equal(part, other):
            return False
    return next(actual, None) is None


def _are_equal(left: Ticks, right: Ticks) -> bool:
    if len(left) != len(right):
        return False
    left_names, right_names = (np.array(ticks.products, np.object_)[ticks.product] for ticks in (left, right))
    return bool(np.array_equal(left_names, right_names)) and all(
        np.array_equal(column, getattr(right, name), equal_nan=column.dtype.kind == "f")
        for name, column in left.columns()
        if name != "product"
    )


def _remove(paths: Sequence[Path], result: Compaction) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()
            result.removed.append(path)


def convert(
    sources: str | Path | Sequence[str | Path],
    target: str | Path,
    *,
    keep_rejected: bool = True,
    timezone: str | None = None,
    simulated: bool | None = None,
    on_progress: Callable[[TapeReport], None] = lambda _: None,
) -> TapeReport:
    """Writes the ticks of ``sources`` as one tape in the form of ``target``'s ending; returns a report.

    ``on_progress`` receives the report as it grows. Every column of ``Tick`` is preserved exactly. An existing
    ``target`` is replaced when the new one is complete. ``timezone`` and ``simulated`` are those of ``read_ticks``.

    Raises:
        UsageError: a source names no tape, or ``target`` is no tape by its name, is a source, or cannot be written.
        UnreadableFile: no tick in the sources, or a source is a Parquet file but no tape.
    """
    path = Path(target).expanduser()
    if not is_tape(path):
        raise UsageError(f"{target}: a tape's name ends in .ndjson, .ndjson.zst, .ndjson.gz or .parquet")
    paths = tapes_of(sources)
    if path.resolve() in {source.resolve() for source in paths}:
        raise UsageError(f"{target} is one of the sources: name another target")
    report = TapeReport()
    parts = read_ticks(
        paths,
        chunk=ROW_GROUP,
        report=report,
        keep_rejected=keep_rejected,
        timezone=timezone,
        simulated=simulated,
    )
    first = next(parts)
    with _open_target(path, report.simulated) as tape:
        _write_chunk(tape, first, report)
        for part in parts:
            on_progress(report)
            _write_chunk(tape, part, report)
    return report


def _open_target(path: Path, simulated: bool) -> TapeWriter | ParquetTape:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return ParquetTape(path, simulated=simulated) if is_parquet(path) else TapeWriter(path, simulated=simulated)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from error


def _write_chunk(tape: TapeWriter | ParquetTape, part: Ticks, report: TapeReport) -> None:
    tape.simulated = report.simulated
    tape.write(part)
