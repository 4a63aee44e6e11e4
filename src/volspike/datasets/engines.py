"""Engines of a shared replay: the cores of this machine, or Ray.

Locally, processes read tapes, because parsing is Python's work, and threads compute features, because the kernel
releases the GIL. On a Ray cluster every node needs the tapes under the same path and the same version of volspike; Ray
repeats the units of a lost node up to three times.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from volspike.datasets.bulk import Engine, Made, Work, enter_worker, make, read_spool, spool_tape
from volspike.errors import UsageError, WorkerLost
from volspike.market import Ticks
from volspike.tape import TapeReport, read_ticks

State = Future[tuple[Made, bytes]] | bytes | None


@dataclass(frozen=True, slots=True)
class _Unit:
    state: Future[tuple[Made, bytes]]

    def made(self) -> Made:
        return self.state.result()[0]


@dataclass(frozen=True, slots=True)
class _Tape:
    spool: Path
    whole: Future[TapeReport]

    def ticks(self) -> Iterator[Ticks]:
        self.report()
        try:
            yield from read_spool(self.spool)
        finally:
            self.spool.unlink()

    def report(self) -> TapeReport:
        with _whole_pool():
            return self.whole.result()


@contextmanager
def _whole_pool(*broken: type[Exception]) -> Iterator[None]:
    ends: tuple[type[Exception], ...] = (BrokenProcessPool, *broken)
    try:
        yield
    except ends as error:
        raise WorkerLost(
            "a process that read tapes ended before it was done (killed, or out of memory); nothing was written: "
            "try again, with fewer --workers if memory is short"
        ) from error


class LocalEngine:
    """``workers`` processes and threads; a context manager that leaves none of them behind.

    Ticks that were read ahead lie in a temporary folder, some 100 bytes each.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._others = set(multiprocessing.active_children())
        # spawned, since a fork of a process with threads may inherit a lock that nobody will release
        context = multiprocessing.get_context("spawn")
        self._processes = ProcessPoolExecutor(workers, context, enter_worker)
        self._threads = ThreadPoolExecutor(workers)
        self._folder = tempfile.TemporaryDirectory(prefix="volspike-")
        self._count = 0

    def read(self, tape: Path) -> _Tape:
        """Begins to read a tape in a process."""
        self._count += 1
        spool = Path(self._folder.name) / f"{self._count}.arrow"
        # a pool that breaks while it starts a process for this tape may have closed that process's pipe already
        with _whole_pool(OSError):
            return _Tape(spool, self._processes.submit(spool_tape, tape, spool))

    def begin(self, work: Work, state: State) -> _Unit:
        """Begins a unit in a thread. Units start in the order in which they came, so none waits for a later one."""
        return _Unit(self._threads.submit(_make, work, state))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what is under way: after an error or Ctrl-C nobody wants it."""
        self._threads.shutdown(cancel_futures=True)
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()
        self._processes.shutdown(cancel_futures=True)
        with suppress(OSError):
            self._folder.cleanup()


def _make(work: Work, state: State) -> tuple[Made, bytes]:
    return make(work, state.result()[1] if isinstance(state, Future) else state)


OBJECT_STORE_BYTES = 1 << 30
"""Memory of the local cluster for what is under way; beyond it Ray goes to its temporary folder."""


def _ray() -> Any:
    """Ray, imported now. It neither reports its use nor warns of hardware that nobody asked for."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415  an extra
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'volspike[ray]', or take --engine local") from error
    return ray


@dataclass(frozen=True, slots=True)
class _RayUnit:
    engine: RayEngine
    rows: Any
    state: Any

    def made(self) -> Made:
        made: Made = self.engine.got(self.rows)
        return made


@dataclass(slots=True)
class _RayTape:
    engine: RayEngine
    parts: Any
    _report: TapeReport = field(default_factory=TapeReport)

    def ticks(self) -> Iterator[Ticks]:
        for reference in self.parts:
            part = self.engine.got(reference)
            if isinstance(part, TapeReport):
                self._report = part
            else:
                yield part

    def report(self) -> TapeReport:
        return self._report


class RayEngine:
    """Units as Ray tasks; a context manager. Without an ``address`` a local cluster of ``workers`` runs on loopback.

    Raises:
        UsageError: Ray is not installed, or no cluster answers at the address.
    """

    def __init__(self, workers: int, address: str | None = None) -> None:
        self._ray = _ray()
        self._folder = None if address else tempfile.mkdtemp(prefix="volspike-ray-")
        try:
            self._connect(workers, address)
        except BaseException:
            self.__exit__()
            raise
        self.workers = workers if address is None else max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._make = self._ray.remote(num_returns=2)(make)
        # a part in the making and one on its way: a long tape does not fill the store
        self._read = self._ray.remote(num_returns="streaming", _generator_backpressure_num_objects=4)(_parts)

    def _connect(self, workers: int, address: str | None) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        if address is not None:
            try:
                self._ray.init(address=address, **quiet)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise UsageError(f"no Ray cluster answers at {address}: {str(error).splitlines()[0]}") from error
            return
        self._ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            _node_ip_address="127.0.0.1",
            _temp_dir=self._folder,
            **quiet,
        )

    def read(self, tape: Path) -> _RayTape:
        """Begins to read a tape."""
        return _RayTape(self, self._read.remote(tape, Path.cwd()))

    def begin(self, work: Work, state: Any) -> _RayUnit:
        """Begins a unit; Ray waits for the state of the unit before it."""
        return _RayUnit(self, *self._make.remote(work, state))

    def got(self, reference: Any) -> Any:
        """What a task has made; its own error where it raised one."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"Ray lost a unit ({type(error).__name__}); nothing was written: try again") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the cluster; the local one ends with all its processes."""
        self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _parts(tape: Path, folder: Path) -> Iterator[Ticks | TapeReport]:
    """The ticks of a tape, and what became of it. ``folder`` is what relative paths are relative to."""
    if not tape.is_absolute():
        os.chdir(folder)
    report = TapeReport()
    yield from read_ticks([tape], report=report)
    yield report


ENGINES = ("local", "ray")


def engine_of(name: str, workers: int | None, address: str | None) -> AbstractContextManager[Engine | None]:
    """The engine of this name, to be entered; None for one pass.

    ``workers`` None means one pass with ``local``, since each process takes memory of its own; with ``ray`` the cores.

    Raises:
        UsageError: no such engine, or Ray is not there.
    """
    if name not in ENGINES:
        raise UsageError(f"--engine is one of {', '.join(ENGINES)}; was {name!r}")
    if address is not None and name != "ray":
        raise UsageError("--ray-address belongs to --engine ray")
    if name == "ray":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

        return RayEngine(workers or cores, address)
    if workers is None or workers == 1:
        return nullcontext()

    return LocalEngine(workers)
