"""Repair of what an earlier recorder left: incomplete last lines, and the time of its last tick."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from volspike.locks import try_lock
from volspike.market import parse_time
from volspike.tape.lines import decode_line
from volspike.tape.names import HourName, read_hour_name
from volspike.tape.report import RejectedLines, rejected_path

_TAIL_BYTES = 1 << 16


def repair_folder(folder: Path) -> list[Path]:
    """Removes incomplete last lines from the recorded tapes of a folder; returns the tapes that changed.

    A line that lacks only its line end gets one; the rest of any other is moved to ``<tape>.rejected.ndjson``. Empty
    files are removed. Tapes that another process is writing or that cannot be changed stay as they are; readers cope.

    Raises:
        OSError: the folder cannot be listed.
    """
    tapes = sorted(path for path in folder.iterdir() if path.suffix == ".ndjson" and read_hour_name(path) is not None)
    return [path for path in tapes if _repair(path)]


def _repair(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        if (size and os.pread(descriptor, 1, size - 1) == b"\n") or not try_lock(descriptor):
            return False
        if size == 0:  # killed before its first line
            path.unlink()
            return False
        return _repair_last_line(path, descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _repair_last_line(path: Path, descriptor: int) -> bool:
    text = path.read_bytes()
    complete = text.rfind(b"\n") + 1
    last_line = text[complete:]
    if decode_line(last_line) is not None:
        os.pwrite(descriptor, b"\n", len(text))
        return True
    rejected = RejectedLines(path, appends=rejected_path(path).exists())
    rejected.add(text.count(b"\n") + 1, "the recording ended in this line", last_line)
    if rejected.keep() is None:
        return False
    os.ftruncate(descriptor, complete)
    return True


def last_received(folder: Path) -> dict[str, int]:
    """When the last tick of each symbol (``BTCUSD``) in a folder's recorded tapes was received, ns UTC.

    Raises:
        OSError: the folder cannot be listed.
    """
    tapes_of_symbol: dict[str, list[tuple[HourName, Path]]] = {}
    for path in folder.iterdir():
        name = read_hour_name(path)
        if name is not None:
            tapes_of_symbol.setdefault(name.symbol, []).append((name, path))
    latest = {symbol: _latest(sorted(tapes, reverse=True)) for symbol, tapes in tapes_of_symbol.items()}
    return {symbol: time for symbol, time in latest.items() if time is not None}


def _latest(tapes: Iterable[tuple[HourName, Path]]) -> int | None:
    """The latest time in the last hour that has one; ``tapes`` come newest first."""
    latest: int | None = None
    hour = ""
    for name, path in tapes:
        if latest is not None and name.hour != hour:
            break
        time = _last_in_parquet(path) if path.suffix == ".parquet" else _last_in_ndjson(path)
        if time is not None:
            latest, hour = time if latest is None else max(time, latest), name.hour
    return latest


def _last_in_ndjson(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for text in reversed(lines):
        line = decode_line(text)
        if line is not None:
            with suppress(ValueError):
                return parse_time(line.timestamp)
    return None


def _last_in_parquet(path: Path) -> int | None:
    try:
        with pq.ParquetFile(path) as file:
            if file.num_row_groups == 0:
                return None
            column = file.read_row_group(file.num_row_groups - 1, columns=["received"]).column(0)
            return int(column.cast(pa.int64())[-1].as_py()) if len(column) else None
    except (pa.ArrowException, OSError, KeyError):
        return None
