"""Advisory file locks, which the operating system releases when their process ends, and the identity of open files."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EACCES)
_PID_BYTES = 20


def try_lock(descriptor: int) -> bool:
    """Locks an open file or folder until it is closed; False if another process holds the lock.

    Where such locks do not exist (Windows, some network file systems), every attempt succeeds.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _HELD_BY_ANOTHER
    return True


def is_in_place(descriptor: int, path: Path) -> bool:
    """Whether ``path`` is the open file; False if the file was removed, moved or replaced since it was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


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
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o644)
        if not try_lock(descriptor):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        with suppress(OSError):  # on a full disk the lock holds without the process id
            os.pwrite(descriptor, f"{os.getpid():<{_PID_BYTES - 1}}\n".encode(), 0)
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
