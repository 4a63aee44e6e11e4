"""Compilation by numba, with the machine code kept on disk.

numba's own cache checks one file, that of the function it compiled. A caller with a function of another module inlined
into it would keep running the old machine code of that function after a change. Here the cache folder carries a digest
of every source file in the package, so a change to any of them compiles all functions of the package again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import config, njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compiles a function at its first call with given types and keeps the machine code on disk.

    It releases the GIL, divides by IEEE 754 (x / 0 is infinite or NaN) and reorders no arithmetic.
    """
    return _jit(function)


def internal(function: F) -> F:
    """Like ``compiled``, for calls from compiled functions only: without a way in from Python it compiles faster."""
    return _jit(function, no_cpython_wrapper=True)


def inlined(function: F) -> F:
    """Like ``internal``, and always inlined into its callers."""
    return _jit(function, no_cpython_wrapper=True, forceinline=True)


def _jit(function: F, **options: bool) -> F:
    dispatcher: Any = njit(nogil=True, error_model="numpy", no_cfunc_wrapper=True, **options)(function)
    if cache_folder(Path(function.__code__.co_filename).parent) is not None:
        dispatcher._cache = _PackageCache(function)  # noqa: SLF001  njit(cache=True) would set numba's own here
    return cast("F", dispatcher)


@intrinsic  # type: ignore[untyped-decorator]
def borrowed(_typing: Any, array: Any) -> Any:
    """In a compiled function: a view of an array that is not reference-counted.

    Counting is atomic, and numba counts whenever an array is taken out of a NamedTuple. The caller of the compiled
    function must keep the array alive until it returns, which Python does for arguments; never return such a view.
    """

    def build_view(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        view = make_array(array)(context, builder, values[0])
        view.meminfo = view.meminfo.type(None)
        view.parent = view.parent.type(None)
        return view._getvalue()  # noqa: SLF001  numba's way to read a structure it built

    return array(array), build_view


@cache
def cache_folder(package: Path) -> Path | None:
    """The folder for the machine code of the functions in a package (a folder of Python files).

    It is below ``NUMBA_CACHE_DIR`` if that is set, otherwise in the package's ``__pycache__``; where neither can be
    written, below the temporary directory. A read-only folder that already holds machine code, as in an image, is used
    as it is. None if nothing can be written, which is logged, or if the package has no source files. Folders of earlier
    versions of the package are removed when a new one is created.
    """
    if not any(package.glob("*.py")):
        return None
    name = f"numba-{source_digest(package)}"
    for parent in _parents(package):
        with suppress(OSError):
            if not _holds_code(parent / name):
                _prepare(parent / name)
            return parent / name
    _warn_of_compilation()
    return None


def _holds_code(folder: Path) -> bool:
    """Whether a folder has an index of machine code that can be read."""
    return any(os.access(index, os.R_OK) for index in folder.glob("*.nbi"))


@cache
def _warn_of_compilation() -> None:
    """Says once per process why its start takes long."""
    logging.getLogger(__name__).warning(
        "no folder for compiled code can be written, so that every start compiles again, for up to a minute; "
        "set NUMBA_CACHE_DIR to a folder that can be written"
    )


def source_digest(package: Path) -> str:
    """A digest of the source files in a package, and of the compiler options in this module."""
    digest = hashlib.sha256()
    for source in (*sorted(package.glob("*.py")), Path(__file__)):
        content = source.read_bytes()
        digest.update(f"{source.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]


def _parents(package: Path) -> Iterator[Path]:
    """Where the cache folder of a package may be, best place first."""
    name = f"{package.name}-{hashlib.sha256(os.fsencode(package)).hexdigest()[:8]}"
    if config.CACHE_DIR:
        yield Path(config.CACHE_DIR) / "volspike" / name
    yield package / "__pycache__"
    with suppress(OSError):  # there is no temporary directory, or our folder in it is not private
        yield _private_folder() / name


def _private_folder() -> Path:
    """This user's folder in the temporary directory; private, because loading machine code means running it."""
    temporary = Path(tempfile.gettempdir())
    if sys.platform == "win32":
        return temporary / "volspike"  # the temporary directory is this user's
    else:  # noqa: RET505  the type checker reads the branch of its platform only
        folder = temporary / f"volspike-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise PermissionError(f"{folder} can be written by other users")
        return folder


def _prepare(folder: Path) -> None:
    """Creates a cache folder in place of its predecessors.

    Raises:
        OSError: it cannot be written.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()  # the folder may exist and still be read-only
    if is_new:
        for other in folder.parent.glob("numba-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)


class _PackageLocator:
    """Where numba keeps the machine code of a function, and the digest of its sources."""

    def __init__(self, function: Callable[..., Any], file: str, folder: Path) -> None:
        self._line = function.__code__.co_firstlineno
        self._py_file = file  # numba names it in warnings
        self._folder = folder

    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _PackageLocator | None:
        folder = cache_folder(Path(file).parent)
        return None if folder is None else cls(function, file, folder)

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return self._folder.name

    def get_disambiguator(self) -> str:
        return str(self._line)


class _PackageCacheImpl(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_PackageLocator,)


class _PackageCache(FunctionCache):  # type: ignore[misc]
    """numba's cache of one function. A full disk, a removed folder or a damaged file costs a compilation only."""

    _impl_class = _PackageCacheImpl

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        with suppress(Exception):  # unpickling a damaged file may raise anything
            return super().load_overload(sig, target_context)
        return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(Exception):  # it reads the index first
            super().save_overload(sig, data)
