"""Times of tapes: newest-first files, impossible times, clock steps, local time, and jumps of the recorder's clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tape.strategies import START, assert_same, read_all, read_with_report, tick_at
from volspike.errors import UnreadableFile, UsageError
from volspike.market import SECOND_NS, Tick, Ticks, format_time
from volspike.tape import TapeReport, read_ticks, write_ndjson, write_parquet

IN_2126 = 100 * 365 * 86_400 * SECOND_NS


def seconds(count: int, product_id: str = "BTC-USD") -> list[Tick]:
    """One tick per second from ``START``."""
    return [tick_at(second * SECOND_NS, 100.0 + second % 7, product_id) for second in range(count)]


def moved(tick: Tick, by: int) -> Tick:
    return msgspec.structs.replace(tick, time=tick.time + by, received=tick.received + by)


def write(ticks: Sequence[Tick], path: Path) -> Path:
    (write_parquet if path.suffix == ".parquet" else write_ndjson)([Ticks.of(ticks)], path)
    return path


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz", "a.parquet"])
@pytest.mark.parametrize("chunk", [7, 65_536])
def test_a_newest_first_tape_is_read_from_its_end(tmp_path: Path, name: str, chunk: int) -> None:
    """A tape in reverse order gives the ticks in their order, and a note."""
    told = [tick for second in range(300) for tick in (seconds(300)[second], seconds(300, "ETH-USD")[second])]
    path = write(told[::-1], tmp_path / name)
    report = TapeReport()
    parts = list(read_ticks(path, report=report, chunk=chunk, block_bytes=3000))
    assert_same(Ticks.join(parts), told)
    assert [note.text for note in report.notes] == ["is newest first: it is read from its end"]


def test_newest_first_tapes_follow_each_other(tmp_path: Path) -> None:
    """Several newest-first tapes, in either form, are ordered by their oldest ticks."""
    told = seconds(300)
    for name, part in (("a.ndjson", told[200:]), ("b.parquet", told[:100]), ("c.ndjson", told[100:200])):
        write(part[::-1], tmp_path / name)
    assert_same(read_all(tmp_path), told)


def test_batches_that_are_newest_first_keep_their_order(tmp_path: Path) -> None:
    """A tape whose first batch is newest first, and whose batches follow each other, is not reversed."""
    told = seconds(400)
    batches = [tick for start in range(0, 400, 100) for tick in reversed(told[start : start + 100])]
    ticks = read_all(write(batches, tmp_path / "a.ndjson"))
    assert int(ticks.time[0]) == told[99].time


SHIFTS = [10 * SECOND_NS, 299 * SECOND_NS, 3600 * SECOND_NS, IN_2126, -3600 * SECOND_NS, -START]


@pytest.mark.parametrize("name", ["a.ndjson", "a.parquet"])
@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("block_bytes", [2000, 1 << 20])
def test_only_impossible_ticks_are_rejected(tmp_path: Path, name: str, shift: int, block_bytes: int) -> None:
    """One tick with an impossible time is rejected with line and cause; all others are kept, wherever blocks end."""
    told = seconds(99)
    for place in (3, 50, 97):
        wrong = [moved(tick, shift) if row == place else tick for row, tick in enumerate(told)]
        ticks, report = read_with_report(write(wrong, tmp_path / name), block_bytes=block_bytes)
        assert_same(ticks, told[:place] + told[place + 1 :])
        (rejection,) = report.rejections
        assert (rejection.line, report.rejected) == (place + 1, 1)
        assert "is impossible next to its neighbours" in rejection.reason
        kept = json.loads((tmp_path / "a.rejected.ndjson").read_text())
        assert (kept["line"], kept["reason"]) == (place + 1, rejection.reason)
        assert format_time(wrong[place].time) in kept["text"]


def test_the_first_and_last_tick_may_be_impossible(tmp_path: Path) -> None:
    """The first is rejected by what follows, the last by its time of receipt."""
    told = seconds(60)
    first = [moved(told[0], 299 * SECOND_NS), *told[1:]]
    assert_same(read_all(write(first, tmp_path / "a.ndjson")), told[1:])
    received = [msgspec.structs.replace(tick, received=tick.time + SECOND_NS // 10) for tick in told]
    last = [*received[:-1], msgspec.structs.replace(received[-1], time=received[-1].time + 299 * SECOND_NS)]
    assert_same(read_all(write(last, tmp_path / "a.ndjson")), received[:-1])
    silence = [*received[:-1], moved(received[-1], 299 * SECOND_NS)]
    assert_same(read_all(write(silence, tmp_path / "a.ndjson")), silence)


def test_a_silence_and_a_sparse_product_are_possible(tmp_path: Path) -> None:
    """Silences of any length, and products with a tick an hour, lose nothing."""
    told = seconds(50) + [moved(tick, 7200 * SECOND_NS) for tick in seconds(50)]
    told += [tick_at(hour * 3600 * SECOND_NS, 5.0, "XYZ-USD") for hour in range(5)]
    told.sort(key=lambda tick: tick.time)
    ticks, report = read_with_report(write(told, tmp_path / "a.ndjson"), block_bytes=1500)
    assert_same(ticks, told)
    assert (report.rejected, report.notes, report.clock_steps) == (0, [], 0)


def test_a_clock_step_is_noted_and_keeps_all_ticks(tmp_path: Path) -> None:
    """Ten ticks in a row that agree on another time are no faults: the step is noted with line, product and size."""
    told = seconds(100)
    told[50:] = [moved(tick, -400 * SECOND_NS) for tick in told[50:]]
    ticks, report = read_with_report(write(told, tmp_path / "a.ndjson"), block_bytes=2000)
    assert_same(ticks, told)
    assert (report.rejected, report.clock_steps) == (0, 1)
    (note,) = report.notes
    assert note.text.startswith("clock step at line 51: the time of BTC-USD goes back by 399 s")
    assert not note.is_loss


LONDON, BERLIN = ZoneInfo("Europe/London"), ZoneInfo("Europe/Berlin")


def local_tape(path: Path, start: datetime, zone: ZoneInfo, minutes: int = 180) -> list[int]:
    """A tape with one tick every 10 s in local time without a zone; returns the times in ns UTC."""
    moments = [start + timedelta(seconds=10 * step) for step in range(minutes * 6)]
    local = [moment.astimezone(zone).replace(tzinfo=None) for moment in moments]
    if path.suffix == ".parquet":
        columns = {"time": pa.array(local, pa.timestamp("ns")), "price": [1.0] * len(local), "size": [1.0] * len(local)}
        pq.write_table(pa.table(columns), path)
    else:
        lines = [{"timestamp": time.isoformat(), "product_id": "BTC-USD", "price": 1.0} for time in local]
        path.write_text("\n".join(json.dumps(line) for line in lines))
    return [round(moment.timestamp()) * SECOND_NS for moment in moments]


@pytest.mark.parametrize("name", ["ticks_BTCUSD.ndjson", "ticks_BTCUSD.parquet"])
@pytest.mark.parametrize("block_bytes", [700, 1 << 20])
def test_local_time_after_summer_names_the_option(tmp_path: Path, name: str, block_bytes: int) -> None:
    """Local times that go back by an hour are refused with --timezone, and read with it."""
    path = tmp_path / name
    expected = local_tape(path, datetime(2025, 10, 25, 23, 0, tzinfo=UTC), BERLIN)
    with pytest.raises(UnreadableFile, match=r"go back by an hour .* --timezone Europe/Berlin") as caught:
        read_all(path, block_bytes=block_bytes)
    assert f"{name}:" in str(caught.value)
    ticks = read_all(path, timezone="Europe/Berlin", block_bytes=block_bytes)
    assert ticks.time.tolist() == expected
    assert ticks.received.tolist() == expected
    assert len(read_all(path, timezone="UTC")) == len(expected)


@pytest.mark.parametrize("zone", [BERLIN, LONDON, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")])
@pytest.mark.parametrize("month", [1, 3, 4, 7, 10, 11])
def test_local_times_are_read_in_their_zone(tmp_path: Path, zone: ZoneInfo, month: int) -> None:
    """Local times of a month, in its changes too, become the times in UTC."""
    path = tmp_path / "a.ndjson"
    start = datetime(2025, month, 1, tzinfo=UTC)
    moments = [start + timedelta(minutes=7 * step) for step in range(205 * 30)]
    lines = [
        {"timestamp": moment.astimezone(zone).replace(tzinfo=None).isoformat(), "product_id": "A-B", "price": 1}
        for moment in moments
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    assert read_all(path, timezone=zone.key).time.tolist() == [
        round(moment.timestamp()) * SECOND_NS for moment in moments
    ]


def test_times_with_a_zone_ignore_the_option(tmp_path: Path) -> None:
    """``timezone`` changes no time that has a zone; an unknown name is an error of usage."""
    told = seconds(5)
    path = write(told, tmp_path / "a.ndjson")
    assert_same(read_all(path, timezone="Asia/Tokyo"), told)
    with pytest.raises(UsageError, match="--timezone Mars/Base: no such time zone"):
        read_ticks(path, timezone="Mars/Base")


def test_local_time_before_summer_is_noted(tmp_path: Path) -> None:
    """An hour that local times skip gets a note that names the option."""
    local_tape(tmp_path / "ticks_BTCUSD.ndjson", datetime(2025, 3, 30, 0, 0, tzinfo=UTC), BERLIN)
    report = read_with_report(tmp_path / "ticks_BTCUSD.ndjson")[1]
    assert ["skip an hour" in note.text and "--timezone Europe/Berlin" in note.text for note in report.notes] == [True]


@pytest.mark.parametrize("step", [-7200, -3600, -20, 20, 3600, 7200])
@pytest.mark.parametrize("place", [1, 2])
def test_a_jump_of_the_recorders_clock_keeps_the_order(tmp_path: Path, step: int, place: int) -> None:
    """Hour files whose times of receipt jump are read in the order of the exchange's times, for two products."""
    hours = [[tick_at((hour * 1001 + second) * SECOND_NS, 100.0, name) for second in range(1001)]
             for hour in range(3) for name in ("BTC-USD", "ETH-USD")]  # fmt: skip
    for number, told in enumerate(hours):
        shift = (step if number // 2 >= place else 0) * SECOND_NS + SECOND_NS // 20
        received = [msgspec.structs.replace(tick, received=tick.time + shift) for tick in told]
        write(received, tmp_path / f"{number}.ndjson")
    ticks = read_all(tmp_path)
    for code in range(2):
        times = ticks.time[ticks.product == code]
        assert len(times) == 3003
        assert (np.diff(times) > 0).all()


@pytest.mark.shared_data
def test_the_collected_cases_of_times_read(shared_data: Path) -> None:
    """The newest-first case is read in reverse; of the other, only the tick of the year 2126 is rejected."""
    ticks, report = read_with_report(shared_data / "cases" / "08_newest_first.ndjson")
    assert (len(ticks), report.rejected) == (1000, 0)
    assert (np.diff(ticks.time) >= 0).all()
    report = TapeReport()
    path = shared_data / "cases" / "09_one_future_time.ndjson"
    ticks = Ticks.join(list(read_ticks(path, report=report, keep_rejected=False)))
    assert (len(ticks), report.rejected) == (999, 1)
    assert "2126" in report.rejections[0].reason
