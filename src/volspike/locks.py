"""Advisory file locks, which the operating system releases when the process that holds them ends."""

from __future__ import annotations

import errno
import sys

if sys.platform != "win32":
    import fcntl

_HELD_BY_ANOTHER = (errno.EWOULDBLOCK, errno.EACCES)


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
