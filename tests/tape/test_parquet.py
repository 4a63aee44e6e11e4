"""Parquet tapes, foreign tables of trades, and Parquet files that are neither."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from math import inf, nan
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tape.strategies import assert_same, read_all, read_with_report, tick_at
from volspike.errors import UnreadableFile
from volspike.market import SECOND_NS, Kind, Side, Tick, Ticks
from volspike.tape import TAPE_SCHEMA, TapeReport, read_ticks, write_parquet

NOON = datetime(2018, 1, 20, 12, tzinfo=UTC)
NOON_NS = int(NOON.timestamp()) * SECOND_NS
TRADES: dict[str, Any] = {
    "timestamp": [NOON, NOON],
    "id": [5, None],
    "side": ["BUY", "SELL"],
    "price": [100, 101],
    "size": [0.5, None],
}


def table_at(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_the_columns_are_those_of_a_tick(tmp_path: Path) -> None:
    """A Parquet tape has the columns of ``Tick``, with words as dictionaries, and says what it is."""
    write_parquet([Ticks.of([tick_at(1)])], tmp_path / "a.parquet", simulated=True)
    schema = pq.read_schema(tmp_path / "a.parquet")
    assert schema.names == TAPE_SCHEMA.names
    assert set(schema.names) == set(Tick.__struct_fields__)
    told = pq.read_metadata(tmp_path / "a.parquet").metadata[b"volspike_tape"]
    assert json.loads(told) == {"format": 1, "simulated": True}


def test_a_foreign_table_of_trades_reads(tmp_path: Path) -> None:
    """Trades under other column names, without a product, are trades of the product in the file's name."""
    ticks = read_all(table_at(tmp_path / "btcjpy_trades_2018.parquet", **TRADES))
    common: dict[str, Any] = {"time": NOON_NS, "received": NOON_NS, "kind": Kind.TRADE, "product_id": "BTC-JPY"}
    expected = [
        Tick(**common, price=100.0, last_size=0.5, side=Side.BUY, trade_id=5),
        Tick(**common, price=101.0, side=Side.SELL),
    ]
    assert_same(ticks, expected)


def test_rows_that_cannot_be_believed_are_set_aside(tmp_path: Path) -> None:
    """Bad prices, sizes, sides, times and products are refused by row, with their values kept."""
    size = 8
    path = table_at(
        tmp_path / "a.parquet",
        time=pa.array([NOON] * 7 + [None], pa.timestamp("us")),
        product_id=["BTC-USD"] * 6 + [None, "BTC-USD"],
        price=[1.0, 0.0, nan, inf, 1.0, 1.0, 1.0, 1.0],
        size=[1.0] * 4 + [-1.0] + [1.0] * (size - 5),
        side=["buy"] * 5 + ["up"] + ["buy"] * 2,
    )
    ticks, report = read_with_report(path)
    assert len(ticks) == 1
    assert [rejected.line for rejected in report.rejections] == [2, 3, 4, 5, 6, 7, 8]
    kept = [json.loads(line) for line in (tmp_path / "a.rejected.ndjson").read_text().splitlines()]
    assert json.loads(kept[0]["text"])["price"] == 0.0
    assert (report.lines, report.ticks, report.rejected) == (8, 1, 7)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ({"timestamp": [NOON], "price": [1.0], "best_bid": [1.0], "is_warm": [True]}, "it is a feature file"),
        ({"a": [1], "b": [2]}, "column time, price missing, found a, b; looked for time, "),
        (TRADES | {"price": ["1", "2"]}, "price is string"),
        (TRADES | {"timestamp": [1, 2]}, "timestamp is int64"),
        (TRADES | {"side": [1, 2]}, "side is int64"),
        (TRADES, "no product"),
        (TRADES | {"product_id": ["A-B", "A-B"], "timestamp": [datetime(9000, 1, 1, tzinfo=UTC)] * 2}, "out of bounds"),
    ],
)
def test_a_parquet_file_that_is_no_tape_is_told_why(tmp_path: Path, columns: dict[str, Any], text: str) -> None:
    """A feature file, wrong columns, wrong types: one line that names the file, the fault and the remedy."""
    with pytest.raises(UnreadableFile, match=text) as caught:
        read_all(table_at(tmp_path / "odd.parquet", **columns))
    assert "odd.parquet" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"x" * 100])
def test_a_broken_parquet_file_is_unreadable(tmp_path: Path, content: bytes) -> None:
    """An empty or cut off Parquet file is one clear line."""
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"a\.parquet"):
        read_all(tmp_path)


def test_a_parquet_tape_without_rows_is_empty(tmp_path: Path) -> None:
    """A tape without ticks is reported as empty."""
    write_parquet([], tmp_path / "a.parquet")
    with pytest.raises(UnreadableFile, match="empty"):
        read_all(tmp_path)


@pytest.mark.parametrize("told", [b"{}", b"nonsense", b'{"format":2,"simulated":false}'])
def test_a_tape_of_another_format_is_refused(tmp_path: Path, told: bytes) -> None:
    """A tape whose own account of itself cannot be understood is not guessed at."""
    write_parquet([Ticks.of([tick_at(1)])], tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").replace_schema_metadata({b"volspike_tape": told})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UnreadableFile, match=r"format|metadata"):
        read_all(tmp_path)


def test_a_tape_that_lost_its_metadata_needs_its_origin(tmp_path: Path) -> None:
    """A tape of volspike that pandas saved again is read only if the origin is stated, and is simulated if it was."""
    path = tmp_path / "a.parquet"
    write_parquet([Ticks.of([tick_at(1), tick_at(2)])], path, simulated=True)
    pd.read_parquet(path).to_parquet(path)
    with pytest.raises(UnreadableFile, match="--origin real or --origin simulated"):
        read_all(path)
    for simulated in (True, False):
        report = TapeReport()
        ticks = Ticks.join(list(read_ticks(path, report=report, simulated=simulated)))
        assert_same(ticks, [tick_at(1), tick_at(2)])
        assert report.simulated is simulated
