"""Retraining by the clock, beside a live run and out of its way: a process of its own, of the lowest priority.

Whoever listens to a market must not learn at the same time: what a model costs in memory and seconds belongs to a
process that the operating system lets wait. All that passes between the two is the folder of what is served.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Final, Protocol, Self

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from volspike.errors import UsageError

WEEKLY: Final = "0 2 * * mon"
"""Monday 02:00 UTC: the look for drift."""

DAILY: Final = "30 2 * * *"
"""Every night: whether a challenger that waits in shadow may be served."""

LATE_S: Final = 3600
"""A machine that slept through the hour catches up for so long."""

_LOWEST: Final = 19
_STOP_WITHIN_S: Final = 5.0

log = structlog.get_logger(__name__)


class Process(Protocol):
    """A run that can be waited for, and stopped."""

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status."""
        ...

    def terminate(self) -> None:
        """Asks it to end."""
        ...

    def kill(self) -> None:
        """Ends it."""
        ...


def cron(text: str) -> CronTrigger:
    """The trigger of a cron line (minute hour day month weekday, UTC); weekdays by name, since they are counted from
    Monday by some and from Sunday by others.

    Raises:
        UsageError: no such line, or a weekday by number.

    >>> cron("0 2 * * mon").get_next_fire_time(None, datetime(2026, 11, 25, tzinfo=UTC)).isoformat()
    '2026-11-30T02:00:00+00:00'
    """
    fields = text.split()
    if len(fields) == 5 and any(sign.isdigit() for sign in fields[4].partition("/")[0]):
        raise UsageError(
            f"{text!r}: name weekdays (mon … sun), their numbers mean different days to different programs"
        )
    try:
        return CronTrigger.from_crontab(text, timezone=UTC)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time to retrain ({error}); as in {WEEKLY!r}") from error


class RetrainingSchedule:
    """Runs ``volspike retrain`` with ``arguments`` at its times; a context manager, which stops what runs at the end.

    Never two at once: a time that finds a run going is passed over. ``start`` makes the process, ``now`` tells when
    each job is due next.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        check_at: str = WEEKLY,
        *,
        start: Callable[[Sequence[str]], Process] | None = None,
    ) -> None:
        self._arguments = tuple(arguments)
        self._start = start or start_at_lowest
        self._running: Process | None = None
        self._lock = Lock()
        self._is_closed = False
        self._scheduler = BackgroundScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": LATE_S}
        )
        self._scheduler.add_job(self.run, cron(check_at), args=["schedule"], id="check")
        self._scheduler.add_job(self.run, cron(DAILY), args=["shadow", "--only-shadow"], id="shadow")

    def __enter__(self) -> Self:
        self._scheduler.start()
        log.info("retraining_scheduled", **{name: due.isoformat() for name, due in self.due().items()})
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_closed = True
            running = self._running
        self._scheduler.shutdown(wait=False)
        if running is not None:
            _stop(running)

    def due(self) -> dict[str, datetime]:
        """Job → when it is due next."""
        return {job.id: job.next_run_time for job in self._scheduler.get_jobs()}

    def run(self, trigger: str, *more: str) -> int | None:
        """Runs now and waits for the end; the exit status, or None where another run is going or the end has come."""
        with self._lock:
            if self._running is not None or self._is_closed:
                log.info("retraining_passed_over", trigger=trigger)
                return None
            command = [sys.executable, "-m", "volspike", "retrain", "--if-needed", "--trigger", trigger]
            process = self._running = self._start([*command, *more, *self._arguments])
        log.info("retraining_started", trigger=trigger)
        status = process.wait()
        with self._lock:
            self._running = None
        log.info("retraining_ended", trigger=trigger, status=status)
        return status


def start_at_lowest(command: Sequence[str]) -> Process:
    """A process of one thread a library and the lowest priority; what it prints is left to its history."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    nowhere = subprocess.DEVNULL
    process = subprocess.Popen(  # noqa: S603 - the command is ours
        command, stdin=nowhere, stdout=nowhere, stderr=nowhere, env={**os.environ, **one}
    )
    if hasattr(os, "setpriority"):
        try:
            os.setpriority(os.PRIO_PROCESS, process.pid, _LOWEST)
        except OSError as error:  # it has ended already
            log.info("priority_not_set", reason=str(error))
    return process


def _stop(process: Process) -> None:
    """Asks a run to end, and ends it; what it had not finished changed nothing."""
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
