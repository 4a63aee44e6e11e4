"""One file of a tape that is being recorded: appended to under its final name, whole lines or none.

What an earlier run of the recorder left: torn last lines, and when it recorded its last one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from volspike.locks import take
from volspike.market import SECOND_NS, parse_time
from volspike.tape.lines import decode_line
from volspike.tape.names import HourName, read_hour_name, symbol_of, tape_name
from volspike.tape.report import SetAside, rejected_path

HOUR_NS = 3_600 * SECOND_NS

_SAME_SECOND = 1_000
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)


class HourFile:
    """The lines of one product in one hour (UTC), buffered until ``write_out``.

    ``latest`` is when the last line that lies in the file was received, None before the first one.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path, product_id: str, received: int) -> None:
        self.hour = received // HOUR_NS
        self.latest: int | None = None
        self.lines = 0
        self.path, self._descriptor = _created(folder, product_id, received)
        take(self._descriptor)
        self._size = 0
        self._held: list[bytes] = []
        self._times: list[int] = []

    @property
    def held(self) -> int:
        """How many lines wait to be written."""
        return len(self._held)

    @property
    def oldest_held(self) -> int:
        """When the first of the lines that wait was received."""
        return self._times[0]

    def append(self, line: bytes, received: int) -> None:
        """Takes in one line, its line end included."""
        self._held.append(line)
        self._times.append(received)

    def write_out(self) -> None:
        """Hands what is held to the operating system.

        Raises:
            OSError: not all of it could be written, or the file was removed. What lies in the file are whole
                lines, and what could not be written is still held.
        """
        if not self._held:
            return
        if os.fstat(self._descriptor).st_nlink == 0:
            raise OSError(errno.ENOENT, "the file was removed while it was recorded", str(self.path))
        text = memoryview(b"".join(self._held))
        written = 0
        try:
            while written < len(text):
                written += os.write(self._descriptor, text[written:])
        finally:
            self._settle(bytes(text[:written]))

    def _settle(self, written: bytes) -> None:
        """Counts the whole lines of what was written, and cuts off the torn one behind them."""
        whole = written.rfind(b"\n") + 1
        self._size += whole
        if whole < len(written):
            with suppress(OSError):  # then the torn line stays until the next start
                os.ftruncate(self._descriptor, self._size)
        lines = written.count(b"\n")
        if lines:
            self.latest = self._times[lines - 1]
        self.lines += lines
        del self._held[:lines], self._times[:lines]

    def finish(self) -> None:
        """Puts the file on the disk and closes it.

        Raises:
            OSError: the disk did not take it.
        """
        try:
            os.fsync(self._descriptor)
        finally:
            os.close(self._descriptor)

    def abandon(self) -> None:
        """Closes the file as it is; one in which there is nothing is removed."""
        os.close(self._descriptor)
        if self._size == 0:
            with suppress(OSError):
                self.path.unlink()


def _created(folder: Path, product_id: str, received: int) -> tuple[Path, int]:
    """A new file and its descriptor; the second of the same name ends in ``_2``."""
    # what a product is called comes from outside, and is not to name another folder
    name = tape_name(symbol_of(product_id), received, "")
    for number in range(1, _SAME_SECOND):
        path = folder / f"{name}{f'_{number}' if number > 1 else ''}.ndjson"
        with suppress(FileExistsError):
            return path, os.open(path, _NEW, 0o644)
    raise FileExistsError(errno.EEXIST, f"there are {_SAME_SECOND} of them", str(folder / name))


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
