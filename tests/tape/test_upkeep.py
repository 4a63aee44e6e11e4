"""Old tapes are deleted and finished hours are compacted next to a recorder; nothing else changes."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from tests.tape.recording import NOON, Clock, record_finished, tape_names, ticker
from tests.tape.strategies import assert_same, read_all
from volspike.market import SECOND_NS
from volspike.tape import Ledger, Recorder, TapeUpkeep, UpkeepResult, compact, delete_expired, rejected_path
from volspike.tape.upkeep import FIRST_AFTER_S, next_run

HOUR = 3600 * SECOND_NS
DAY = 24 * HOUR


def test_tapes_older_than_the_days_are_deleted(tmp_path: Path) -> None:
    """Recorded and compacted hours and their rejected lines go; newer tapes, other files and the ledger stay."""
    record_finished(tmp_path, NOON)
    compact(tmp_path, clock=lambda: NOON + 2 * HOUR)
    record_finished(tmp_path, NOON + HOUR)
    record_finished(tmp_path, NOON + 5 * DAY)
    rejected = rejected_path(tmp_path / "ticks_BTCUSD_20231115_130000.ndjson")
    rejected.write_bytes(b"{}")
    (tmp_path / "btcjpy_trades_20180120_25.parquet").touch()
    gaps = Ledger.read(tmp_path)
    done = delete_expired(tmp_path, 3.0, clock=lambda: NOON + 5 * DAY + HOUR)
    assert done.deleted == ["ticks_BTCUSD_20231115_130000.ndjson", "ticks_BTCUSD_20231115_12.parquet"]
    assert done.deleted_bytes > 1000
    assert tape_names(tmp_path) == ["ticks_BTCUSD_20231120_120000.ndjson"]
    assert not rejected.exists()
    assert (tmp_path / "btcjpy_trades_20180120_25.parquet").exists()
    assert Ledger.read(tmp_path) == gaps


@pytest.mark.parametrize(("more_ns", "deleted"), [(0, 0), (1, 1)])
def test_an_hour_is_kept_for_exactly_the_days(tmp_path: Path, more_ns: int, deleted: int) -> None:
    """The days count from the end of the hour."""
    record_finished(tmp_path, NOON)
    record_finished(tmp_path, NOON + 5 * DAY)
    now = NOON + HOUR + 2 * DAY + more_ns
    assert len(delete_expired(tmp_path, 2.0, clock=lambda: now).deleted) == deleted


def test_zero_days_keep_all(tmp_path: Path) -> None:
    """With 0 nothing is too old."""
    record_finished(tmp_path, NOON)
    assert delete_expired(tmp_path, 0.0, clock=lambda: NOON + 9999 * DAY).deleted == []


def test_a_wrong_clock_deletes_nothing(tmp_path: Path) -> None:
    """At a clock a century ahead, the days count back from the newest tape."""
    record_finished(tmp_path, NOON)
    record_finished(tmp_path, NOON + DAY)
    assert delete_expired(tmp_path, 2.0, clock=lambda: NOON + 36_500 * DAY).deleted == []


def test_a_file_that_is_written_is_never_deleted(tmp_path: Path) -> None:
    """Not even if its name is old, as after a clock was set forward."""
    with Recorder(tmp_path, clock=Clock(NOON)) as recorder:
        recorder.frame(*ticker(NOON))
        recorder.flush()
        (used,) = recorder.files
        os.utime(used, ns=(NOON, NOON))
        record_other = tmp_path / "ticks_ETHUSD_20231125_120000.ndjson"
        record_other.touch()
        assert delete_expired(tmp_path, 1.0, clock=lambda: NOON + 10 * DAY).deleted == []
        assert used.exists()


def test_a_reader_that_has_begun_can_finish(tmp_path: Path) -> None:
    """With ``remove_later`` the NDJSON of an hour is removed by the next run, and no tick is read twice meanwhile."""
    record_finished(tmp_path, NOON)
    before = read_all(tmp_path)
    first = compact(tmp_path, remove_later=True, clock=lambda: NOON + 2 * HOUR)
    assert (len(first.hours), first.removed) == (1, [])
    assert_same(read_all(tmp_path), before)
    second = compact(tmp_path, remove_later=True, clock=lambda: NOON + 3 * HOUR)
    assert (second.hours, len(second.removed)) == ([], 1)
    assert tape_names(tmp_path) == ["ticks_BTCUSD_20231115_12.parquet"]
    assert_same(read_all(tmp_path), before)


class FakeProcess:
    """A run of ``volspike compact`` that prints something, or does not end before it is terminated."""

    def __init__(self, printed: bytes, *, hangs: bool = False) -> None:
        self.returncode: int | None = 3
        self.started = threading.Event()
        self._printed = printed
        self._hangs = hangs

    def communicate(self, *, timeout: float | None = None) -> tuple[bytes, bytes]:
        self.started.set()
        if self._hangs:
            raise subprocess.TimeoutExpired("compact", timeout or 0.0)
        return self._printed, b"traceback\ncompact: the disk is full\n"

    def terminate(self) -> None:
        self._hangs = False

    def kill(self) -> None:
        raise AssertionError("it ended when it was asked to")


def upkeep(folder: Path, process: FakeProcess, reported: list[UpkeepResult]) -> TapeUpkeep:
    """An upkeep whose first run is due at once."""
    times = iter([NOON / 1e9])

    def start(command: Sequence[str]) -> FakeProcess:
        assert command[2:] == (
            *("volspike", "compact", "--tape", str(folder), "--keep-days", "7", "--remove-later", "--json"),
        )
        return process

    return TapeUpkeep(
        folder,
        7.0,
        report=reported.append,
        start=start,
        clock=lambda: next(times, NOON / 1e9 + FIRST_AFTER_S),
    )


def test_a_run_is_reported_and_counted(tmp_path: Path) -> None:
    """The result of the process goes to the caller and into the counts, with the free space of the disk."""
    result = UpkeepResult(hours=2, ticks=10, deleted=["a", "b", "c"])
    process, reported = FakeProcess(msgspec.json.encode(result)), list[UpkeepResult]()
    it = upkeep(tmp_path, process, reported)
    assert process.started.wait(10)
    assert it.close()
    assert reported == [result]
    assert (it.hours, it.deleted, it.free_bytes is not None) == (2, 3, True)
    assert [task.error for task in it.tasks] == [None, None]


def test_a_run_that_fails_is_a_fault(tmp_path: Path) -> None:
    """Its status and last message are the error of the task; the next run is an hour later."""
    process, reported = FakeProcess(b""), list[UpkeepResult]()
    it = upkeep(tmp_path, process, reported)
    assert process.started.wait(10)
    assert it.close()
    thread, compaction = it.tasks
    assert (thread.faults, compaction.faults, reported) == (0, 1, [])
    assert compaction.error == "volspike compact ended with status 3: compact: the disk is full"


def test_closing_ends_a_run(tmp_path: Path) -> None:
    """A run that is active is terminated."""
    process, reported = FakeProcess(b"", hangs=True), list[UpkeepResult]()
    it = upkeep(tmp_path, process, reported)
    assert process.started.wait(10)
    assert it.close()
    assert reported == []


@pytest.mark.parametrize(("now", "due"), [(419.0, 420.0), (420.0, 4020.0), (7_000.0, 7_620.0)])
def test_runs_are_seven_minutes_after_the_hour(now: float, due: float) -> None:
    """Then the files of the last hour are closed and have not changed for five minutes."""
    assert next_run(now) == due
