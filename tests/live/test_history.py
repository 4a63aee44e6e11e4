"""Bars of the past: tape and predictions, and the seam to the bars in memory."""

from __future__ import annotations

import asyncio
from math import nan
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import UsageError
from volspike.live.bars import COLUMNS, SecondBars
from volspike.live.history import (
    STEPS_S,
    HistoryRange,
    StoredHistory,
    TapeBars,
    gap_spans,
    read_history,
    spike_spans,
)
from volspike.market import SECOND_NS, Cause, Gap, Kind, Tick, Ticks
from volspike.monitoring.outcome_database import OutcomeRecord, PredictionRecord
from volspike.monitoring.outcomes import OutcomeStore
from volspike.monitoring.performance import ServedModel
from volspike.tape.names import tape_name
from volspike.tape.parquet import ParquetTape, row_group_ticks, write_parquet
from volspike.tape.write import write_ndjson

START = 1_765_000_800  # on the hour
MODEL = ServedModel(digest="d", name="m", version="1", tau=1e-4, simulated=False)


def tick(second: float, price: float, product: str = "BTC-USD") -> Tick:
    time = round(second * SECOND_NS)
    quote: dict[str, Any] = {"best_bid": price - 1, "best_ask": price + 1}
    return Tick(time=time, received=time, kind=Kind.TICKER, product_id=product, price=price, **quote)


def record(folder: Path, ticks: list[Tick]) -> Path:
    path = folder / tape_name(ticks[0].product_id, ticks[0].received)
    write_ndjson([Ticks.of(ticks)], path)
    return path


def test_bars_come_from_recorded_and_compacted_files(tmp_path: Path) -> None:
    """The files of each hour are read, whatever their format; files of other products and hours are not."""
    record(tmp_path, [tick(START + s, 100.0 + s) for s in range(10)])
    record(tmp_path, [tick(START + s, 9.0, "ETH-USD") for s in range(10)])
    later = [tick(START + 3600 + s, 200.0 + s) for s in range(10)]
    write_parquet([Ticks.of(later)], tmp_path / "ticks_BTCUSD_20251206_07.parquet")
    bars = TapeBars(tmp_path).between("BTC-USD", START, START + 7200, 5)
    assert bars.second.tolist() == [START, START + 5, START + 3600, START + 3605]
    close = bars.values[:, COLUMNS.index("close")].tolist()
    assert close == [104.0, 109.0, 204.0, 209.0]
    assert bars.values[0, COLUMNS.index("spread_bps")] == pytest.approx(1e4 * 2 / 102.0, rel=1e-3)
    assert TapeBars(tmp_path).between("BTC-USD", START + 3600, START + 3605, 1).second[0] == START + 3600
    assert TapeBars(tmp_path).first_second("BTC-USD") == START
    record(tmp_path, [tick(START + 59 * 60 + 7, 9.0, "XRP-USD")])
    assert TapeBars(tmp_path).first_second("XRP-USD") == START + 59 * 60 + 7
    assert TapeBars(tmp_path).first_second("LTC-USD") is None


def test_imported_tapes_fill_what_the_recorder_lacks(tmp_path: Path) -> None:
    """A tape of days has the seconds without a recorded tick; where both have a second, the recorder's ticks count."""
    record(tmp_path, [tick(START + s, 100.0 + s) for s in range(10)])
    rows = [tick(START - 3600 + 60 * s, 50.0) for s in range(120)] + [tick(START + 3600 + s, 70.0) for s in range(5)]
    bare = [msgspec.structs.replace(each, best_bid=nan, best_ask=nan) for each in rows]
    other = [tick(START + s, 9.0, "ETH-USD") for s in range(4)]
    write_parquet([Ticks.of(bare + other)], tmp_path / "BTC-USD-trades-2025-12-06.parquet")
    write_parquet([Ticks.of(bare)], tmp_path / "trades_BTCUSD_20251206_000000.parquet")
    tape = TapeBars(tmp_path)
    assert tape.first_second("BTC-USD") == START - 3600
    assert tape.first_second("XRP-USD") is None
    bars = tape.between("BTC-USD", START - 7200, START + 7200, 1)
    assert len(bars) == 120 + 5 - 1 + 10
    assert np.all(np.diff(bars.second) > 0)
    assert bars.between(START, START + 1).values[0, COLUMNS.index("close")] == 100.0
    assert bars.between(START + 60, START + 61).values[0, COLUMNS.index("close")] == 50.0
    (minute,) = tape.between("BTC-USD", START, START + 60, 60).values
    spread = COLUMNS.index("spread_bps")
    assert minute[:spread].tolist() == [100.0, 109.0, 100.0, 109.0]
    assert len(tape.between("ETH-USD", START, START + 60, 1)) == 4
    assert len(TapeBars(tmp_path, simulated=True).between("BTC-USD", START - 7200, START + 7200, 1)) == 0


def test_only_the_row_groups_of_the_range_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A range of a long imported tape costs its own part of the file, and is cached within the limit."""
    with ParquetTape(tmp_path / "month.parquet") as month:
        for hour in range(5):
            month.write(Ticks.of([tick(START + 3600 * hour + s, 100.0 + hour) for s in range(100)]))
    groups = []

    def read(file: pq.ParquetFile, group: int) -> Ticks:
        groups.append(group)
        return row_group_ticks(file, group)

    monkeypatch.setattr("volspike.live.history.row_group_ticks", read)
    tape = TapeBars(tmp_path, cached_bars=200)
    for _ in range(2):
        assert len(tape.between("BTC-USD", START + 3600, START + 10_800, 1)) == 200
    assert groups == [1, 2]
    assert len(tape.between("BTC-USD", START + 10_800, START + 14_400, 1)) == 100
    assert len(tape.between("BTC-USD", START + 3600, START + 7200, 1)) == 100
    assert groups == [1, 2, 3, 1]


def test_files_of_other_programs_are_left_out(tmp_path: Path) -> None:
    """A folder of tapes may have anything in it."""
    record(tmp_path, [tick(START, 100.0)])
    (tmp_path / "notes.parquet").write_bytes(b"no Parquet")
    pq.write_table(pa.table({"time": [1], "price": [1.0]}), tmp_path / "table.parquet")
    assert len(TapeBars(tmp_path).between("BTC-USD", START, START + 60, 1)) == 1


def test_a_file_that_grows_is_read_again_and_a_damaged_one_skipped(tmp_path: Path) -> None:
    """New lines of the present hour appear; an unreadable file hides no other file."""
    path = record(tmp_path, [tick(START, 100.0)])
    (tmp_path / "ticks_BTCUSD_20251206_07.parquet").write_bytes(b"damaged")
    tape = TapeBars(tmp_path)
    assert len(tape.between("BTC-USD", START, START + 7200, 1)) == 1
    write_ndjson([Ticks.of([tick(START, 100.0), tick(START + 1, 101.0)])], path)
    assert tape.between("BTC-USD", START, START + 7200, 1).second.tolist() == [START, START + 1]


def test_real_and_simulated_recordings_do_not_mix(tmp_path: Path) -> None:
    """Of a folder with both kinds, only the files of the present kind are read."""
    write_ndjson([Ticks.of([tick(START, 100.0)])], tmp_path / tape_name("BTC-USD", START * SECOND_NS), simulated=True)
    later = [tick(START + 3600, 200.0)]
    write_parquet([Ticks.of(later)], tmp_path / "ticks_BTCUSD_20251206_07.parquet", simulated=False)
    for simulated, second in ((True, START), (False, START + 3600)):
        bars = TapeBars(tmp_path, simulated=simulated).between("BTC-USD", START, START + 7200, 1)
        assert bars.second.tolist() == [second]


def test_bars_in_memory_equal_those_of_the_same_ticks_on_tape(tmp_path: Path) -> None:
    """Several ticks in a second make the same bar in memory as from the tape: extremes, close and mean spread."""
    ticks = [tick(START + k / 3, 100.0 + (7 * k) % 5) for k in range(30)]
    record(tmp_path, ticks)
    memory = SecondBars()
    for each in ticks:
        middle = 0.5 * (each.best_ask + each.best_bid)
        memory.add_tick(each.time // SECOND_NS, each.price, 1e4 * (each.best_ask - each.best_bid) / middle)
    taped = TapeBars(tmp_path).between("BTC-USD", START, START + 60, 1)
    recent = memory.between(START, START + 60)
    assert recent.second.tolist() == taped.second.tolist()
    np.testing.assert_allclose(recent.values[:, :5], taped.values[:, :5], rtol=1e-12)


def stored_day(folder: Path) -> OutcomeStore:
    """An hour of ticks, and its predictions with a spike in its middle."""
    record(folder, [tick(START + s, 100.0) for s in range(600)])
    store = OutcomeStore(folder / "outcomes.sqlite", now=lambda: START)
    for s in range(600):
        time_ns = (START + s) * SECOND_NS
        store.predict(PredictionRecord("BTC-USD", time_ns, 0.5 if s == 300 else 0.1, 0.4, s == 300, MODEL))
    for s in range(540):
        volatility = 2e-4 if 280 <= s < 310 else 1e-5
        store.outcome(OutcomeRecord("BTC-USD", START + s, volatility, simulated=False))
    assert store.flush()
    return store


def test_a_restart_shows_what_was_recorded(tmp_path: Path) -> None:
    """Without memory the prices come from the tape, probabilities and spikes from the predictions."""
    store = stored_day(tmp_path)
    stored = StoredHistory(tmp_path, store, simulated=False, horizon_s=60)
    wanted = HistoryRange.of({"from": str(1000 * START), "to": str(1000 * (START + 600)), "points": "10"}, 0)
    found = asyncio.run(read_history("BTC-USD", wanted, SecondBars(), (), stored))
    assert found.earliest == START
    fields = found.fields()
    assert fields["step_ms"] == 60_000
    assert fields["time"] == [1000 * (START + 60 * k) for k in range(10)]
    assert fields["close"] == [100.0] * 10
    assert fields["probability"] == [0.1] * 5 + [0.5] + [0.1] * 4
    assert fields["threshold"] == [0.4] * 10
    (spike,) = fields["spikes"]
    assert (spike["first"], spike["last"]) == (1000 * (START + 281), 1000 * (START + 310))
    assert (spike["start"], spike["end"]) == (1000 * (START + 341), 1000 * (START + 342))
    assert spike["peak_bp"] == pytest.approx(2.0 * 60**0.5)
    store.close()


@pytest.mark.parametrize("seam", [1, 59, 60, 61, 599])
def test_memory_continues_what_is_stored(tmp_path: Path, seam: int) -> None:
    """A range across the start of the process equals one that is completely in memory, for prices."""
    store = stored_day(tmp_path)
    stored = StoredHistory(tmp_path, store, simulated=False, horizon_s=60)
    recent, complete = SecondBars(), SecondBars()
    for s in range(600):
        for memory in (recent, complete):
            if memory is complete or s >= seam:
                memory.add_tick(START + s, 100.0, 200.0)
                memory.add_score(START + s, 0.5 if s == 300 else 0.1, 0.4)
    query = {"from": str(1000 * START), "to": str(1000 * (START + 600)), "points": "10"}
    wanted = HistoryRange.of(query, 0)
    nothing = StoredHistory(None, None, simulated=False, horizon_s=60)
    both = asyncio.run(read_history("BTC-USD", wanted, recent, (), stored)).fields()
    alone = asyncio.run(read_history("BTC-USD", wanted, complete, (), nothing)).fields()
    for name in ("time", "open", "high", "low", "close", "probability", "threshold"):
        assert both[name] == alone[name], name
    store.close()


def test_outcomes_that_cannot_be_read_hide_no_price(tmp_path: Path) -> None:
    """While their file is damaged, the chart shows the tape."""
    record(tmp_path, [tick(START + s, 100.0) for s in range(60)])
    store = OutcomeStore(tmp_path / "outcomes.sqlite")
    assert store.flush()
    stored = StoredHistory(tmp_path, store, simulated=False, horizon_s=60)
    (tmp_path / "outcomes.sqlite").write_bytes(b"damaged" * 1000)
    wanted = HistoryRange.of({"from": str(1000 * START), "to": str(1000 * (START + 60)), "points": "60"}, 0)
    found = asyncio.run(read_history("BTC-USD", wanted, SecondBars(), (), stored))
    assert (len(found.bars), found.earliest, found.alerts) == (60, START, [])
    store.close()


@given(st.integers(1, 31 * 86_400), st.integers(10, 3000))
def test_the_step_is_the_smallest_with_at_most_the_points(seconds: int, points: int) -> None:
    """No smaller step would have at most so many bars; the longest step is an hour."""
    wanted = HistoryRange.of({"from": "0", "to": str(1000 * seconds), "points": str(points)}, 0)
    assert wanted.step_s in STEPS_S
    assert wanted.step_s == 3600 or seconds / wanted.step_s <= points
    smaller = [step for step in STEPS_S if step < wanted.step_s]
    assert all(seconds / step > points for step in smaller)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ({"from": "x"}, "from must be an integer"),
        ({"from": "1.5"}, "from must be an integer"),
        ({"to": "٣"}, "to must be an integer"),
        ({"to": "9" * 18}, "to must be an integer"),
        ({"from": "5", "to": "5"}, "from must be before to"),
        ({"from": "-5", "to": "5"}, "from must be before to"),
        ({"points": "9"}, "points must be from 10 to 3000"),
        ({"points": "3001"}, "points must be from 10 to 3000"),
        ({"from": "0", "to": "2678400001"}, "at most 31 days"),
    ],
)
def test_invalid_ranges_are_refused(query: dict[str, str], reason: str) -> None:
    """Each refusal names the value and what is accepted."""
    with pytest.raises(UsageError, match=reason):
        HistoryRange.of(query, 1_000_000_000)


def test_spike_rows_become_events() -> None:
    """Rows less than a horizon apart are one event; exactly a horizon apart they are two."""
    spans = spike_spans([0, 59, 119, 200], [1e-4, 2e-4, 3e-4, nan], 60)
    assert [(span["first"], span["last"]) for span in spans] == [(1000, 60_000), (120_000, 120_000), (201_000, 201_000)]
    assert [span["start"] for span in spans] == [61_000, 180_000, 261_000]
    (long,) = spike_spans(range(100), [1e-4] * 100, 60)
    assert (long["start"], long["end"]) == (61_000, 100_000)
    assert spans[0]["peak_bp"] == pytest.approx(2 * 60**0.5)
    assert spans[2]["peak_bp"] is None


def test_gaps_are_those_of_the_product_in_the_range() -> None:
    """Duplicates of memory and ledger are one; other products, times and unverifiable spans are left out."""
    gap = Gap(start=5 * SECOND_NS, end=9 * SECOND_NS, products=("A",), cause=Cause.SILENCE)
    others = [
        Gap(start=5 * SECOND_NS, end=9 * SECOND_NS, products=("B",), cause=Cause.SILENCE),
        Gap(start=0, end=SECOND_NS, products=("A",), cause=Cause.SILENCE),
        Gap(start=5 * SECOND_NS, end=8 * SECOND_NS, products=("A",), cause=Cause.SILENCE, verifiable=False),
    ]
    wanted = HistoryRange.of({"from": "6000", "to": "7000"}, 0)
    assert gap_spans([gap, gap, *others], "A", wanted) == [{"start": 5000, "end": 9000, "cause": "silence"}]
