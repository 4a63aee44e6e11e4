"""Finished hours of recorded NDJSON → one Parquet tape each, verified tick by tick before the NDJSON goes.

The Parquet tape gets its name once it is verified and on the disk, and names the files that it holds; from then
on readers leave those out (see ``hours``). So whenever this is interrupted, every tick is told, once, and the
next run finishes the work.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from volspike.errors import UnreadableFile, UsageError
from volspike.locks import take
from volspike.market import SECOND_NS, Ticks
from volspike.tape.merge import rechunked
from volspike.tape.names import hour_path, read_hour_name, sources_metadata, sources_of
from volspike.tape.parquet import ROW_GROUP, ParquetTape, parquet_ticks
from volspike.tape.reader import read_ticks
from volspike.tape.report import Note, TapeReport

RESTED_S = 300.0
"""How long a file must not have been written to before it counts as finished."""

_UNVERIFIED = ".unverified"


@dataclass(frozen=True, slots=True)
class CompactedHour:
    """One hour of one product: its Parquet tape, the files that it holds, and their sizes in bytes."""

    tape: Path
    sources: tuple[Path, ...]
    ticks: int
    rejected: int
    bytes_before: int
    bytes_after: int
    simulated: bool


@dataclass(slots=True)
class Compaction:
    """What became of a folder. ``removed`` are NDJSON files whose ticks are in Parquet; ``notes`` say what was left."""

    hours: list[CompactedHour] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def leave(self, file: Path, why: str) -> None:
        """Notes a file that stays as it is."""
        self.notes.append(Note(str(file), why))


def compact(
    folder: str | Path,
    *,
    keep: bool = False,
    clock: Callable[[], int] = time.time_ns,
    told: Callable[[CompactedHour], object] | None = None,
) -> Compaction:
    """Turns the finished hours of a folder's recorded tapes into Parquet; with ``keep`` the NDJSON stays.

    An hour is finished when it is over by ``clock`` (ns UTC) and its files rest and are written by nobody. Damaged
    lines are kept as ``<tape>.rejected.ndjson``; where they cannot be, the tape is left. ``told`` hears of each hour.

    Raises:
        UsageError: there is no such folder, it cannot be written to, or another compaction runs in it.
    """
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UsageError(f"{folder} is no folder: name the one with the tapes")
    done = Compaction()
    try:
        with ExitStack() as locks:
            if not _is_ours(place, locks):
                raise UsageError(f"{folder}: another compaction is at work there")
            _clear(place)
            _finish_earlier(place, keep, done)
            for sources in _groups(place, clock()):
                hour = _compacted_alone(place, sources, done)
                if hour is None:
                    continue
                if not keep:
                    _remove(hour.sources, done)
                done.hours.append(hour)
                if told is not None:
                    told(hour)
    except OSError as error:
        raise UsageError(f"{error.filename or folder}: {error.strerror or error}") from error
    return done


def _is_ours(path: Path, locks: ExitStack) -> bool:
    """Takes the lock of a file or folder until the end of ``locks``; False where another has it."""
    if os.name == "nt" and path.is_dir():
        return True
    descriptor = os.open(path, os.O_RDONLY)
    locks.callback(os.close, descriptor)
    return take(descriptor)


def _clear(folder: Path) -> None:
    """Removes what a compaction that was interrupted had not verified."""
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


def _held(folder: Path, symbol: str, hour: str) -> set[Path]:
    """The recorded files of an hour that its Parquet tapes hold."""
    tapes = folder.glob(f"ticks_{symbol}_{hour}*.parquet")
    return {path for tape in tapes if read_hour_name(tape) is not None for path in sources_of(tape)}


def _finish_earlier(folder: Path, keep: bool, done: Compaction) -> None:
    """Removes the files that were kept, or not reached, by an earlier run that verified their Parquet tape."""
    if keep:
        return
    for (symbol, hour), paths in _recorded(folder).items():
        held = _held(folder, symbol, hour)
        _remove([path for path in paths if path in held], done)


def _groups(folder: Path, now: int) -> Iterator[list[Path]]:
    """The finished hours that are not compacted yet, the earliest first."""
    by_hour = sorted(_recorded(folder).items(), key=lambda group: (group[0][1], group[0][0]))
    for (symbol, hour), paths in by_hour:
        if not _is_over(hour, now):
            continue
        held = _held(folder, symbol, hour)
        fresh = [path for path in paths if path not in held]
        if fresh and all(_rests(path, now) for path in fresh):
            yield fresh


def _is_over(hour: str, now: int) -> bool:
    try:
        begun = datetime.strptime(hour, "%Y%m%d_%H").replace(tzinfo=UTC)
    except ValueError:
        return False
    return (begun + timedelta(hours=1)).timestamp() * SECOND_NS <= now


def _rests(path: Path, now: int) -> bool:
    return now - path.stat().st_mtime_ns >= RESTED_S * SECOND_NS


def _compacted_alone(folder: Path, paths: Sequence[Path], done: Compaction) -> CompactedHour | None:
    """``_compacted`` while nobody else may write the files; None where somebody does."""
    with ExitStack() as locks:
        return _compacted(folder, paths, done) if all(_is_ours(path, locks) for path in paths) else None


def _compacted(folder: Path, paths: Sequence[Path], done: Compaction) -> CompactedHour | None:
    """Writes, verifies and names one hour's Parquet tape; None, and a note, where the NDJSON has to stay."""
    sources = [path for path in paths if _has_ticks(path, done)]
    name = read_hour_name(paths[0])
    if not sources or name is None:
        return None
    target = hour_path(folder, name.symbol, name.hour)
    unverified = target.with_name(target.name + _UNVERIFIED)
    report = TapeReport()
    _write(sources, unverified, report)
    if report.notes or not _is_same(sources, unverified):
        why = "; ".join(note.text for note in report.notes) or "what was written does not read back the same"
        done.leave(sources[0], f"not compacted: {why}")
        unverified.unlink()
        return None
    unverified.replace(target)
    _flush_names(folder)
    return CompactedHour(
        tape=target,
        sources=tuple(sources),
        ticks=report.ticks,
        rejected=report.rejected,
        bytes_before=sum(path.stat().st_size for path in sources),
        bytes_after=target.stat().st_size,
        simulated=report.simulated,
    )


def _has_ticks(path: Path, done: Compaction) -> bool:
    """Whether there is a tick in a file; an empty one is removed, one that holds something else stays."""
    try:
        next(read_ticks(path, chunk=1, set_aside=False))
    except UnreadableFile as error:
        if path.stat().st_size == 0:
            _remove([path], done)
        else:
            done.leave(path, error.reason)
        return False
    return True


def _write(sources: Sequence[Path], target: Path, report: TapeReport) -> None:
    with ParquetTape(target) as tape:
        for part in read_ticks(sources, chunk=ROW_GROUP, report=report):
            tape.write(part)
        tape.simulated = report.simulated
        tape.metadata = sources_metadata(sources)


def _is_same(sources: Sequence[Path], written: Path) -> bool:
    """Whether the NDJSON, read once more, and the Parquet tape hold the same ticks in every column and in order."""
    told = read_ticks(sources, chunk=ROW_GROUP, set_aside=False)
    kept = rechunked(parquet_ticks(written, TapeReport(), rows=ROW_GROUP), ROW_GROUP)
    for part in told:
        other = next(kept, None)
        if other is None or not _are_equal(part, other):
            return False
    return next(kept, None) is None


def _are_equal(left: Ticks, right: Ticks) -> bool:
    if len(left) != len(right):
        return False
    left_names, right_names = (np.array(ticks.products, np.object_)[ticks.product] for ticks in (left, right))
    return bool(np.array_equal(left_names, right_names)) and all(
        np.array_equal(column, getattr(right, name), equal_nan=column.dtype.kind == "f")
        for name, column in left.columns()
        if name != "product"
    )


def _flush_names(folder: Path) -> None:
    """Flushes the names of a folder's files to the disk."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(paths: Sequence[Path], done: Compaction) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            path.unlink()
            done.removed.append(path)
