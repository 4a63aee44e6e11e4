"""Scheduled retraining: its times, at most one run at once, and no run outlives its schedule."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Event, Thread

import pytest

from volspike.background import start_low_priority
from volspike.errors import UsageError
from volspike.lifecycle.schedule import DAILY, WEEKLY, RetrainingSchedule, cron


class FakeProcess:
    """A process that ends on terminate, or when ``ended`` is set."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.ended = Event()
        self.calls: list[str] = []
        self.status = 0

    def wait(self, timeout: float | None = None) -> int:
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.command, timeout or 0.0)
        return self.status

    def terminate(self) -> None:
        self.calls.append("terminate")
        self.ended.set()

    def kill(self) -> None:
        self.calls.append("kill")


class FakeStart:
    """Starts fake processes and keeps them; ``started`` is set at the first."""

    def __init__(self) -> None:
        self.runs: list[FakeProcess] = []
        self.started = Event()

    def __call__(self, command: Sequence[str]) -> FakeProcess:
        self.runs.append(FakeProcess(command))
        self.started.set()
        return self.runs[-1]


def after(text: str, moment: datetime) -> str:
    """The next run time of a cron line."""
    due = cron(text).get_next_fire_time(None, moment)
    assert due is not None
    return str(due.isoformat())


def test_default_times() -> None:
    """Checks run on Mondays at 02:00 UTC all year round, also at exactly that time; shadow is evaluated daily."""
    assert after(WEEKLY, datetime(2026, 11, 25, tzinfo=UTC)) == "2026-11-30T02:00:00+00:00"
    assert after(WEEKLY, datetime(2026, 11, 30, 2, tzinfo=UTC)) == "2026-11-30T02:00:00+00:00"
    assert after(WEEKLY, datetime(2026, 3, 30, 2, 0, 1, tzinfo=UTC)) == "2026-04-06T02:00:00+00:00"
    assert after(DAILY, datetime(2026, 11, 25, tzinfo=UTC)) == "2026-11-25T02:30:00+00:00"


@pytest.mark.parametrize("text", ["", "monday", "0 2 * * 1", "61 2 * * mon", "0 2 * * mon *"])
def test_invalid_times_are_refused(text: str) -> None:
    """An invalid cron line is refused, and so are weekdays by number, whose meaning differs between programs."""
    with pytest.raises(UsageError):
        cron(text)


def test_command_has_trigger_and_arguments() -> None:
    """The command retrains only if needed, names its trigger, and passes on the folders of the live run."""
    starter = FakeStart()
    schedule = RetrainingSchedule(["--tape", "there"], start=starter)
    thread = Thread(target=schedule.run, args=("schedule",))
    thread.start()
    assert starter.started.wait(10)
    starter.runs[0].ended.set()
    thread.join(10)
    command = starter.runs[0].command
    assert command[:4] == [sys.executable, "-m", "volspike", "retrain"]
    assert command[4:] == ["--if-needed", "--trigger", "schedule", "--tape", "there"]


def test_one_run_at_a_time_and_none_after_the_end() -> None:
    """A run due while another is active is skipped; closing the schedule ends the active run and starts no other."""
    starter = FakeStart()
    schedule = RetrainingSchedule([], start=starter)
    with schedule:
        assert set(schedule.due()) == {"check", "shadow"}
        thread = Thread(target=schedule.run, args=("schedule",))
        thread.start()
        assert starter.started.wait(10)
        assert schedule.run("shadow") is None
    thread.join(10)
    assert starter.runs[0].calls == ["terminate"]
    assert schedule.run("schedule") is None
    assert len(starter.runs) == 1


def test_a_run_that_fails_is_reported_and_the_next_one_starts() -> None:
    """A process that cannot be started, or ends with an error, is a fault of the task until a run succeeds."""
    endings: list[OSError | int] = [OSError("no more processes"), 1, 3, 0]

    def start(command: Sequence[str]) -> FakeProcess:
        ending = endings.pop(0)
        if isinstance(ending, OSError):
            raise ending
        process = FakeProcess(command)
        process.status = ending
        process.ended.set()
        return process

    schedule = RetrainingSchedule([], start=start)
    with schedule as (task,):
        results = [(schedule.run("schedule"), task.error, task.faults) for _ in range(4)]
    status = "a run ended with status 1; `volspike retrain` shows its error"
    assert results == [(None, "OSError: no more processes", 1), (1, status, 2), (3, None, 2), (0, None, 2)]


def test_process_has_the_lowest_priority() -> None:
    """The child process gets nice 19 and one thread per library."""
    # the priority is set an instant after the start, so that the process polls for it
    polls = "import os\nwhile os.nice(0) != 19: pass\nraise SystemExit(os.environ['OMP_NUM_THREADS'] != '1')"
    assert start_low_priority([sys.executable, "-c", polls]).wait(60) == 0
