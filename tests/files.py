"""A recording fake of ``os``: the file operations of the code under test, in their order, carried out for real.

Durability has no effect that a test could read back: a file that was not flushed to the disk reads the same until the
power fails. What can be tested is the order of the calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class FileOperation(NamedTuple):
    """One call: its name, the file that it changed, and what was in the file at that moment.

    ``file`` is relative to the watched folder; of a rename it is the old name, and ``target`` the new one.
    """

    call: str
    file: str
    target: str
    size: int

    def __str__(self) -> str:
        return f"{self.call} {self.file}" + (f" -> {self.target}" if self.target else "")


class FileOperations:
    """The calls of ``os.write``, ``fsync``, ``rename``, ``replace``, ``unlink`` and ``rmdir`` below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.all: list[FileOperation] = []

    def names(self) -> list[str]:
        """The operations as text, such as ``"fsync a.part"`` and ``"rename a.part -> a"``."""
        return [str(operation) for operation in self.all]

    def of(self, file: str) -> list[str]:
        """The calls that changed the file of this name, in their order."""
        return [operation.call for operation in self.all if file in {operation.file, operation.target}]

    def record_descriptor(self, call: str, descriptor: int) -> None:
        """Records a call on an open file or folder."""
        path = self._path_of(descriptor)
        if path is not None:
            self._record(call, path)

    def record_path(self, call: str, path: Any, target: Any = None, folder_descriptor: int | None = None) -> None:
        """Records a call on a name; ``folder_descriptor`` is what a relative name is relative to."""
        folder = None if folder_descriptor is None else self._path_of(folder_descriptor)
        place = Path(path) if folder is None else folder / path
        if place.parent.resolve().is_relative_to(self._folder):
            self._record(call, place, target)

    def _record(self, call: str, path: Path, target: Any = None) -> None:
        size = path.stat().st_size if path.is_file() else 0
        new_name = "" if target is None else self._relative(Path(target))
        self.all.append(FileOperation(call, self._relative(path), new_name, size))

    def _relative(self, path: Path) -> str:
        return (path.parent.resolve() / path.name).relative_to(self._folder).as_posix()

    def _path_of(self, descriptor: int) -> Path | None:
        """The path of an open file below the folder; None for any other."""
        opened = os.fstat(descriptor)
        for path in (self._folder / ".", *self._folder.rglob("*")):
            try:
                if os.path.samestat(path.stat(), opened):
                    return path
            except FileNotFoundError:
                continue
        return None


@contextmanager
def recorded_operations(folder: Path) -> Iterator[FileOperations]:
    """Records the file operations below ``folder`` until the end of the block."""
    operations = FileOperations(folder)

    def on_descriptor(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(descriptor: Any, *args: Any) -> Any:
            result = real(descriptor, *args)
            operations.record_descriptor(name, descriptor if isinstance(descriptor, int) else descriptor.fileno())
            return result

        return call

    def on_path(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, target: Any = None, *, dir_fd: int | None = None) -> Any:
            if dir_fd is not None or os.path.lexists(path):
                operations.record_path(name, path, target, dir_fd)
            if target is not None:
                return real(path, target)
            return real(path, dir_fd=dir_fd)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("write", "fsync"):
            patch.setattr(os, name, on_descriptor(name, getattr(os, name)))
        for name, call in (("rename", "rename"), ("replace", "rename"), ("unlink", "unlink"), ("rmdir", "rmdir")):
            patch.setattr(os, name, on_path(call, getattr(os, name)))
        yield operations
