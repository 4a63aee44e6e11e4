"""One file of a tape that is being recorded: appended to under its final name, whole lines or none."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

from volspike.locks import take
from volspike.market import SECOND_NS
from volspike.tape.names import symbol_of, tape_name

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
