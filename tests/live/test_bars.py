"""Bars: grouping, and those of one second in memory."""

from __future__ import annotations

from math import isnan, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.live.bars import COLUMNS, Bars, SecondBars

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
