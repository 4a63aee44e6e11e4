"""Locks of files: one holder at a time, on POSIX and on Windows."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from volspike import locks
from volspike.locks import LockFile, is_in_place, try_lock


class WindowsLocks:
    """The module ``msvcrt``: a byte of a file is locked by one descriptor, at the position of that descriptor."""

    LK_NBLCK = 2

    def __init__(self) -> None:
        self.holders: dict[tuple[int, int], int] = {}

    def locking(self, descriptor: int, mode: int, count: int) -> None:
        assert (mode, count) == (self.LK_NBLCK, 1)
        place = (os.fstat(descriptor).st_ino, os.lseek(descriptor, 0, os.SEEK_CUR))
        if self.holders.setdefault(place, descriptor) != descriptor:
            raise PermissionError(errno.EACCES, "Permission denied")


@pytest.fixture(params=["this platform", "win32"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[WindowsLocks | None]:
    """The locks of this platform, and those of Windows on a fake ``msvcrt``."""
    if request.param != "win32":
        yield None
        return
    fake = WindowsLocks()
    monkeypatch.setattr(locks, "msvcrt", fake, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    yield fake


@pytest.mark.usefixtures("system")
def test_a_lock_has_one_holder(tmp_path: Path) -> None:
    """The second attempt fails and finds the process id of the first, which is kept after the release."""
    first, second = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    assert second.holder() == os.getpid()
    first.release()
    assert second.holder() == os.getpid()


def test_a_released_lock_can_be_acquired(tmp_path: Path) -> None:
    """The release makes way for another holder, also of a file that was removed in between."""
    first, second = LockFile(tmp_path / "lock"), LockFile(tmp_path / "lock")
    assert first.acquire()
    first.release()
    assert second.acquire()
    (tmp_path / "lock").unlink()
    assert second.acquire()
    assert (tmp_path / "lock").exists()


def test_the_locked_byte_is_beyond_the_content(tmp_path: Path, system: WindowsLocks | None) -> None:
    """Locking changes neither position nor size; on Windows other processes cannot read a locked byte."""
    path = tmp_path / "tape"
    path.write_bytes(b"content")
    with path.open("r+b", buffering=0) as file:
        file.seek(3)
        assert try_lock(file.fileno())
        assert file.tell() == 3
        assert path.read_bytes() == b"content"
        if system is not None:
            assert {position for _, position in system.holders} == {2**31 - 2}


def test_a_replaced_file_is_not_in_place(tmp_path: Path) -> None:
    """A file that was replaced by another one of its name is recognised."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with path.open("rb") as file:
        assert is_in_place(file.fileno(), path)
        (tmp_path / "new").write_bytes(b"new")
        (tmp_path / "new").replace(path)
        assert not is_in_place(file.fileno(), path)
