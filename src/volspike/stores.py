"""Damage to secondary stores: files next to the tape whose loss must not stop a program.

One rule holds for all of them. The content is checked when a file is read or opened. A file with other content keeps
its data under the name ``<name>.damaged-<time>``, which is logged, and a new file begins. A file that cannot be read or
written is a fault that is logged and shown; the program continues without it. Reading creates no file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog

DAMAGED: Final = ".damaged-"
"""Part of the name of a file or folder that was renamed because it is damaged."""

_MOST_NAMES: Final = 100

_log = structlog.get_logger(__name__)


def rename_damaged(path: Path, reason: str, companions: Sequence[str] = ()) -> Path | None:
    """Renames a damaged file or folder to ``<name>.damaged-<time>``; returns the new path, None if that fails.

    ``companions`` are endings of files that belong to it, such as ``-wal``, which are renamed with it.
    """
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = [f"{path.name}{DAMAGED}{stamp}{f'-{number}' if number else ''}" for number in range(_MOST_NAMES)]
    renamed = next((new for name in names if not os.path.lexists(new := path.with_name(name))), None)
    try:
        if renamed is None:
            raise FileExistsError(f"there are {_MOST_NAMES} damaged files of this second")
        for ending in companions:
            companion = path.with_name(path.name + ending)
            if companion.exists():
                companion.rename(renamed.with_name(renamed.name + ending))
        path.rename(renamed)
    except OSError as error:
        _log.error("damaged_file_not_renamed", file=str(path), reason=reason, error=error.strerror or str(error))
        return None
    _log.error("damaged_file_renamed", file=str(path), renamed=str(renamed), reason=reason)
    return renamed
