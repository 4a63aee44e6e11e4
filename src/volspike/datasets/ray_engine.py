"""Ray: the same units on a cluster, or on a local one that is started for the replay and stopped after it.

On a cluster every node sees the tapes under the same path and has the same volspike. Where a node or worker is lost,
Ray does its units again, three times at most; they depend on nothing but what they are given.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from volspike.datasets.units import Made, Work, make
from volspike.errors import UsageError, WorkerLost
from volspike.market import Ticks
from volspike.tape import TapeReport, read_ticks

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
class _Unit:
    engine: RayEngine
    rows: Any
    state: Any

    def made(self) -> Made:
        made: Made = self.engine.got(self.rows)
        return made


@dataclass(slots=True)
class _Tape:
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

    def read(self, tape: Path) -> _Tape:
        """Begins to read a tape."""
        return _Tape(self, self._read.remote(tape, Path.cwd()))

    def begin(self, work: Work, state: Any) -> _Unit:
        """Begins a unit; Ray waits for the state of the unit before it."""
        return _Unit(self, *self._make.remote(work, state))

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
