"""Advisory file locks, which the operating system releases when their process ends, and the state of files on disk."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EACCES)
_PID_BYTES = 20

BINARY: Final[int] = getattr(os, "O_BINARY", 0)
"""Flag of ``os.open`` without which Windows writes each line end as two bytes."""

_LOCKED_BYTE = 2**31 - 2
"""The byte that is locked on Windows, where other processes cannot read or write a locked byte: beyond all content."""


def try_lock(descriptor: int) -> bool:
    """Locks an open file or folder until it is closed; False if another process holds the lock.

    Where such locks do not exist (some network file systems), every attempt succeeds.
    """
    try:
        _lock(descriptor)
    except OSError as error:
        return error.errno not in _HELD_BY_ANOTHER
    return True


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_in_place(descriptor: int, path: Path) -> bool:
    """Whether ``path`` is the open file; False if the file was removed, moved or replaced since it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def sync_to_disk(path: Path) -> None:
    """Flushes a file to disk, or the names in a folder, which Windows cannot open."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows flushes only what may be written
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class LockFile:
    """A locked file with the process id of its holder. It stays in place when the lock is released.

    The file of a process that has ended can be locked at once, whichever way the process ended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Locks the file, again if it was removed since; False if another process holds the lock.

        Raises:
            OSError: the file cannot be created.
        """
        if self._descriptor is not None and is_in_place(self._descriptor, self.path):
            return True
        self.release()
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | BINARY, 0o644)
        if not try_lock(descriptor):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        # on a full disk the lock holds without the process id
        with suppress(OSError), open(descriptor, "r+b", buffering=0, closefd=False) as file:
            file.write(f"{os.getpid():<{_PID_BYTES - 1}}\n".encode())
        return True

    def holder(self) -> int | None:
        """The process id of the last holder; None if it is unknown."""
        try:
            with self.path.open("rb") as file:
                return int(file.read(_PID_BYTES))
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Releases the lock if it is held."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            with suppress(OSError):
                os.close(descriptor)
