"""Selection and order of tapes, and every shape of a line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tape.strategies import START, assert_same, read_all, read_with_report, tick_at
from volspike.errors import UnreadableFile, UsageError
from volspike.market import SECOND_NS, Kind, Side, Tick, Ticks
from volspike.tape import read_ticks, tape_line, tapes_of, write_ndjson, write_parquet

TICKER = (
    '{"type":"ticker","sequence":90,"product_id":"ETH-USD","price":"1285.22","best_bid":"1285.04","best_bid_size":"0.4",'
    '"best_ask":"1285.27","best_ask_size":"1.5","side":"buy","time":"2022-10-19T23:28:22.061769Z","trade_id":37,'
    '"last_size":"11.4"}'
)
TRADES = (
    '{"channel":"market_trades","timestamp":"2026-06-14T05:54:18.5Z","sequence_num":1,"events":[{"type":"update",'
    '"trades":[{"product_id":"BTC-USD","trade_id":"2","price":"64341","size":"0.5","time":"2026-06-14T05:54:18.1Z",'
    '"side":"SELL"},{"product_id":"BTC-USD","trade_id":"1","price":"64340","size":"0.5",'
    '"time":"2026-06-14T05:54:18Z","side":"BUY"}]}]}'
)
HEARTBEAT = (
    '{"type":"heartbeat","sequence":90,"last_trade_id":20,"product_id":"BTC-USD","time":"2014-11-07T08:19:28.464459Z"}'
)


def lines_to(tape: Path, *lines: str) -> Path:
    tape.write_text("\n".join(lines))
    return tape


def test_a_recorded_line_reads(tmp_path: Path) -> None:
    """A line of Advanced Trade without a zone is UTC, its exchange time that of its receipt, its sizes from raw."""
    line = (
        '{"timestamp":"2025-12-06T05:45:36.037320","product_id":"BTC-USD","price":"89565","volume_24h":"8103.2",'
        '"best_bid":"89574.23","best_ask":"89574.24","raw":{"type":"ticker","product_id":"BTC-USD","price":"89565",'
        '"best_bid":"89574.23","best_ask":"89574.24","best_bid_quantity":"0.05","best_ask_quantity":"0.24"}}'
    )
    expected = Tick(
        time=1764999936037320000,
        received=1764999936037320000,
        kind=Kind.TICKER,
        product_id="BTC-USD",
        price=89565.0,
        best_bid=89574.23,
        best_ask=89574.24,
        bid_size=0.05,
        ask_size=0.24,
    )
    assert_same(read_all(lines_to(tmp_path / "a.ndjson", line)), [expected])


def test_the_other_flavour_tells_its_own_time(tmp_path: Path) -> None:
    """A raw Coinbase Exchange message has time, sequence, side, size and trade id."""
    line = f'{{"timestamp":"2022-10-19T23:28:23","product_id":"ETH-USD","price":"1285.22","raw":{TICKER}}}'
    (tick,) = read_all(lines_to(tmp_path / "a.ndjson", line))
    assert tick.received - tick.time == 938_231_000
    assert (tick.side, tick.trade_id, tick.sequence, tick.last_size) == (Side.BUY, 37, 90, 11.4)
    assert (tick.best_bid, tick.ask_size) == (1285.04, 1.5)


def test_an_empty_side_of_the_book_is_not_told(tmp_path: Path) -> None:
    """A quote of "", "0" or null has neither price nor size."""
    bids = ('"best_bid":"",', '"best_bid":"0",', '"best_bid":null,', "")
    lines = [
        f'{{"timestamp":"2025-12-06T05:45:36Z","product_id":"BTC-USD","price":"9",{bid}"best_ask":"9.5","raw":'
        f'{{"type":"ticker",{bid}"best_bid_quantity":"1","best_ask_quantity":"2"}}}}'
        for bid in bids
    ]
    ticks, report = read_with_report(lines_to(tmp_path / "a.ndjson", *lines))
    assert report.rejected == 0
    assert np.isnan(ticks.best_bid).all()
    assert np.isnan(ticks.bid_size).all()
    assert (ticks.ask_size == 2).all()


def test_a_line_without_raw_reads(tmp_path: Path) -> None:
    """A line may omit the exchange's message; its sizes are then missing."""
    line = '{"timestamp":"2025-12-06T05:45:36Z","product_id":"BTC-USD","price":9,"best_bid":8.5,"best_ask":9.5}'
    (tick,) = read_all(lines_to(tmp_path / "a.ndjson", line))
    assert (tick.price, tick.best_bid, tick.kind) == (9.0, 8.5, Kind.TICKER)
    assert np.isnan(tick.bid_size)


def test_bare_frames_are_received_when_they_were_told(tmp_path: Path) -> None:
    """A frame of either protocol is a line; it may contain several ticks or none, and has the exchange's time."""
    tape = lines_to(tmp_path / "a.ndjson", TICKER, HEARTBEAT, TRADES, '{"channel":"weather","events":[]}')
    ticks, report = read_with_report(tape)
    assert ticks.kind.tolist() == [Kind.TICKER, Kind.TRADE, Kind.TRADE]
    assert ticks.trade_id.tolist() == [37, 1, 2]
    assert ticks.side.tolist() == [Side.BUY, Side.SELL, Side.BUY]
    assert ticks.received[0] == ticks.time[0]
    assert (ticks.received[1:] >= ticks.time[1:]).all()
    assert report.ignored == {"heartbeat": 1, "weather": 1}
    assert report.rejected == 0


def test_a_recorders_records_are_received_at_their_own_time(tmp_path: Path) -> None:
    """A frame in a string, under raw or data, was received at ``ts``, to the last digit written."""
    records = [
        json.dumps({"t": "header", "format": 2}),
        json.dumps({"ts": 1762932013.5493498, "raw": TICKER}),
        json.dumps({"t": "recv", "ts": 1762932014, "data": TRADES}),
        json.dumps({"t": "send", "ts": 1762932015.5, "data": "{}"}),
    ]
    ticks, report = read_with_report(lines_to(tmp_path / "a.jsonl", *records))
    assert ticks.received.tolist() == [1762932013_549349800, *[1762932014 * SECOND_NS] * 2]
    assert report.ignored == {"header": 1, "send": 1}
    assert (report.lines, report.ticks, report.rejected) == (4, 3, 0)


def test_what_lies_before_the_recording_is_no_flow(tmp_path: Path) -> None:
    """A last match and a snapshot of past trades are counted as history and left out."""
    last = tape_line(tick_at(0)).decode().replace('"ticker"', '"last_match"').strip()
    tape = lines_to(tmp_path / "a.ndjson", TICKER, TRADES.replace("update", "snapshot"), last)
    ticks, report = read_with_report(tape)
    assert len(ticks) == 1
    assert report.ignored == {"history": 3}


def test_tapes_follow_each_other_in_time(tmp_path: Path) -> None:
    """Whatever their names, forms and the order of naming, tapes are read by their first tick."""
    write_ndjson([Ticks.of([tick_at(30), tick_at(31)])], tmp_path / "a.ndjson")
    write_parquet([Ticks.of([tick_at(10), tick_at(11)])], tmp_path / "b.parquet")
    write_ndjson([Ticks.of([tick_at(20), tick_at(21)])], tmp_path / "c.jsonl.zst")
    for source in (tmp_path, str(tmp_path / "*"), [str(tmp_path / "a*"), tmp_path]):
        assert (read_all(source).received - START).tolist() == [10, 11, 20, 21, 30, 31]


@given(
    received=st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12), min_size=1, max_size=4),
    chunk=st.integers(1, 9),
    block_bytes=st.integers(1, 3000),
)
def test_overlapping_tapes_are_merged(
    received: list[list[int]], chunk: int, block_bytes: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Overlapping tapes come merged by receive time, each in its own order, ties in the order of their starts."""
    folder = tmp_path_factory.mktemp("tapes")
    for number, times in enumerate(received):
        ticks = [tick_at(time, 1.0 + row, f"P-{number}") for row, time in enumerate(times)]
        write_ndjson([Ticks.of(ticks)], folder / f"{number}.ndjson")
    starts = sorted(range(len(received)), key=lambda number: received[number][0])
    keyed = [
        (max(received[number][: row + 1]), rank, row)
        for rank, number in enumerate(starts)
        for row in range(len(received[number]))
    ]
    whole = read_all(folder, chunk=chunk, block_bytes=block_bytes)
    told = [(whole.products[code], price - 1) for code, price in zip(whole.product, whole.price, strict=True)]
    assert told == [(f"P-{starts[rank]}", row) for _, rank, row in sorted(keyed)]


def test_only_tapes_are_found(tmp_path: Path) -> None:
    """A folder means its tapes and those of its subfolders without hidden ones; no tape is named twice."""
    for folder in ("deep", ".hidden"):
        (tmp_path / folder).mkdir()
    names = ["a.ndjson", "b.jsonl.gz", "c.parquet", "a.rejected.ndjson", "d.csv", "e.ndjson.part", "deep/f.json.zst"]
    names += [".hidden/g.ndjson", ".h.ndjson"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in tapes_of(tmp_path)] == ["a.ndjson", "b.jsonl.gz", "c.parquet", "f.json.zst"]
    assert [path.name for path in tapes_of(str(tmp_path / "**" / "*.zst"))] == ["f.json.zst"]
    assert len(tapes_of([tmp_path, tmp_path / "a.ndjson", str(tmp_path / "[a-z]*.ndjson")])) == 4


@pytest.mark.parametrize("source", ["none.ndjson", "*.ndjson", "**/*.parquet", ".", "there.csv", []])
def test_a_source_without_a_tape_is_named(
    tmp_path: Path, source: str | list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A missing file, a glob or folder without a tape, and a file of another kind are usage errors, at the call."""
    monkeypatch.chdir(tmp_path)
    Path("there.csv").touch()
    with pytest.raises(UsageError) as caught:
        read_ticks(source)
    assert str(source or "no tape was named") in str(caught.value)


def test_a_name_with_signs_of_a_glob_is_a_name_first(tmp_path: Path) -> None:
    """A file that is there is read, even if its name would be a pattern."""
    write_ndjson([Ticks.of([tick_at(1)])], tmp_path / "a[1].ndjson")
    assert len(read_all(str(tmp_path / "a[1].ndjson"))) == 1


def test_a_chunk_of_nothing_is_refused(tmp_path: Path) -> None:
    """A chunk holds at least one tick."""
    with pytest.raises(UsageError, match="at least 1"):
        read_ticks(tmp_path, chunk=0)


def test_a_tape_that_vanished_is_told(tmp_path: Path) -> None:
    """A tape that cannot be opened when its turn comes is unreadable, by name."""
    write_ndjson([Ticks.of([tick_at(1)])], tmp_path / "a.ndjson")
    parts = read_ticks(tmp_path)
    (tmp_path / "a.ndjson").unlink()
    with pytest.raises(UnreadableFile, match=r"a\.ndjson"):
        list(parts)
