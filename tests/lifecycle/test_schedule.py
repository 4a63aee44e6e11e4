"""Retraining by the clock: when it runs, that it runs alone, and that it ends with whoever started it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Event, Thread

import pytest

from volspike.errors import UsageError
from volspike.lifecycle.schedule import DAILY, WEEKLY, RetrainingSchedule, cron, start_at_lowest


class FakeProcess:
    """A run that ends when it is told to."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = list(command)
        self.ended = Event()
        self.told: list[str] = []

    def wait(self, timeout: float | None = None) -> int:
        if not self.ended.wait(timeout):
            raise subprocess.TimeoutExpired(self.command, timeout or 0.0)
        return 0

    def terminate(self) -> None:
        self.told.append("terminate")
        self.ended.set()

    def kill(self) -> None:
        self.told.append("kill")


class Office:
    """Starts fake runs and remembers them; ``started`` is set once there is one."""

    def __init__(self) -> None:
        self.runs: list[FakeProcess] = []
        self.started = Event()

    def __call__(self, command: Sequence[str]) -> FakeProcess:
        self.runs.append(FakeProcess(command))
        self.started.set()
        return self.runs[-1]


def after(text: str, moment: datetime) -> str:
    """When a cron line is due next."""
    due = cron(text).get_next_fire_time(None, moment)
    assert due is not None
    return str(due.isoformat())


def test_drift_is_looked_for_on_monday_at_two() -> None:
    """02:00 UTC on Mondays, whatever the time of the year; shadows are looked at every night."""
    assert after(WEEKLY, datetime(2026, 11, 25, tzinfo=UTC)) == "2026-11-30T02:00:00+00:00"
    assert after(WEEKLY, datetime(2026, 3, 30, 2, 0, 1, tzinfo=UTC)) == "2026-04-06T02:00:00+00:00"
    assert after(DAILY, datetime(2026, 11, 25, tzinfo=UTC)) == "2026-11-25T02:30:00+00:00"


@pytest.mark.parametrize("text", ["", "monday", "0 2 * * 1", "61 2 * * mon", "0 2 * * mon *"])
def test_times_that_are_none_are_refused(text: str) -> None:
    """A line that is no cron line, and weekdays by number, which mean different days to different programs."""
    with pytest.raises(UsageError):
        cron(text)


def test_run_has_its_arguments_and_its_reason() -> None:
    """The command asks for what is needed only, says who asked, and names the folders of the live run."""
    office = Office()
    schedule = RetrainingSchedule(["--tape", "there"], start=office)
    thread = Thread(target=schedule.run, args=("schedule",))
    thread.start()
    assert office.started.wait(10)
    office.runs[0].ended.set()
    thread.join(10)
    command = office.runs[0].command
    assert command[:4] == [sys.executable, "-m", "volspike", "retrain"]
    assert command[4:] == ["--if-needed", "--trigger", "schedule", "--tape", "there"]


def test_two_runs_never_go_at_once_and_none_outlives_the_end() -> None:
    """A time that finds a run going is passed over; the end stops what runs and starts nothing more."""
    office = Office()
    with RetrainingSchedule([], start=office) as schedule:
        assert set(schedule.due()) == {"check", "shadow"}
        thread = Thread(target=schedule.run, args=("schedule",))
        thread.start()
        assert office.started.wait(10)
        assert schedule.run("shadow") is None
    thread.join(10)
    assert office.runs[0].told == ["terminate"]
    assert schedule.run("schedule") is None
    assert len(office.runs) == 1


def test_process_has_the_lowest_priority() -> None:
    """Whoever listens to the market goes first."""
    # it asks until it is told 19, which comes an instant after it was started
    asks = "import os\nwhile os.nice(0) != 19: pass\nraise SystemExit(os.environ['OMP_NUM_THREADS'] != '1')"
    assert start_at_lowest([sys.executable, "-c", asks]).wait(60) == 0
