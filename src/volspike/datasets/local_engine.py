"""The cores of one machine: tapes are read by processes, features computed by threads.

Reading tapes is Python's work and needs processes; the feature kernel releases the GIL, and threads spare it the way of
its rows from one process to another.
"""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from volspike.datasets.units import Made, Work, make
from volspike.errors import WorkerLost
from volspike.market import Ticks
from volspike.tape import TapeReport
from volspike.tape.spool import enter_worker, read_spool, spool_tape

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
