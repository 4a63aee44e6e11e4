"""Engines of the parallel replay: the cores of this machine, or a Ray cluster.

The local engine reads tapes in processes, because parsing holds the GIL, and computes features in threads, because the
kernel releases it. On a Ray cluster, every node needs the tapes under the same path and the same version of volspike.
Ray repeats the units of a lost node up to three times.
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

from volspike.datasets.bulk import BulkEngine, UnitInput, UnitResult, enter_worker, read_spool, run_unit, spool_tape
from volspike.errors import UsageError, WorkerLost
from volspike.market import Ticks
from volspike.tape import TapeReport, read_ticks

State = Future[tuple[UnitResult, bytes]] | bytes | None


@dataclass(frozen=True, slots=True)
class _Unit:
    state: Future[tuple[UnitResult, bytes]]

    def result(self) -> UnitResult:
        return self.state.result()[0]


@dataclass(frozen=True, slots=True)
class _Tape:
    spool: Path
    future: Future[TapeReport]

    def ticks(self) -> Iterator[Ticks]:
        self.report()
        try:
            yield from read_spool(self.spool)
        finally:
            self.spool.unlink()

    def report(self) -> TapeReport:
        with _report_lost_worker():
            return self.future.result()


@contextmanager
def _report_lost_worker(*broken: type[Exception]) -> Iterator[None]:
    lost: tuple[type[Exception], ...] = (BrokenProcessPool, *broken)
    try:
        yield
    except lost as error:
        raise WorkerLost(
            "a worker process ended while it read a tape (killed or out of memory); nothing was written: "
            "try again, with fewer --workers if memory is short"
        ) from error


class LocalEngine:
    """``workers`` processes and ``workers`` threads; a context manager that ends all of them.

    Ticks that were read ahead are kept in a temporary folder, about 100 bytes each.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._others = set(multiprocessing.active_children())
        # spawned: a fork of a process with threads may inherit a lock that is never released
        context = multiprocessing.get_context("spawn")
        self._processes = ProcessPoolExecutor(workers, context, enter_worker)
        self._threads = ThreadPoolExecutor(workers)
        self._folder = tempfile.TemporaryDirectory(prefix="volspike-")
        self._count = 0

    def read(self, tape: Path) -> _Tape:
        """Starts to read a tape in a process."""
        self._count += 1
        spool = Path(self._folder.name) / f"{self._count}.arrow"
        # a pool that breaks while it starts a process may have closed the pipe of that process
        with _report_lost_worker(OSError):
            return _Tape(spool, self._processes.submit(spool_tape, tape, spool))

    def start(self, unit: UnitInput, state: State) -> _Unit:
        """Starts a unit in a thread. Units start in the order of submission, so no unit waits for a later one."""
        return _Unit(self._threads.submit(_run_unit, unit, state))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stops all workers, including those with unfinished work, and removes the temporary folder."""
        self._threads.shutdown(cancel_futures=True)
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()
        self._processes.shutdown(cancel_futures=True)
        with suppress(OSError):
            self._folder.cleanup()


def _run_unit(unit: UnitInput, state: State) -> tuple[UnitResult, bytes]:
    return run_unit(unit, state.result()[1] if isinstance(state, Future) else state)


OBJECT_STORE_BYTES = 1 << 30
"""Object store memory of the local Ray cluster; Ray spills what exceeds it to its temporary folder."""


def _ray() -> Any:
    """The Ray module, imported on use, with usage reports and accelerator warnings off."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # noqa: PLC0415  an extra
    except ImportError as error:
        raise UsageError("--engine ray needs Ray: pip install 'volspike[ray]', or use --engine local") from error
    return ray


@dataclass(frozen=True, slots=True)
class _RayUnit:
    engine: RayEngine
    rows: Any
    state: Any

    def result(self) -> UnitResult:
        result: UnitResult = self.engine.get(self.rows)
        return result


@dataclass(slots=True)
class _RayTape:
    engine: RayEngine
    chunks: Any
    _report: TapeReport = field(default_factory=TapeReport)

    def ticks(self) -> Iterator[Ticks]:
        for reference in self.chunks:
            chunk = self.engine.get(reference)
            if isinstance(chunk, TapeReport):
                self._report = chunk
            else:
                yield chunk

    def report(self) -> TapeReport:
        return self._report


class RayEngine:
    """Runs units as Ray tasks; a context manager. Without ``address`` it starts a local cluster of ``workers`` CPUs.

    Raises:
        UsageError: Ray is not installed, or no cluster answers at ``address``.
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
        self._run_unit = self._ray.remote(num_returns=2)(run_unit)
        # backpressure keeps a long tape from filling the object store
        self._read = self._ray.remote(num_returns="streaming", _generator_backpressure_num_objects=4)(_read_chunks)

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
        """Starts to read a tape in a Ray task."""
        return _RayTape(self, self._read.remote(tape, Path.cwd()))

    def start(self, unit: UnitInput, state: Any) -> _RayUnit:
        """Submits a unit; Ray starts it when the state of the previous unit is available."""
        return _RayUnit(self, *self._run_unit.remote(unit, state))

    def get(self, reference: Any) -> Any:
        """The result of a task; raises the original error of a failed task."""
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise WorkerLost(f"Ray lost a unit ({type(error).__name__}); nothing was written: try again") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnects from the cluster, and ends a local one with all its processes."""
        self._ray.shutdown()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _read_chunks(tape: Path, folder: Path) -> Iterator[Ticks | TapeReport]:
    """The ticks of a tape, then its report. Relative paths are resolved against ``folder``."""
    if not tape.is_absolute():
        os.chdir(folder)
    report = TapeReport()
    yield from read_ticks([tape], report=report)
    yield report


ENGINES = ("local", "ray")


def create_engine(name: str, workers: int | None, address: str | None) -> AbstractContextManager[BulkEngine | None]:
    """A context manager for the named engine; it yields None for a single pass in this process.

    Without ``workers``, ``local`` means a single pass, since each process needs memory of its own, and ``ray`` uses one
    worker per core.

    Raises:
        UsageError: the engine is unknown, an address is given without Ray, or Ray is not installed.
    """
    if name not in ENGINES:
        raise UsageError(f"--engine must be one of {', '.join(ENGINES)}, was {name!r}")
    if address is not None and name != "ray":
        raise UsageError("--ray-address requires --engine ray")
    if name == "ray":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return RayEngine(workers or cores, address)
    if workers is None or workers == 1:
        return nullcontext()
    return LocalEngine(workers)
