"""The cache of compiled functions: which changes make it stale, and where it is kept."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from numba import config

from volspike.compiled import _warn_of_compilation, cache_folder

STEP = "from volspike.compiled import inlined\n\n@inlined\ndef step():\n    return {step}\n"
TOTAL = (
    "from volspike.compiled import compiled\n"
    "from counter.step import step\n\n"
    "@compiled\ndef total(count):\n    return count * step()\n"
)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package whose ``total.total`` inlines ``step.step`` of another module; every cache is below ``tmp_path``."""
    folder = tmp_path / "counter"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "step.py").write_text(STEP.format(step=2))
    (folder / "total.py").write_text(TOTAL)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(config, "CACHE_DIR", "")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    forget()


def forget() -> None:
    """Makes the next import read the package's files again, as a new process does."""
    for name in [name for name in sys.modules if name.split(".")[0] == "counter"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    cache_folder.cache_clear()


def load() -> ModuleType:
    forget()
    return importlib.import_module("counter.total")


def compilations(module: ModuleType) -> int:
    """How many versions of ``total`` were compiled, rather than read from disk."""
    return sum(module.total.stats.cache_misses.values())


def folders(parent: Path) -> list[Path]:
    return sorted(parent.rglob("numba-*"))


def test_machine_code_is_read_from_disk(package: Path) -> None:
    """A second process compiles nothing."""
    first = load()
    assert (first.total(3), compilations(first)) == (6, 1)
    second = load()
    assert (second.total(3), compilations(second)) == (6, 0)
    assert [folder.parent for folder in folders(package)] == [package / "__pycache__"]


def test_a_change_in_another_module_compiles_callers_again(package: Path) -> None:
    """A change to an inlined function reaches its callers, and the old machine code is removed, but no other file."""
    assert load().total(3) == 6
    (old,) = folders(package)
    (package / "__pycache__" / "step.pyc").touch()
    (package / "step.py").write_text(STEP.format(step=7))
    changed = load()
    assert (changed.total(3), compilations(changed)) == (21, 1)
    (new,) = folders(package)
    assert new != old
    assert (package / "__pycache__" / "step.pyc").exists()


@pytest.mark.posix
def test_a_package_that_cannot_be_written_is_cached_in_the_temporary_directory(package: Path, tmp_path: Path) -> None:
    """Where a package is installed read-only its machine code is kept in the temporary directory, for this user."""
    read_only(package / "__pycache__")
    assert load().total(3) == 6
    second = load()
    assert (second.total(3), compilations(second)) == (6, 0)
    (folder,) = folders(tmp_path)
    private = folder.parents[1]
    assert private.parent == tmp_path / "tmp"
    assert private.stat().st_mode & 0o777 == 0o700


def read_only(folder: Path) -> None:
    """Makes a folder impossible to write to, even for the superuser: there is a file in its place."""
    folder.touch()


@pytest.mark.posix
def test_nothing_is_loaded_from_a_folder_that_others_can_write(package: Path, tmp_path: Path) -> None:
    """A folder in the temporary directory that another user could fill is not used."""
    read_only(package / "__pycache__")
    load()
    (folder,) = folders(tmp_path)
    folder.parents[1].chmod(0o777)
    assert cache_folder.__wrapped__(package) is None


def test_without_a_writable_folder_functions_are_compiled_each_time(
    package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where nothing can be written, functions work and are compiled by every process, which says so once."""
    read_only(package / "__pycache__")
    (tmp_path / "tmp").rmdir()
    read_only(tmp_path / "tmp")
    _warn_of_compilation.cache_clear()
    for _ in range(2):
        module = load()
        assert module.total(3) == 6
        assert module.total.stats.cache_path is None
    assert folders(tmp_path) == []
    (record,) = caplog.records
    assert "set NUMBA_CACHE_DIR to a folder that can be written" in record.message


def test_a_read_only_folder_with_machine_code_is_used(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image with compiled functions and a read-only file system compiles nothing at its start."""
    assert load().total(3) == 6

    def refuse(_: Path) -> None:
        raise PermissionError("read-only file system")

    monkeypatch.setattr("volspike.compiled._prepare", refuse)
    second = load()
    assert (second.total(3), compilations(second)) == (6, 0)


@pytest.mark.parametrize("ending", ["*.nbi", "*.nbc"])
@pytest.mark.parametrize("content", [b"", b"\x80\x05half", b"not a pickle"])
def test_a_damaged_cache_fails_no_call(package: Path, ending: str, content: bytes) -> None:
    """A file that a full disk or a killed process left damaged costs a compilation."""
    assert load().total(3) == 6
    for file in package.rglob(ending):
        file.write_bytes(content)
    assert load().total(3) == 6


def test_a_cache_that_disappears_fails_no_call(package: Path) -> None:
    """A function whose cache folder can no longer be written is compiled, and works."""
    module = load()
    (folder,) = folders(package)
    folder.rmdir()
    folder.touch()
    assert module.total(3) == 6


def test_numba_cache_dir_comes_first(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``NUMBA_CACHE_DIR`` holds the cache if it is set, in a folder for each place of installation."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    assert load().total(3) == 6
    (folder,) = folders(tmp_path)
    assert folder.parents[1] == tmp_path / "cache" / "volspike"
    assert folder.parent.name.startswith("counter-")
