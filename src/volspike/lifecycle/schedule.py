"""Scheduled retraining: a process of its own with the lowest priority, next to a live run.

Training must not slow down the live process: its memory and CPU time belong to a process that the operating system can
delay. The two share nothing but the artifacts folder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import Final, Protocol

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from volspike.background import BackgroundTask, start_low_priority
from volspike.errors import DataError, UsageError

WEEKLY: Final = "0 2 * * mon"
"""Monday 02:00 UTC: drift check and retraining if needed."""

DAILY: Final = "30 2 * * *"
"""Daily 02:30 UTC: evaluation of a challenger in shadow."""

LATE_S: Final = 3600
"""A run missed because the machine slept is started up to this many seconds late."""

_EXPECTED_STATUSES: Final = frozenset({0, DataError.exit_status})
"""Of a run that worked, or had too little data; bad data is in the history and in the metric of the last training."""

_STOP_WITHIN_S: Final = 5.0

log = structlog.get_logger(__name__)


class Process(Protocol):
    """A running child process; ``subprocess.Popen``, or a fake in tests."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status."""
        ...

    def terminate(self) -> None:
        """Request termination."""
        ...

    def kill(self) -> None:
        """Force termination."""
        ...


def cron(text: str) -> CronTrigger:
    """The trigger of a cron line (minute hour day month weekday, UTC).

    Weekdays are given by name: cron counts their numbers from Sunday, APScheduler from Monday.

    Raises:
        UsageError: an invalid line, or a weekday by number.

    >>> cron("0 2 * * mon").get_next_fire_time(None, datetime(2026, 11, 25, tzinfo=UTC)).isoformat()
    '2026-11-30T02:00:00+00:00'
    """
    fields = text.split()
    if len(fields) == 5 and any(sign.isdigit() for sign in fields[4].partition("/")[0]):
        raise UsageError(f"{text!r}: give weekdays by name (mon … sun); their numbers differ between programs")
    try:
        return CronTrigger.from_crontab(text, timezone=UTC)
    except ValueError as error:
        raise UsageError(f"{text!r} is not a cron schedule ({error}); an example is {WEEKLY!r}") from error


class RetrainingSchedule:
    """Runs ``volspike retrain`` with ``arguments`` on schedule; a context manager that stops a running process on exit.

    At most one run at a time: a run that is due while another is active is skipped. ``start`` creates the process. Its
    context returns its background task, which fails with a run that cannot be started or that ends with an error.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        check_at: str = WEEKLY,
        *,
        start: Callable[[Sequence[str]], Process] | None = None,
    ) -> None:
        self._arguments = tuple(arguments)
        self._start = start or start_low_priority
        self._running: Process | None = None
        self._lock = Lock()
        self._is_closed = False
        self._task = BackgroundTask("retraining")
        self._scheduler = BackgroundScheduler(
            timezone=UTC, job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": LATE_S}
        )
        self._scheduler.add_job(self.run, cron(check_at), args=["schedule"], id="check")
        self._scheduler.add_job(self.run, cron(DAILY), args=["shadow", "--only-shadow"], id="shadow")

    def __enter__(self) -> tuple[BackgroundTask, ...]:
        self._scheduler.start()
        log.info("retraining_scheduled", **{name: due.isoformat() for name, due in self.due().items()})
        return (self._task,)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._is_closed = True
            running = self._running
        self._scheduler.shutdown(wait=False)
        if running is not None:
            _stop(running)

    def due(self) -> dict[str, datetime]:
        """Job → its next run time."""
        return {job.id: job.next_run_time for job in self._scheduler.get_jobs()}

    def run(self, trigger: str, *more: str) -> int | None:
        """Run now and wait; the exit status, or None if there was no run.

        There is none while another is active, after the end of the schedule, and if the process cannot be started.
        """
        try:
            status = self._run_process(trigger, more)
        except Exception as error:  # noqa: BLE001  the boundary of the task: the next run is started at its time
            self._task.fail(error)
            return None
        if status in _EXPECTED_STATUSES:
            self._task.succeed()
        elif status is not None and not self._is_closed:
            self._task.fail(f"a run ended with status {status}; `volspike retrain` shows its error")
        return status

    def _run_process(self, trigger: str, more: Sequence[str]) -> int | None:
        with self._lock:
            if self._running is not None or self._is_closed:
                log.info("retraining_skipped", trigger=trigger)
                return None
            command = [sys.executable, "-m", "volspike", "retrain", "--if-needed", "--trigger", trigger]
            process = self._running = self._start([*command, *more, *self._arguments])
        log.info("retraining_started", trigger=trigger)
        try:
            status = process.wait()
        finally:
            with self._lock:
                self._running = None
        log.info("retraining_ended", trigger=trigger, status=status)
        return status


def _stop(process: Process) -> None:
    """Terminate a run, by force after a timeout; an unfinished run changes nothing."""
    process.terminate()
    try:
        process.wait(_STOP_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
