"""Tapes as messages: everything that a replay would read, in that order, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.streams.lines import lines_of, write_tape
from tests.tape.strategies import START, assert_same, read_all, tick_at
from volspike.errors import UnreadableFile, UsageError
from volspike.market import Tick, Ticks, format_time
from volspike.streams.replay import tape_messages
from volspike.streams.wire import Message
from volspike.tape import TapeReport, tape_line, write_ndjson, write_parquet

FRAME = {"type": "ticker", "sequence": 7, "product_id": "BTC-USD", "price": "100.5", "time": format_time(START + 5)}


def messages_of(*sources: Path) -> tuple[list[Message], TapeReport]:
    report = TapeReport()
    return list(tape_messages(sources, report)), report


def read_back(folder: Path, messages: list[Message]) -> Ticks:
    tape = folder / "read-back.ndjson"
    tape.write_bytes(b"".join(message.value + b"\n" for message in messages))
    return read_all(tape)


@pytest.mark.shared_data
def test_recorded_tapes_go_line_for_line(shared_data: Path) -> None:
    """All lines of real recordings, in both Coinbase formats, are sent unchanged in the order of a replay."""
    tapes = sorted((shared_data / "coinbase").glob("*.ndjson"))
    messages, report = messages_of(*tapes)
    assert sorted(message.value for message in messages) == sorted(line for tape in tapes for line in lines_of(tape))
    assert [message.received for message in messages] == read_all(tapes, keep_rejected=False).received.tolist()
    assert (report.ticks, report.rejected, report.bytes_read) == (len(messages), 0, report.total_bytes)


@given(
    st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=30), min_size=1, max_size=4),
    st.sampled_from([".ndjson", ".ndjson.gz"]),
)
def test_tapes_are_merged_as_a_replay_merges_them(
    tmp_path_factory: pytest.TempPathFactory, clocks: list[list[int]], ending: str
) -> None:
    """However tapes overlap and their clocks step back, messages have the order of ``read_ticks``."""
    folder = tmp_path_factory.mktemp("tapes")
    tapes = []
    for number, clock in enumerate(clocks):
        ticks = [tick_at(received, 100.0 + k, f"C{number}-USD") for k, received in enumerate(clock)]
        tapes.append(folder / f"tape{number}{ending}")
        write_ndjson([Ticks.of(ticks)], tapes[-1])
    messages, _ = messages_of(*tapes)
    assert_same(read_back(folder, messages), read_all(tapes))


def test_a_parquet_tape_becomes_lines(tmp_path: Path) -> None:
    """Each tick of a Parquet tape is sent as a line that reads back as the same tick."""
    ticks = [tick_at(k, 100.0 + k) for k in range(50)]
    write_parquet([Ticks.of(ticks)], tmp_path / "tape.parquet")
    messages, report = messages_of(tmp_path / "tape.parquet")
    assert_same(read_back(tmp_path, messages), ticks)
    assert (report.lines, report.bytes_read) == (50, report.total_bytes)


def test_a_bare_frame_becomes_a_line_of_its_tick(tmp_path: Path) -> None:
    """A recording of frames goes as tape lines, keyed by product; what is no tick is counted and not sent."""
    tape = tmp_path / "tape.ndjson"
    tape.write_text(json.dumps(FRAME) + '\n{"type": "subscriptions", "channels": []}\n')
    messages, report = messages_of(tape)
    assert [(message.key, message.received) for message in messages] == [(b"BTC-USD", START + 5)]
    assert_same(read_back(tmp_path, messages), read_all(tape))
    assert report.rejected == 0


def test_what_cannot_be_placed_is_left_out_and_told(tmp_path: Path) -> None:
    """An incomplete line has no product: it is reported with its number, and the lines around it are sent."""
    good = [tape_line(tick_at(k)) for k in range(2)]
    tape = tmp_path / "tape.ndjson"
    tape.write_bytes(good[0] + b"\n" + good[1][:30] + b"\n" + good[1].replace(b"\n", b"\r\n"))
    messages, report = messages_of(tape)
    assert [message.value + b"\n" for message in messages] == good
    assert [(rejected.line, report.rejected) for rejected in report.rejections] == [(3, 1)]


def test_a_line_that_names_product_and_time_is_judged_by_its_reader(tmp_path: Path) -> None:
    """An invalid price is sent unchanged: the stream has dead letters for it."""
    tape = write_tape(tmp_path / "tape.ndjson", [tick_at(0), tick_at(1)])
    tape.write_bytes(tape.read_bytes().replace(b'"100"', b'"a lot"', 1))
    messages, _ = messages_of(tape)
    assert [message.value for message in messages] == lines_of(tape)


def test_a_simulated_tape_is_known_as_one(tmp_path: Path) -> None:
    """The mark of its lines reaches the report once a line was read."""
    write_ndjson([Ticks.of([tick_at(0)])], tmp_path / "tape.ndjson", simulated=True)
    assert messages_of(tmp_path / "tape.ndjson")[1].simulated


def test_tapes_open_only_when_they_are_due(tmp_path: Path) -> None:
    """A later tape that vanishes after the start of the replay does not disturb what comes before it."""
    ticks: list[list[Tick]] = [[tick_at(k + 1000 * number) for k in range(3)] for number in range(2)]
    tapes = [write_tape(tmp_path / f"tape{number}.ndjson", part) for number, part in enumerate(ticks)]
    messages = tape_messages(tapes, TapeReport())
    assert next(messages).received == START
    tapes[1].unlink()
    assert [next(messages).received, next(messages).received] == [START + 1, START + 2]
    with pytest.raises(UnreadableFile):
        next(messages)


def test_no_tape_and_no_tick_are_told_at_the_call(tmp_path: Path) -> None:
    """A name that matches nothing, and a file without a tick, end before anything is sent."""
    with pytest.raises(UsageError, match="no such tape"):
        tape_messages(tmp_path / "none.ndjson", TapeReport())
    (tmp_path / "empty.ndjson").write_text("")
    with pytest.raises(UnreadableFile, match="without a tick"):
        tape_messages(tmp_path / "empty.ndjson", TapeReport())
