"""Who writes a file: an advisory lock that the operating system lets go of when its holder ends, however it ends."""

from __future__ import annotations

import errno
import sys

if sys.platform != "win32":
    import fcntl

_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


def take(descriptor: int) -> bool:
    """Takes the lock of an open file or folder until it is closed; False where another holds it.

    Where there are no such locks (Windows, some network folders) nobody is ever in the way.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _TAKEN
    return True
