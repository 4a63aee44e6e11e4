"""What an earlier run of the recorder left: torn last lines, and when it recorded its last one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from volspike.locks import take
from volspike.market.time import UNREAD, parse_time
from volspike.tape.hours import HourName, read_hour_name
from volspike.tape.lines import decode_line
from volspike.tape.rejects import SetAside, rejected_path

_TAIL = 1 << 16


def repair_folder(folder: Path) -> list[Path]:
    """Cuts torn last lines off the recorded tapes of a folder; the tapes that were mended.

    A line that only lacks its line end gets it; any other is set aside as ``<tape>.rejected.ndjson``. A file in which
    there is nothing is removed. A tape that
    somebody writes at the moment is let alone, and so is one that cannot be changed: readers cope with it.

    Raises:
        OSError: the folder cannot be listed.
    """
    tapes = sorted(path for path in folder.iterdir() if path.suffix == ".ndjson" and read_hour_name(path) is not None)
    return [path for path in tapes if _is_mended(path)]


def _is_mended(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return False
    try:
        size = os.fstat(descriptor).st_size
        if (size and os.pread(descriptor, 1, size - 1) == b"\n") or not take(descriptor):
            return False
        if size == 0:  # killed before its first line
            path.unlink()
            return False
        return _mended(path, descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _mended(path: Path, descriptor: int) -> bool:
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    torn = text[whole:]
    if decode_line(torn) is not None:
        os.pwrite(descriptor, b"\n", len(text))
        return True
    aside = SetAside(path, joins=rejected_path(path).exists())
    aside.add(text.count(b"\n") + 1, "the recording ended in this line", torn)
    if aside.keep() is None:
        return False
    os.ftruncate(descriptor, whole)
    return True


def last_received(folder: Path) -> dict[str, int]:
    """When the last tick of each symbol (``BTCUSD``) in a folder's recorded tapes was received, ns UTC.

    Raises:
        OSError: the folder cannot be listed.
    """
    named: dict[str, list[tuple[HourName, Path]]] = {}
    for path in folder.iterdir():
        name = read_hour_name(path)
        if name is not None:
            named.setdefault(name.symbol, []).append((name, path))
    found = {symbol: _latest(sorted(tapes, reverse=True)) for symbol, tapes in named.items()}
    return {symbol: time for symbol, time in found.items() if time is not None}


def _latest(tapes: Iterable[tuple[HourName, Path]]) -> int | None:
    """The latest time of the last hour in which there is one; ``tapes`` are the latest first."""
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
            file.seek(max(0, path.stat().st_size - _TAIL))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for text in reversed(lines):
        line = decode_line(text)
        if line is not None and (time := parse_time(line.timestamp)) != UNREAD:
            return time
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
