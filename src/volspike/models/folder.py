"""Replacing a folder as a whole: written beside it, checked, then renamed into its place.

Who reads meanwhile meets the old folder, the new one, or, between two renames, none; never a mixture.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import uuid4

from volspike.errors import UsageError


def replace_folder(folder: Path, files: Mapping[str, bytes], *, mark: str, check: Callable[[Path], object]) -> None:
    """Make ``folder`` hold exactly ``files`` (name → content), or leave it as it was.

    ``check`` is called on the new folder before it takes the place of the old; what it raises stops the
    replacement. A folder that holds something but no file named ``mark`` is not ours and is left alone.

    Raises:
        UsageError: ``folder`` is not ours, or cannot be written.
    """
    if folder.exists() and not _is_ours(folder, mark):
        raise UsageError(f"{folder} holds something else than an artifact; name another folder, or move it away")
    beside = folder.parent / f".{folder.name}.{uuid4().hex[:8]}"
    try:
        _write(beside, files)
        check(beside)
        _swap(beside, folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _is_ours(folder: Path, mark: str) -> bool:
    return folder.is_dir() and ((folder / mark).is_file() or not any(folder.iterdir()))


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _swap(new: Path, folder: Path) -> None:
    """Rename the old folder aside and the new one into its place; if that fails, the old one back."""
    if not folder.exists():
        new.rename(folder)
        return
    aside = new.with_name(new.name + ".old")
    folder.rename(aside)
    try:
        new.rename(folder)
    except OSError:
        aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)
