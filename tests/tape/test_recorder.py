"""A replay reads what was recorded live, whatever happens to the process or the disk."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tape.recording import NOON, Clock, Heard, advanced_trade, heard, of_product, read_back, ticker, ticks_of
from tests.tape.strategies import assert_same, read_with_report
from volspike.errors import UsageError
from volspike.market import SECOND_NS, Cause, Gap, Ticks
from volspike.tape import Ledger, Recorder, rejected_path, tapes_of
from volspike.tape.blocks import Blocks
from volspike.tape.names import RECORDER_LOCK_NAME

QUOTE = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "64281.7",
    "volume_24_h": "3974.98800786",
    "low_24_h": "63454",
    "high_24_h": "64727.270",
    "best_bid": "64281.7",
    "best_ask": "64281.71",
    "best_bid_quantity": "0.21558849",
    "best_ask_quantity": "0.02287045",
}
TRADE = {
    "product_id": "BTC-USD",
    "trade_id": "1037798145",
    "price": "64340.74",
    "size": "0.00746872",
    "time": "2023-11-15T11:59:59.799285123Z",
    "side": "SELL",
}


def record(folder: Path, frames: list[Heard], clock: Clock | None = None, *, simulated: bool = False) -> None:
    time = clock or Clock()
    with Recorder(folder, clock=time, simulated=simulated) as recorder:
        for told in frames:
            time.now = told.received
            recorder.frame(*told)
    assert recorder.recorded == len(ticks_of(frames))
    assert recorder.unrecorded == 0
    assert recorder.fault == ""


def recording(recorder: Recorder) -> bool:
    """Whether it records now; a function, because a type checker assumes that a property's value does not change."""
    return recorder.is_recording


def assert_recorded(folder: Path, frames: list[Heard]) -> None:
    """Each product's ticks are read in order and bit for bit as in the frames."""
    back, live = read_back(folder), Ticks.of(ticks_of(frames))
    assert len(back) == len(live)
    for name in live.products:
        assert_same(of_product(back, name), of_product(live, name))


def test_a_line_keeps_the_exchanges_words(tmp_path: Path) -> None:
    """A ticker line has the documented shape, its raw object verbatim, and the time that raw does not contain."""
    told = advanced_trade(NOON, QUOTE)
    record(tmp_path, [told], simulated=True)
    (tape,) = tapes_of(tmp_path)
    assert tape.name == "ticks_BTCUSD_20231115_120000.ndjson"
    line = json.loads(tape.read_bytes())
    assert list(line) == [
        *("timestamp", "product_id", "price", "volume_24h", "low_24h", "high_24h", "best_bid", "best_ask"),
        *("time", "source", "raw"),
    ]
    assert line["raw"] == QUOTE
    assert json.dumps(QUOTE).encode() in tape.read_bytes()
    assert (line["timestamp"], line["time"]) == ("2023-11-15T12:00:00Z", "2023-11-15T11:59:59.97Z")
    assert (line["volume_24h"], line["high_24h"], line["source"]) == ("3974.98800786", "64727.270", "simulated")


def test_what_raw_tells_is_told_once(tmp_path: Path) -> None:
    """An Exchange message contains time and sequence, so that the line does not repeat them."""
    frames = [ticker(NOON)]
    record(tmp_path, frames)
    line = json.loads(tapes_of(tmp_path)[0].read_bytes())
    assert "time" not in line
    assert "sequence" not in line
    assert_recorded(tmp_path, frames)


def test_trades_are_told_oldest_first_and_history_never(tmp_path: Path) -> None:
    """New trades are recorded in the market's order, and a snapshot's past trades are not."""
    later = TRADE | {"trade_id": "1037798146", "time": "2023-11-15T11:59:59.9Z", "side": "BUY"}
    flow = advanced_trade(NOON, later, TRADE, channel="market_trades")
    past = advanced_trade(NOON, TRADE, channel="market_trades", event="snapshot")
    assert past.frame.history
    record(tmp_path, [past, flow])
    assert read_back(tmp_path).trade_id.tolist() == [1037798145, 1037798146]
    assert_recorded(tmp_path, [flow])


NUMBERS = st.sampled_from(["64281.70", "0.5", "1e5", 3.25, 0, "0", "", None, "123456789.123456789"])
ABOVE = st.sampled_from(["64281.70", "0.00001305", 3.25, "1e5"])
WORDS = st.sampled_from(["x", "é", 'quote"d', "two\nlines", ""])
ODD = st.fixed_dictionaries(
    {},
    optional={
        "best_bid": NUMBERS,
        "best_ask": NUMBERS,
        "best_bid_quantity": NUMBERS,
        "best_ask_size": NUMBERS,
        "best_bid_size": NUMBERS,
        "last_size": NUMBERS,
        "size": ABOVE,
        "sequence": st.integers(0, 9),
        "trade_id": st.integers(0, 9),
        "time": st.sampled_from(["", "2023-11-15T11:00:00.123456789Z", None]),
        "side": st.sampled_from(["buy", "sell", ""]),
        "volume_24h": st.one_of(NUMBERS, WORDS),
        "low_24_h": NUMBERS,
        "note": WORDS,
    },
)


@st.composite
def frames(draw: st.DrawFn) -> Heard:
    """A frame of either protocol, with fields that it should not have and without some that it should."""
    received = NOON + draw(st.integers(0, 10**10))
    told = {"product_id": draw(st.sampled_from(["BTC-USD", "ETH-USD"])), "price": draw(ABOVE), **draw(ODD)}
    shape = draw(st.sampled_from(["ticker", "match", "tickers", "trades"]))
    if shape == "ticker":
        text: object = {"type": "ticker", **told}
    elif shape == "match":
        text = {"type": "match", **told, **TRADE, "side": draw(st.sampled_from(["buy", "sell"]))}
    elif shape == "tickers":
        events = [{"type": "update", "tickers": [{"type": "ticker", **told}, QUOTE]}]
        text = {"channel": "ticker", "timestamp": "2023-11-15T11:59:59.5Z", "events": events}
    else:
        events = [{"type": draw(st.sampled_from(["update", "snapshot"])), "trades": [{**told, **TRADE}, TRADE]}]
        text = {"channel": "market_trades", "timestamp": "2023-11-15T11:59:59.5Z", "events": events}
    indent = draw(st.sampled_from([None, 1]))
    return heard(received, json.dumps(text, indent=indent, ensure_ascii=False).encode())


@given(told=st.lists(frames(), min_size=1, max_size=8))
def test_recorded_then_replayed_is_live(told: list[Heard], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever else a frame contains, the tape returns exactly its ticks."""
    told.sort(key=lambda frame: frame.received)
    folder = tmp_path_factory.mktemp("tape")
    record(folder, told)
    if ticks_of(told):
        assert_recorded(folder, told)


def test_bytes_that_are_no_text_cost_nothing_else(tmp_path: Path) -> None:
    """A frame with invalid UTF-8 in an unused field is recorded with a message of our own."""
    data = ticker(NOON).data.replace(b'"type"', b'"x": "\xff", "type"')
    told = heard(NOON, data)
    record(tmp_path, [told])
    assert_recorded(tmp_path, [told])


@pytest.mark.shared_data
@pytest.mark.parametrize(
    "name",
    ["exchange_ticker_202511.ndjson", "advanced_trade_envelopes_20260404.ndjson", "advanced_trade_20260809.jsonl.zst"],
)
def test_recorded_sessions_replay_as_they_were(shared_data: Path, tmp_path: Path, name: str) -> None:
    """Every frame of the recorded sessions, through the recorder and back, gives the same ticks."""
    told = session_of(shared_data / "protocol" / name)
    assert len(told) > 200
    record(tmp_path, told)
    assert_recorded(tmp_path, told)


def session_of(path: Path) -> list[Heard]:
    """The verbatim frames of a recorded session, with times of receipt a millisecond apart if there are none."""
    told = []
    with Blocks(path, 1 << 20) as blocks:
        for number, text in enumerate(line for block in blocks for line in block.splitlines()):
            record = json.loads(text)
            if record.get("t", "recv") != "recv":
                continue
            words = record.get("raw") or record.get("data")
            received = NOON + number * 1_000_000
            told.append(heard(received, text if words is None else words.encode()))
    return told


def test_each_hour_has_its_file(tmp_path: Path) -> None:
    """At each full hour of receipt a product's next tick begins a new file, and the old one is finished."""
    hour = 3600 * SECOND_NS
    told = [ticker(NOON - 1), ticker(NOON), ticker(NOON + hour - 1), ticker(NOON + hour, product_id="ETH-USD")]
    record(tmp_path, told)
    assert [path.name for path in tapes_of(tmp_path)] == [
        "ticks_BTCUSD_20231115_115959.ndjson",
        "ticks_BTCUSD_20231115_120000.ndjson",
        "ticks_ETHUSD_20231115_130000.ndjson",
    ]
    assert Ledger.read(tmp_path) == []
    assert_recorded(tmp_path, told)


def test_a_silent_products_file_is_finished_by_the_clock(tmp_path: Path) -> None:
    """The file of a past hour is closed even if no further tick arrives."""
    clock = Clock()
    with Recorder(tmp_path, clock=clock) as recorder:
        recorder.frame(*ticker(NOON))
        clock.now = NOON + 3600 * SECOND_NS
        recorder.flush()
        assert recorder.files == [tmp_path / "ticks_BTCUSD_20231115_120000.ndjson"]
        clock.now = NOON + 3662 * SECOND_NS
        recorder.flush()
        assert recorder.files == []


def test_a_new_run_begins_a_new_file_and_tells_the_gap(tmp_path: Path) -> None:
    """Also within the same second: the gap reaches from the last line of before to the first one now."""
    record(tmp_path, [ticker(NOON), ticker(NOON + 5)])
    record(tmp_path, [ticker(NOON + 9), ticker(NOON + 11, product_id="ETH-USD")])
    names = [path.name for path in tapes_of(tmp_path)]
    assert "ticks_BTCUSD_20231115_120000_2.ndjson" in names
    (gap,) = Ledger.read(tmp_path)
    assert (gap.start, gap.end, gap.products, gap.cause) == (NOON + 5, NOON + 9, ("BTC-USD",), Cause.RESTART)
    assert read_back(tmp_path).received.tolist() == [NOON, NOON + 5, NOON + 9, NOON + 11]


def test_a_torn_line_is_cut_off_at_the_next_start(tmp_path: Path) -> None:
    """Its incomplete rest is rejected, the tape is complete, and the gap begins at its last complete line."""
    record(tmp_path, [ticker(NOON), ticker(NOON + SECOND_NS)])
    (tape,) = tapes_of(tmp_path)
    whole = tape.read_bytes()
    tape.write_bytes(whole[:-30])
    with Recorder(tmp_path, clock=Clock(NOON + 9 * SECOND_NS)) as recorder:
        assert recorder.repaired == [tape]
        recorder.frame(*ticker(NOON + 9 * SECOND_NS))
    assert tape.read_bytes() == whole.splitlines(keepends=True)[0]
    aside = json.loads(rejected_path(tape).read_bytes())
    assert (aside["line"], aside["text"].encode()) == (2, whole.splitlines()[1][:-29])
    assert [gap.start for gap in Ledger.read(tmp_path)] == [NOON]
    _, report = read_with_report(tmp_path)
    assert report.rejected == 0


def test_a_line_that_only_lacks_its_end_is_kept(tmp_path: Path) -> None:
    """A last line that lacks only the line end gets it."""
    record(tmp_path, [ticker(NOON)])
    (tape,) = tapes_of(tmp_path)
    whole = tape.read_bytes()
    tape.write_bytes(whole[:-1])
    Recorder(tmp_path, clock=Clock()).close()
    assert tape.read_bytes() == whole


def test_a_second_recorder_in_the_folder_is_refused(tmp_path: Path) -> None:
    """It names the first one's process, changes none of its files, and may start when the first one has ended."""
    with Recorder(tmp_path, clock=Clock()) as first:
        first.frame(*ticker(NOON))
        first.flush()
        (tape,) = first.files
        with tape.open("ab") as file:
            file.write(b'{"torn')
        with pytest.raises(UsageError, match=rf"{tmp_path}: another recorder \(process {os.getpid()}\)"):
            Recorder(tmp_path, clock=Clock())
        assert tape.read_bytes().endswith(b'{"torn')
    with Recorder(tmp_path, clock=Clock()) as second:
        assert second.repaired == [tape]


def test_the_lock_of_an_ended_process_does_not_refuse(tmp_path: Path) -> None:
    """A lock file that no process holds is taken over, whatever it contains."""
    for text in (b"1\n", b"", b"no number"):
        (tmp_path / RECORDER_LOCK_NAME).write_bytes(text)
        with Recorder(tmp_path, clock=Clock()) as recorder:
            assert recorder.fault == ""
            assert int((tmp_path / RECORDER_LOCK_NAME).read_bytes()) == os.getpid()


def test_a_recorder_whose_folder_was_taken_over_stops(tmp_path: Path) -> None:
    """If the folder is removed and another recorder begins there, the first one counts its ticks as lost."""
    folder, clock = tmp_path / "tapes", Clock()
    with Recorder(folder, clock=clock) as first:
        first.frame(*ticker(NOON))
        first.flush()
        folder.rename(tmp_path / "moved")
        with Recorder(folder, clock=clock):
            for _ in range(2):
                clock.now += 10 * SECOND_NS
                first.frame(*ticker(clock.now))
                first.flush()
            assert f"another recorder (process {os.getpid()})" in first.fault
        clock.now += 10 * SECOND_NS
        first.frame(*ticker(clock.now))
    assert (first.recorded, first.unrecorded) == (2, 2)
    assert [gap.lost for gap in Ledger.read(folder)] == [2]


def test_a_folder_that_cannot_be_is_a_fault_and_no_exception(tmp_path: Path) -> None:
    """If the folder cannot be created, the recorder reports why, counts, and records once it can, with a gap."""
    (tmp_path / "file").touch()
    clock = Clock()
    recorder = Recorder(tmp_path / "file" / "tapes", clock=clock)
    assert not recording(recorder)
    assert "Not a directory" in recorder.fault
    for second in range(25):
        clock.now = NOON + second * SECOND_NS
        recorder.frame(*ticker(clock.now))
        recorder.flush()
        if second == 12:
            (tmp_path / "file").unlink()
    assert recording(recorder)
    assert recorder.fault == ""
    recorder.close()
    assert (recorder.recorded, recorder.unrecorded) == (5, 20)
    (gap,) = Ledger.read(tmp_path / "file" / "tapes")
    assert (gap.start, gap.end, gap.lost, gap.cause) == (NOON, NOON + 20 * SECOND_NS, 20, Cause.RESTART)
    assert "not recorded" in gap.detail


def test_a_folder_that_vanishes_is_noticed(tmp_path: Path) -> None:
    """Lines are not written into a file that was removed: a fault, then a new folder, file and gap."""
    folder, clock = tmp_path / "tapes", Clock()
    with Recorder(folder, clock=clock) as recorder:
        recorder.frame(*ticker(NOON))
        recorder.flush()
        shutil.rmtree(folder)
        clock.now += SECOND_NS
        recorder.frame(*ticker(clock.now))
        recorder.flush()
        assert not recording(recorder)
        assert "removed" in recorder.fault
        clock.now += 10 * SECOND_NS
        recorder.frame(*ticker(clock.now))
        recorder.flush()
        assert recording(recorder)
    (gap,) = Ledger.read(folder)
    assert (gap.start, gap.end, gap.lost) == (NOON, clock.now, 1)
    assert read_back(folder).received.tolist() == [clock.now]


@given(room=st.integers(0, 3000), batches=st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_a_full_disk_leaves_whole_lines_and_an_exact_count(
    room: int, batches: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever the disk is full, lines are complete, ticks are recorded or counted, and the gap is in the ledger."""
    folder, clock, left = tmp_path_factory.mktemp("full"), Clock(), [room]
    write = os.write

    def full(descriptor: int, data: bytes) -> int:
        taken = min(left[0], len(data))
        if taken == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        left[0] -= taken
        return write(descriptor, data[:taken])

    told = []
    with Recorder(folder, clock=clock) as recorder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full)
        for count in batches:
            for _ in range(count):
                clock.now += 1000
                told.append(ticker(clock.now))
                recorder.frame(*told[-1])
            recorder.flush()
        was_full = not recording(recorder)
        assert was_full == ("No space left" in recorder.fault)
        left[0] = 10**9
        clock.now += 10 * SECOND_NS
        told.append(ticker(clock.now))
        recorder.frame(*told[-1])
        recorder.flush()
        assert recording(recorder)
    assert recorder.recorded + recorder.unrecorded == len(told)
    back, report = read_with_report(folder)
    assert (len(back), report.rejected, report.notes) == (recorder.recorded, 0, [])
    gaps = Ledger.read(folder)
    assert sum(gap.lost for gap in gaps) == recorder.unrecorded
    assert len(gaps) == was_full


def test_the_sessions_gaps_are_kept(tmp_path: Path) -> None:
    """A loss that the session reports is in the ledger in the tapes' folder."""
    gap = Gap(start=NOON, end=NOON + 3, products=("BTC-USD", "ETH-USD"), cause=Cause.SEQUENCE, lost=4)
    with Recorder(tmp_path, clock=Clock()) as recorder:
        recorder.gap(gap)
    assert Ledger.read(tmp_path) == [gap]


def test_a_name_from_outside_stays_in_the_folder(tmp_path: Path) -> None:
    """A product whose name is a path is recorded under its letters."""
    told = ticker(NOON, product_id="../../ÄTH/USD")
    record(tmp_path / "deep", [told])
    assert [path.name for path in tapes_of(tmp_path / "deep")] == ["ticks_THUSD_20231115_120000.ndjson"]
    assert_recorded(tmp_path / "deep", [told])


@pytest.mark.parametrize(("early_ns", "files"), [(60 * SECOND_NS, 1), (60 * SECOND_NS + 1, 2)])
def test_clock_that_steps_back_over_the_hour_keeps_its_file(tmp_path: Path, early_ns: int, files: int) -> None:
    """A tick up to exactly a minute before the hour stays in the hour's file; an earlier one gets its own."""
    record(tmp_path, [ticker(NOON), ticker(NOON - early_ns)])
    assert len(tapes_of(tmp_path)) == files


@pytest.mark.parametrize(("after_ns", "open_files"), [(60 * SECOND_NS, 1), (60 * SECOND_NS + 1, 0)])
def test_file_of_a_past_hour_is_closed_after_a_minute(tmp_path: Path, after_ns: int, open_files: int) -> None:
    """Frames of the last second may arrive for exactly a minute."""
    clock = Clock()
    with Recorder(tmp_path, clock=clock) as recorder:
        recorder.frame(*ticker(NOON))
        clock.now = NOON + 3600 * SECOND_NS + after_ns
        recorder.flush()
        assert len(recorder.files) == open_files


class GatedDisk:
    """A disk that takes nothing from the tapes while it is ``blocked``, as a network disk that does not answer."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.entered = threading.Event()
        self._write = os.write

    def write(self, descriptor: int, data: bytes) -> int:
        self.entered.set()
        assert self.open.wait(30)
        return self._write(descriptor, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[GatedDisk]:
    """The disk behind ``os.write``, which opens at the end of the test."""
    gated = GatedDisk()
    monkeypatch.setattr(os, "write", gated.write)
    yield gated
    gated.open.set()


def test_lines_are_written_without_a_call(tmp_path: Path, disk: GatedDisk) -> None:
    """The writer thread passes a line to the file after ``flush_s``, whether or not more frames arrive."""
    disk.open.set()
    with Recorder(tmp_path, clock=Clock(), flush_s=0.001) as recorder:
        recorder.frame(*ticker(NOON))
        assert disk.entered.wait(30)
    assert recorder.recorded == 1


async def longest_pause_s(recorder: Recorder, disk: GatedDisk) -> float:
    """The longest time that an event loop is blocked while it records 100 frames to a disk that takes nothing."""
    pauses = []
    for number in range(100):
        began = time.perf_counter()
        recorder.frame(*ticker(NOON + number))
        await asyncio.sleep(0)
        pauses.append(time.perf_counter() - began)
    assert await asyncio.to_thread(disk.entered.wait, 30)
    return max(pauses)


def test_a_slow_disk_does_not_block_the_loop(tmp_path: Path, disk: GatedDisk) -> None:
    """While a write does not return, the loop is blocked for less than 20 ms, and no tick is lost."""
    with Recorder(tmp_path, clock=Clock(), flush_s=0.0001) as recorder:
        pause_s = min(
            asyncio.run(longest_pause_s(recorder, disk)) for _ in range(10)
        )  # a busy machine has pauses of its own
        assert recorder.recorded == 0
        disk.open.set()
    assert pause_s < 0.02
    assert (recorder.recorded, recorder.unrecorded, recorder.fault) == (1000, 0, "")


def test_lines_that_a_slow_disk_has_no_time_for_are_a_gap(tmp_path: Path, disk: GatedDisk) -> None:
    """A full queue refuses frames and counts their ticks; the gap is between the lines before and after."""
    clock = Clock()
    with Recorder(tmp_path, clock=clock, queue_lines=3) as recorder:
        recorder.frame(*ticker(NOON))
        assert not recorder.flush(timeout=0.01)
        assert disk.entered.wait(30)
        for number in range(1, 6):
            recorder.frame(*ticker(NOON + number))
        recorder.frame(*ticker(NOON + 6, product_id="ETH-USD"))
        assert not recording(recorder)
        assert "more than 3 ticks wait" in recorder.fault
        assert (recorder.unrecorded, recorder.waiting) == (3, 4)
        disk.open.set()
        assert recorder.flush()
        recorder.frame(*ticker(NOON + 7))
        assert recording(recorder)
        clock.now = NOON + 8
    assert (recorder.recorded, recorder.unrecorded, recorder.waiting) == (5, 3, 0)
    assert read_back(tmp_path).received.tolist() == [NOON, NOON + 1, NOON + 2, NOON + 3, NOON + 7]
    btc, eth = Ledger.read(tmp_path)
    assert (btc.start, btc.end, btc.products, btc.lost) == (NOON + 3, NOON + 7, ("BTC-USD",), 2)
    assert (eth.start, eth.products, eth.lost) == (NOON + 6, ("ETH-USD",), 1)
    assert "the disk was too slow" in btc.detail


def test_closing_does_not_wait_for_a_disk_that_hangs(tmp_path: Path, disk: GatedDisk) -> None:
    """After its timeout ``close`` counts what was not written as lost."""
    recorder = Recorder(tmp_path, clock=Clock(), flush_s=0.0001)
    recorder.frame(*ticker(NOON))
    assert disk.entered.wait(30)
    recorder.frame(*ticker(NOON + 1))
    recorder.close(timeout=0.01)
    recorder.frame(*ticker(NOON + 2))
    assert (recorder.recorded, recorder.unrecorded) == (0, 3)
    assert not recording(recorder)


IO_ERROR = OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        *((call, IO_ERROR) for call in ("write", "fsync", "close", "open", "stat")),
        ("write", RuntimeError("unexpected")),
    ],
)
def test_nothing_is_raised_whatever_the_disk_does(
    tmp_path: Path, call: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a call of the operating system fails until the end, every tick is recorded or counted, and has a gap."""

    def failing(*_: object, **__: object) -> object:
        raise error

    clock = Clock()
    with Recorder(tmp_path, clock=clock) as recorder:
        recorder.frame(*ticker(NOON))
        recorder.flush()
        with monkeypatch.context() as patch:
            owner: object = Path if call == "stat" else os
            patch.setattr(owner, call, failing)
            for _ in range(2):
                clock.now += 3600 * SECOND_NS
                recorder.frame(*ticker(clock.now))
                recorder.gap(Gap(start=NOON, end=NOON, products=("BTC-USD",), cause=Cause.SILENCE))
                recorder.flush()
            recorder.close()
    assert recorder.recorded + recorder.unrecorded == 3
    assert len(read_back(tmp_path)) == recorder.recorded
    assert recorder.fault


def test_a_loss_at_the_end_is_in_the_ledger(tmp_path: Path) -> None:
    """If no line follows lost ticks, the gap ends when the recording does."""
    clock = Clock()
    with Recorder(tmp_path, clock=clock) as recorder, pytest.MonkeyPatch.context() as patch:
        recorder.frame(*ticker(NOON))
        recorder.flush()
        patch.setattr(os, "write", full_disk)
        recorder.frame(*ticker(NOON + 1))
        recorder.flush()
        patch.undo()
        clock.now = NOON + 5
    (gap,) = Ledger.read(tmp_path)
    assert (gap.start, gap.end, gap.lost) == (NOON, NOON + 5, 1)


def full_disk(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_clock_set_back_does_not_delay_the_next_attempt(tmp_path: Path) -> None:
    """After a failed write the recorder tries again at once if the clock steps back by more than its pause."""
    clock = Clock()
    with Recorder(tmp_path, clock=clock) as recorder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", full_disk)
        recorder.frame(*ticker(NOON))
        recorder.flush()
        assert not recording(recorder)
        patch.undo()
        clock.now = NOON - 3600 * SECOND_NS
        recorder.frame(*ticker(clock.now))
        recorder.flush()
        assert recording(recorder)
