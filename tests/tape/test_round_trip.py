"""Ticks are read as they were written, in either form of a tape."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tape.strategies import assert_same, read_all, read_with_report, tick_at, ticks
from volspike.errors import UsageError
from volspike.market import SECOND_NS, Kind, Side, Tick, Ticks
from volspike.tape import (
    DayFigures,
    TapeReport,
    TapeWriter,
    convert,
    read_ticks,
    tape_line,
    write_ndjson,
    write_parquet,
)


def in_order(told: list[Tick]) -> list[Tick]:
    """Ticks in the order of time, each received within a second."""
    received = [tick.time + tick.received % SECOND_NS for tick in told]
    timed = [msgspec.structs.replace(tick, received=time) for tick, time in zip(told, received, strict=True)]
    return sorted(timed, key=lambda tick: tick.time)


MANY = st.lists(ticks(), min_size=1, max_size=40).map(in_order)


@given(told=MANY, ending=st.sampled_from([".ndjson", ".jsonl.zst", ".json.gz"]), chunk=st.integers(1, 50))
def test_ndjson_keeps_every_column(
    told: list[Tick], ending: str, chunk: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Ticks written as NDJSON, compressed or not, come back the same to the last bit, whatever the chunk."""
    tape = tmp_path_factory.mktemp("tape") / f"a{ending}"
    write_ndjson([Ticks.of(told)], tape)
    parts = list(read_ticks(tape, chunk=chunk))
    assert_same(Ticks.join(parts), told)
    assert {len(part) for part in parts[:-1]} <= {chunk}


@given(told=MANY, cut=st.integers(0, 40))
def test_parquet_keeps_every_column(told: list[Tick], cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Ticks written as Parquet, in whatever pieces, come back the same to the last bit."""
    tape = tmp_path_factory.mktemp("tape") / "a.parquet"
    assert write_parquet([Ticks.of(told[:cut]), Ticks.of(told[cut:])], tape) == len(told)
    assert_same(read_all(tape), told)


@given(told=MANY)
def test_converting_there_and_back_changes_nothing(told: list[Tick], tmp_path_factory: pytest.TempPathFactory) -> None:
    """NDJSON to Parquet to NDJSON gives the same lines."""
    folder = tmp_path_factory.mktemp("tape")
    write_ndjson([Ticks.of(told)], folder / "a.ndjson", simulated=True)
    convert(folder / "a.ndjson", folder / "b.parquet")
    report = convert(folder / "b.parquet", folder / "c.ndjson")
    assert report.simulated
    assert (folder / "c.ndjson").read_bytes() == (folder / "a.ndjson").read_bytes()


def test_a_line_has_the_shape_of_recorded_tapes() -> None:
    """The keys of a line are those of recorded tapes, its time has a zone, and missing values are null."""
    line = json.loads(tape_line(tick_at(1_500_000_000), day=DayFigures(8103.26846767, 88099.05)))
    assert list(line) == [
        *("timestamp", "product_id", "price", "volume_24h", "low_24h", "high_24h", "best_bid", "best_ask", "raw")
    ]
    assert line["timestamp"] == "2023-11-14T22:13:21.5Z"
    assert (line["price"], line["volume_24h"], line["high_24h"]) == ("100", "8103.26846767", None)
    assert line["raw"]["best_bid_size"] == "1.5"


def test_a_trade_is_told_as_the_exchange_tells_it() -> None:
    """A trade's raw message is a match with the maker's side, so that a taker's buy is a maker's sell."""
    tick = Tick(
        time=1, received=1, kind=Kind.TRADE, product_id="BTC-USD", price=1e-7, last_size=2.0, side=Side.BUY, trade_id=7
    )
    raw = json.loads(tape_line(tick))["raw"]
    assert raw == {
        "type": "match",
        "product_id": "BTC-USD",
        "price": "0.0000001",
        "size": "2",
        "side": "sell",
        "trade_id": 7,
    }


def test_the_exchanges_own_words_are_kept(tmp_path: Path) -> None:
    """A verbatim raw message is in the line unchanged, on one line, and the tick is read from it."""
    tick = tick_at(5)
    raw = b'{"type":"ticker",\n "best_bid_quantity":"1.5","best_ask_quantity":"0.25", "low_52_w":"9"}'
    with TapeWriter(tmp_path / "a.ndjson") as tape:
        tape.write_tick(tick, raw=raw)
    assert b'"low_52_w":"9"' in (tmp_path / "a.ndjson").read_bytes()
    assert_same(read_all(tmp_path / "a.ndjson"), [tick])


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.zst", "a.ndjson.gz", "a.parquet"])
def test_a_failed_write_leaves_the_tape_that_was_there(tmp_path: Path, name: str) -> None:
    """If writing stops in the middle, the previous tape is unchanged and no other file remains."""
    write = write_parquet if name.endswith("parquet") else write_ndjson
    write([Ticks.of([tick_at(1)])], tmp_path / name)

    def broken() -> object:
        yield Ticks.of([tick_at(2)])
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        write(broken(), tmp_path / name)  # type: ignore[arg-type]
    assert_same(read_all(tmp_path / name), [tick_at(1)])
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_simulated_ticks_stay_marked(tmp_path: Path) -> None:
    """A tape of a simulated market says so in either form, and a tape converted from it too."""
    write_ndjson([Ticks.of([tick_at(1)])], tmp_path / "a.ndjson", simulated=True)
    write_parquet([Ticks.of([tick_at(1)])], tmp_path / "b.parquet")
    for name, simulated in (("a.ndjson", True), ("b.parquet", False)):
        report = TapeReport()
        read_all(tmp_path / name, report=report)
        assert report.simulated is simulated


@pytest.mark.parametrize("target", ["a.csv", "a.ndjson", "a.ndjson/b.parquet", "x.rejected.ndjson"])
def test_a_target_that_cannot_be_is_refused(tmp_path: Path, target: str) -> None:
    """Converting to a name that is no tape's, onto its own source, or where no file can be, is a usage error."""
    write_ndjson([Ticks.of([tick_at(1)])], tmp_path / "a.ndjson")
    before = (tmp_path / "a.ndjson").read_bytes()
    with pytest.raises(UsageError, match=r"name|cannot be written"):
        convert(tmp_path / "a.ndjson", tmp_path / target)
    assert (tmp_path / "a.ndjson").read_bytes() == before


def test_many_tapes_become_one(tmp_path: Path) -> None:
    """Converting several tapes gives one in time order."""
    for name, received in (("b", 1), ("a", 3), ("c", 2)):
        write_ndjson([Ticks.of([tick_at(received)])], tmp_path / f"{name}.ndjson")
    convert(str(tmp_path / "*.ndjson"), tmp_path / "all" / "one.parquet")
    whole, report = read_with_report(tmp_path / "all" / "one.parquet")
    assert_same(whole, [tick_at(1), tick_at(2), tick_at(3)])
    assert report.products == ["BTC-USD"]
