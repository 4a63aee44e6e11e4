"""Recorded hours become Parquet, and every tick is read exactly once whatever interrupts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.tape.recording import NOON, Clock, record_finished, tape_names, ticker
from tests.tape.strategies import assert_same, read_all, read_with_report
from volspike.errors import UsageError
from volspike.market import SECOND_NS, Ticks
from volspike.tape import Ledger, Recorder, compact, read_tape_name, rejected_path, tapes_of

HOUR = 3600 * SECOND_NS
LATER = Clock(NOON + 3 * HOUR)

BOTH = ("BTC-USD", "ETH-USD")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Two products over two hours and a run that was restarted in the first; then the hour that is now."""
    record_finished(tmp_path, NOON, 50, BOTH)
    record_finished(tmp_path, NOON + HOUR // 2, 50, BOTH)
    record_finished(tmp_path, NOON + HOUR, 50, BOTH)
    record_finished(tmp_path, LATER.now, 5, BOTH)
    return tmp_path


def test_finished_hours_become_parquet(recorded: Path) -> None:
    """One tape per product and hour, the same ticks, the hour that is now and the ledger untouched."""
    before, gaps = read_all(recorded), Ledger.read(recorded)
    done = compact(recorded, clock=LATER)
    assert tape_names(recorded) == [
        "ticks_BTCUSD_20231115_12.parquet",
        "ticks_BTCUSD_20231115_13.parquet",
        "ticks_BTCUSD_20231115_150000.ndjson",
        "ticks_ETHUSD_20231115_12.parquet",
        "ticks_ETHUSD_20231115_13.parquet",
        "ticks_ETHUSD_20231115_150000.ndjson",
    ]
    assert (len(done.hours), len(done.removed), done.notes) == (4, 6, [])
    assert sum(hour.ticks for hour in done.hours) == 150
    after, report = read_with_report(recorded)
    assert report.simulated
    assert_same(after, before)
    assert Ledger.read(recorded) == gaps
    assert compact(recorded, clock=LATER).hours == []


def test_kept_ndjson_is_told_once_and_goes_at_the_next_run(recorded: Path) -> None:
    """With both forms in a folder the Parquet tape is read; the next run removes what it holds."""
    before = read_all(recorded)
    done = compact(recorded, keep=True, clock=LATER)
    assert done.removed == []
    assert len(tape_names(recorded)) == 12
    assert len(tapes_of(recorded)) == 6
    assert_same(read_all(recorded), before)
    assert_same(read_all([recorded / "../" / recorded.name, str(recorded / "*.ndjson")]), before)
    assert len(read_all(str(recorded / "*.ndjson"))) == len(before)  # without the Parquet tapes nothing is held twice
    assert compact(recorded, keep=True, clock=LATER).hours == []
    assert len(compact(recorded, clock=LATER).removed) == 6
    assert_same(read_all(recorded), before)


class Killed(BaseException):
    """Simulates the end of the process at that call."""


@pytest.mark.parametrize("step", range(40))
def test_interrupted_anywhere_it_loses_and_doubles_nothing(
    recorded: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended before any of its changes to the folder, every tick is read once, and the next run finishes."""
    before, calls = read_all(recorded), [0]

    def ending(real: object) -> object:
        def call(*args: object, **kwargs: object) -> object:
            calls[0] += 1
            if calls[0] > step:
                raise Killed
            return real(*args, **kwargs)  # type: ignore[operator]

        return call

    with monkeypatch.context() as patch:
        for owner, name in ((Path, "replace"), (Path, "unlink"), (os, "fsync")):
            patch.setattr(owner, name, ending(getattr(owner, name)))
        try:
            compact(recorded, clock=LATER)
        except Killed:
            assert step < calls[0]
    assert_same(read_all(recorded), before)
    done = compact(recorded, clock=LATER)
    assert done.notes == []
    assert len(tape_names(recorded)) == 6
    assert_same(read_all(recorded), before)


def test_what_turns_up_later_gets_its_own_tape(recorded: Path) -> None:
    """A file for an hour that is compacted already is neither hidden nor merged into what was verified."""
    compact(recorded, clock=LATER)
    record_finished(recorded, NOON + HOUR // 4, 10, BOTH)
    before = read_all(recorded)
    compact(recorded, clock=LATER)
    assert "ticks_BTCUSD_20231115_12_2.parquet" in tape_names(recorded)
    assert_same(read_all(recorded), before)
    (told,) = {read_tape_name(recorded / name) for name in tape_names(recorded) if "BTC" in name and "_12" in name}
    assert told is not None
    assert (told.product_id, told.started) == ("BTC-USD", NOON)


def test_damaged_lines_are_kept(recorded: Path) -> None:
    """A tape with damaged lines is compacted without them, and they stay in the rejected file."""
    tape = recorded / "ticks_BTCUSD_20231115_130000.ndjson"
    tape.write_bytes(b"not a tick\n" + tape.read_bytes())
    os.utime(tape, ns=(NOON, NOON))
    done = compact(recorded, clock=LATER)
    assert sum(hour.rejected for hour in done.hours) == 1
    assert not tape.exists()
    assert b"not a tick" in rejected_path(tape).read_bytes()


def test_a_tape_whose_damage_cannot_be_set_aside_stays(recorded: Path) -> None:
    """If damaged lines would be lost with the file, the file is kept and the reason reported."""
    tape = recorded / "ticks_BTCUSD_20231115_130000.ndjson"
    tape.write_bytes(b"not a tick\n" + tape.read_bytes())
    os.utime(tape, ns=(NOON, NOON))
    rejected_path(tape).mkdir()
    done = compact(recorded, clock=LATER)
    (note,) = done.notes
    assert "could not be written" in note.text
    assert tape.exists()
    assert len(done.hours) == 3


def test_files_in_use_or_just_written_are_left(recorded: Path) -> None:
    """An hour with a file that a recorder has open, or that was written minutes ago, waits for the next run."""
    fresh = recorded / "ticks_ETHUSD_20231115_120000.ndjson"
    os.utime(fresh, ns=(LATER.now, LATER.now))
    with Recorder(recorded, clock=Clock(NOON + 2 * HOUR)) as recorder:
        recorder.frame(*ticker(NOON + 2 * HOUR))
        recorder.flush()
        (used,) = recorder.files
        os.utime(used, ns=(NOON, NOON))
        compact(recorded, clock=LATER)
        assert used.exists()
    assert fresh.exists()
    assert [name for name in tape_names(recorded) if "parquet" in name] == [
        "ticks_BTCUSD_20231115_12.parquet",
        "ticks_BTCUSD_20231115_13.parquet",
        "ticks_ETHUSD_20231115_13.parquet",
    ]


def test_files_without_a_tick(tmp_path: Path) -> None:
    """An empty file is removed; one with other content is kept and reported."""
    for name, text in (("115959", b""), ("120000", b"no tick\n")):
        path = tmp_path / f"ticks_BTCUSD_20231115_{name}.ndjson"
        path.write_bytes(text)
        os.utime(path, ns=(NOON, NOON))
    done = compact(tmp_path, clock=LATER)
    assert tape_names(tmp_path) == ["ticks_BTCUSD_20231115_120000.ndjson"]
    assert ["no tick" in note.text for note in done.notes] == [True]


def test_a_restart_after_compaction_knows_the_last_line(recorded: Path) -> None:
    """The gap of a restart begins at the last line of before, also where that is in Parquet."""
    for path in recorded.glob("ticks_*_150000.ndjson"):
        path.unlink()
    last = int(read_all(recorded).received[-1])
    compact(recorded, clock=LATER)
    record_finished(recorded, LATER.now, 2, BOTH)
    gap = max(Ledger.read(recorded), key=lambda gap: gap.start)
    assert (gap.start, gap.end, gap.products) == (last, LATER.now + 1_000_003, ("ETH-USD",))


def test_two_compactions_do_not_meet(recorded: Path) -> None:
    """While one is at work another is refused; a folder that is none is a usage error."""

    def again(_: str) -> None:
        compact(recorded, clock=LATER)

    with pytest.raises(UsageError, match="another compaction"):
        compact(recorded, clock=LATER, on_step=again)
    with pytest.raises(UsageError, match="not a folder"):
        compact(recorded / "none", clock=LATER)


def test_an_hour_that_does_not_read_back_the_same_stays(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where verification finds a difference, nothing is removed and nothing half done is left."""
    before = read_all(recorded)

    def shortened(*args: object, **kwargs: object) -> object:
        return iter([Ticks.join(())])

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[compact.__module__], "parquet_ticks", shortened)
        done = compact(recorded, clock=LATER)
    assert len(done.notes) == 4
    assert all(name.endswith(".ndjson") for name in tape_names(recorded))
    assert_same(read_all(recorded), before)


@pytest.mark.parametrize(("before_ns", "hours"), [(1, 0), (0, 1)])
def test_hour_is_finished_exactly_at_its_end(tmp_path: Path, before_ns: int, hours: int) -> None:
    """At the full hour the hour is over, a nanosecond before it is not."""
    record_finished(tmp_path, NOON, 1, BOTH)
    for path in tmp_path.glob("*.ndjson"):
        os.utime(path, ns=(NOON, NOON))
    assert len(compact(tmp_path, clock=lambda: NOON + HOUR - before_ns).hours) == hours


@pytest.mark.parametrize(("before_ns", "hours"), [(1, 0), (0, 1)])
def test_file_is_settled_exactly_after_five_minutes(tmp_path: Path, before_ns: int, hours: int) -> None:
    """A file that changed five minutes ago is compacted, a nanosecond less and it waits."""
    record_finished(tmp_path, NOON, 1, BOTH)
    for path in tmp_path.glob("*.ndjson"):
        os.utime(path, ns=(NOON + HOUR, NOON + HOUR))
    assert len(compact(tmp_path, clock=lambda: NOON + HOUR + 300 * SECOND_NS - before_ns).hours) == hours
