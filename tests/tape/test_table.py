"""Tables in memory that are read as tapes."""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tape.strategies import assert_same, read_all, read_with_report, tick_at, ticks
from volspike.errors import UnreadableFile
from volspike.market import MISSING_ID, SECOND_NS, Tick, Ticks
from volspike.tape import CHUNK, TableTape, TapeReport, read_ticks, tape_metadata, tick_table, write_parquet

NOON = datetime(2026, 1, 1, 12)  # noqa: DTZ001  without a zone on purpose
INSTANT = pa.timestamp("ns", "UTC")


def seconds(count: int) -> list[Tick]:
    """A tick each second."""
    return [tick_at(second * SECOND_NS, 100.0 + second) for second in range(count)]


def table_of(rows: list[Tick]) -> pa.Table:
    """A table as a tape of volspike gives it."""
    return tick_table(Ticks.of(rows)).replace_schema_metadata(tape_metadata(simulated=False))


def trades(**columns: Any) -> TableTape:
    """A table of a minute of trades made elsewhere, with some of its columns replaced."""
    times = [NOON + timedelta(seconds=second) for second in range(60)]
    usual = {"time": pa.array(times, pa.timestamp("ns")), "price": np.arange(1.0, 61.0), "size": np.ones(60)}
    return TableTape(pa.table(usual | columns), product="BTC-USD")


@given(st.lists(ticks(), min_size=1, max_size=30), st.lists(st.integers(0, 30), max_size=4))
def test_chunks_change_nothing(rows: list[Tick], cuts: list[int]) -> None:
    """Whatever its chunks, also empty ones with dictionaries of their own, a table reads as the file of its rows."""
    places = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [table_of(rows[start:end]) for start, end in pairwise(places)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.parquet"
        pq.write_table(table_of(rows), path)
        expected, reports = TapeReport(), TapeReport()
        try:
            file = Ticks.join(list(read_ticks(path, report=expected)))
        except UnreadableFile:
            with pytest.raises(UnreadableFile):
                read_all(TableTape(pa.concat_tables(parts)))
            return
    assert_same(Ticks.join(list(read_ticks(TableTape(pa.concat_tables(parts)), report=reports))), file)
    assert (reports.lines, reports.ticks, reports.rejected) == (expected.lines, expected.ticks, expected.rejected)
    assert [each.reason for each in reports.rejections] == [each.reason for each in expected.rejections]
    assert [note.text for note in reports.notes] == [note.text for note in expected.notes]


def test_numbers_and_times_are_views() -> None:
    """Columns in the types of a tick reach the kernel without a copy, as do all batches of one chunk."""
    count = 2 * CHUNK + 10
    time = np.arange(count) * SECOND_NS
    columns = {name: np.arange(1.0, count + 1.0) for name in ("price", "best_bid", "best_ask", "bid_size", "ask_size")}
    ids = np.arange(count)
    table = pa.table({"time": pa.array(time).view(INSTANT), "trade_id": ids, **columns})
    parts = list(read_ticks(TableTape(table, product="BTC-USD")))
    assert [len(part) for part in parts] == [CHUNK, CHUNK, 10]
    for part in parts:
        assert np.shares_memory(part.time, time)
        assert np.shares_memory(part.trade_id, ids)
        for name, column in columns.items():
            assert np.shares_memory(getattr(part, name), column)


def test_polars_columns_are_views() -> None:
    """A frame of polars holds Arrow arrays, which are not copied."""
    frame = pl.DataFrame({"price": np.arange(1.0, 11.0), "time": np.arange(10) * SECOND_NS})
    frame = frame.with_columns(pl.col("time").cast(pl.Datetime("ns", "UTC")))
    (part,) = read_ticks(TableTape(frame.to_arrow(), product="BTC-USD"))
    assert np.shares_memory(part.price, frame["price"].to_numpy())
    assert np.shares_memory(part.time, frame["time"].to_physical().to_numpy())


def test_a_table_is_read_without_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also newest first, which a file is read by way of a temporary one."""
    monkeypatch.setattr(tempfile, "tempdir", "/no/such/folder")
    rows = seconds(300)
    report = TapeReport()
    found = Ticks.join(list(read_ticks(TableTape(table_of(rows[::-1])), report=report)))
    assert_same(found, rows)
    assert [note.text for note in report.notes] == ["is newest first: it is read from its end"]


def test_invalid_rows_are_counted(tmp_path: Path) -> None:
    """With their number and reason, as those of the same rows in a file, whose reader keeps them."""
    table = trades(price=[-1.0, *range(2, 60), None]).table
    report = TapeReport()
    found = Ticks.join(list(read_ticks(TableTape(table, product="BTC-USD"), report=report)))
    assert [(each.file, each.line) for each in report.rejections] == [("the frame", 1), ("the frame", 60)]
    assert (report.lines, report.ticks, report.rejected, report.rejected_files) == (60, 58, 2, [])
    pq.write_table(table, tmp_path / "ticks_BTCUSD_1.parquet")
    file, other = read_with_report(tmp_path / "ticks_BTCUSD_1.parquet")
    assert_same(found, file)
    assert [each.reason for each in other.rejections] == [each.reason for each in report.rejections]


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_times_have_any_unit(unit: str, zone: str | None) -> None:
    """Times without a zone are UTC, or local times of a zone; times with one are instants."""
    times = trades().table["time"].cast(pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    expected = int(NOON.timestamp()) * SECOND_NS
    assert int(read_all(trades(time=times)).time[0]) == expected
    local = read_all(trades(time=times), timezone="Asia/Tokyo")
    assert int(local.time[0]) == expected - (9 * 3600 * SECOND_NS if zone is None else 0)


SELL = pa.array(["sell"] * 60)
OTHER_WORDS = pa.array(["S", "sell"] * 15).dictionary_encode()


@pytest.mark.parametrize(
    "words",
    [
        SELL.cast(pa.large_string()),
        SELL.cast(pa.string_view()),
        SELL.dictionary_encode(),
        SELL.cast(pa.dictionary(pa.uint32(), pa.large_string())),
        pa.chunked_array([SELL.slice(30).dictionary_encode(), OTHER_WORDS]),
    ],
    ids=["large_string", "string_view", "dictionary", "unsigned", "two dictionaries"],
)
def test_texts_have_any_type(words: Any) -> None:
    """As polars, pandas and Arrow hold them."""
    assert set(read_all(trades(side=words)).side.tolist()) == {-1}


def test_numbers_have_any_type() -> None:
    """Decimals, integers, small floats and nullable ids; a missing id is -1, not 0."""
    ids = pa.array([None, *range(1, 60)], pa.int64())
    price = pa.array([Decimal("100.10")] * 60)
    found = read_all(trades(price=price, id=ids, size=pa.array([2] * 60, pa.uint8())))
    assert found.price.tolist() == [100.1] * 60
    assert found.trade_id[:3].tolist() == [MISSING_ID, 1, 2]
    assert found.last_size[0] == 2.0
    report = TapeReport()
    floats = ids.cast(pa.float64())
    assert next(read_ticks(trades(id=floats), report=report)).trade_id[:3].tolist() == [MISSING_ID, 1, 2]
    assert report.notes == []
    assert read_all(trades(price=np.ones(60, np.float32))).price[0] == 1.0
    floats = [np.nan, 5.0, 5.5, -1.0, 2.0**63, *range(55)]
    assert read_all(trades(id=floats)).trade_id[:6].tolist() == [MISSING_ID, 5, MISSING_ID, MISSING_ID, MISSING_ID, 0]


@pytest.mark.parametrize(
    ("tape", "text"),
    [
        (trades(price=["1"] * 60), "the frame: no tape: price is string"),
        (TableTape(trades().table), "the frame: no product: add a column product_id, or state it with product="),
        (TableTape(trades().table.slice(0, 0), "ticks", "A-B"), "ticks: it has no rows"),
        (trades(price=[0.0] * 60), "the frame: 60 rows, no tick; 60 rejected, the first at row 1: Expected a finite"),
        (trades(time=pa.array([NOON.replace(year=9000)] * 60)), "the frame: cannot be read (column time: Casting"),
        (trades(id=pa.array([2**63] * 60, pa.uint64())), "the frame: cannot be read (column id: Integer value"),
    ],
)
def test_errors_name_the_table_and_its_column(tape: TableTape, text: str) -> None:
    """One line that says what to change."""
    with pytest.raises(UnreadableFile) as caught:
        read_all(tape)
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_ticks_become_a_table_and_ticks_again(tmp_path: Path) -> None:
    """A table of ticks has the columns of a tape and shares their numbers."""
    rows = Ticks.of(seconds(10))
    table = tick_table(rows)
    assert np.shares_memory(table["price"].chunk(0).to_numpy(), rows.price)
    write_parquet([rows], tmp_path / "a.parquet")
    assert pq.read_schema(tmp_path / "a.parquet").equals(table.schema)
    assert_same(read_all(TableTape(table), simulated=False), rows)
