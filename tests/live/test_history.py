"""Bars of the past: grouping, memory, tape and predictions, and the seam between them."""

from __future__ import annotations

import asyncio
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import UsageError
from volspike.live.history import (
    COLUMNS,
    STEPS_S,
    Bars,
    HistoryRange,
    SecondBars,
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
from volspike.tape.parquet import write_parquet
from volspike.tape.write import write_ndjson

START = 1_765_000_800  # on the hour
MODEL = ServedModel(digest="d", name="m", version="1", tau=1e-4, simulated=False)
values = st.one_of(st.just(nan), st.floats(0.5, 2.0))


@st.composite
def some_bars(draw: Any) -> Bars:
    seconds = sorted(draw(st.lists(st.integers(0, 400), min_size=1, max_size=60, unique=True)))
    rows = [[draw(values) for _ in COLUMNS] for _ in seconds]
    return Bars(np.array(seconds), np.array(rows))


@given(some_bars(), st.sampled_from([1, 2, 5, 60, 300]))
def test_grouped_bars_equal_an_obvious_loop(bars: Bars, step: int) -> None:
    """Open is the first known value, close the last, high and low the extremes, the spread the mean of those known."""
    grouped = bars.grouped(step)
    assert grouped.second.tolist() == sorted({second // step * step for second in bars.second.tolist()})
    for second, row in zip(grouped.second.tolist(), grouped.values, strict=True):
        inside = bars.values[(bars.second >= second) & (bars.second < second + step)]
        for name, got in zip(COLUMNS, row.tolist(), strict=True):
            known = [value for value in inside[:, COLUMNS.index(name)].tolist() if not isnan(value)]
            if not known:
                assert isnan(got)
            elif name == "spread_bps":
                assert got == pytest.approx(sum(known) / len(known))
            else:
                pick = {"open": known[0], "high": max(known), "low": min(known), "probability": max(known)}
                assert got == pick.get(name, known[-1])


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(1, 2)), min_size=1, max_size=200), st.integers(2, 70))
def test_memory_keeps_the_newest_seconds(steps: list[tuple[int, float]], limit: int) -> None:
    """Of rows in order of time the bars of the last seconds are kept, each with its extremes, whatever the limit."""
    memory = SecondBars(limit)
    expected: dict[int, list[float]] = {}
    second = 1000
    for step, price in steps:
        second += step
        memory.add_tick(second, price, 1.0)
        memory.add_score(second, 0.5, 0.4)
        expected.setdefault(second, []).append(price)
    bars = memory.between(0, second + 1)
    kept = sorted(expected)[-limit - 1 :]  # the newest is not complete, and not in the ring yet
    assert bars.second.tolist() == kept
    assert memory.first_second == kept[0]
    columns = [COLUMNS.index(name) for name in ("open", "high", "low", "close")]
    for second, row in zip(kept, bars.values, strict=True):
        prices = expected[second]
        assert row[columns].tolist() == [prices[0], max(prices), min(prices), prices[-1]]
    middle = kept[len(kept) // 2]
    assert memory.between(middle, second + 1).second.tolist() == [each for each in kept if middle <= each <= second]


def test_a_late_row_is_ignored_and_an_older_tape_begins_again() -> None:
    """A row a little late changes nothing; a row of five minutes before begins a new history."""
    memory = SecondBars()
    for second in (1000, 1001, 1000):
        memory.add_tick(second, 1.0)
    assert memory.between(0, 2000).second.tolist() == [1000, 1001]
    memory.add_tick(701, 1.0)
    assert memory.between(0, 2000).second.tolist() == [701]


def test_the_highest_probability_of_a_second_is_kept() -> None:
    """Unknown probabilities do not hide a known one, whatever their order."""
    for given_values in ([nan, 0.3, 0.2], [0.3, nan], [0.1, 0.3, nan]):
        memory = SecondBars()
        for value in given_values:
            memory.add_score(5, value, 0.4)
        assert memory.between(0, 9).values[0, COLUMNS.index("probability")] == 0.3


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
