"""Figures of imported ticks: order, duplicates, missing ids, ticks per second, against slow and obvious versions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tape.foreign_files import START, trade, trades
from volspike.market import MISSING_ID, SECOND_NS, Ticks
from volspike.tape.tick_statistics import TickOrder, TickRate, TradeIdCheck, without_duplicates


def check_of(parts: Sequence[Sequence[int]], is_consecutive: bool | None = True) -> TradeIdCheck:
    """The check after the ids of all parts, one a second."""
    check = TradeIdCheck("BTC-USD", is_consecutive)
    place = 0
    for part in parts:
        times = START + (place + np.arange(len(part))) * SECOND_NS
        check.add(np.array(part, np.int64), times.astype(np.int64))
        place += len(part)
    return check


@given(
    dropped=st.sets(st.integers(1, 58), max_size=25),
    swaps=st.lists(st.integers(0, 57), max_size=5),
    cut=st.integers(0, 60),
)
def test_missing_ids_are_those_that_no_tick_has(dropped: set[int], swaps: list[int], cut: int) -> None:
    """Late ids fill the holes that they belong to, wherever the chunks are cut."""
    ids = [place for place in range(60) if place not in dropped]
    for place in swaps:
        if 0 < place < len(ids) - 2:
            ids[place], ids[place + 1] = ids[place + 1], ids[place]
    check = check_of([ids[:cut], ids[cut:]])
    assert check.is_verifiable
    assert check.missing == len(dropped)
    lost = {int(text) for gap in check.gaps() for text in gap.detail.split() if text.isdigit()}
    assert {gap.lost for gap in check.gaps()} <= set(range(1, 26))
    assert lost <= dropped
    assert sum(gap.lost for gap in check.gaps()) == len(dropped)


def test_ids_that_are_not_consecutive_are_not_verifiable() -> None:
    """Random ids, ids with large steps, and ticks without ids state nothing about missing trades."""
    assert not check_of([[5, 90, 17, 3, 44]], None).is_verifiable
    assert not check_of([list(range(0, 200_000, 7))], None).is_verifiable
    assert not check_of([[MISSING_ID] * 5]).is_verifiable
    assert check_of([list(range(500))], None).is_verifiable


def test_ids_that_begin_again_are_no_gap() -> None:
    """A file that numbers the trades of each day from 1 lacks none of them."""
    check = check_of([list(range(1, 4001)), list(range(1, 3001))], None)
    assert (check.restarts, check.missing) == (1, 0)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(0, 60))
def test_rates_refer_to_every_second_of_the_span(seconds: list[int], cut: int) -> None:
    """Median and share are those of a list of the counts of all seconds."""
    seconds = sorted(seconds)
    times = START + np.array(seconds, np.int64) * 5 * SECOND_NS + 17
    rate = TickRate()
    rate.add(times[:cut])
    rate.add(times[cut:])
    least, most = seconds[0] * 5, seconds[-1] * 5
    counts = [seconds.count(second // 5) if second % 5 == 0 else 0 for second in range(least, most + 1)]
    assert rate.seconds == len(counts)
    assert rate.median == median(counts)
    assert rate.active_share == pytest.approx(sum(count > 0 for count in counts) / len(counts))


@given(st.lists(st.integers(0, 9), max_size=40), st.integers(0, 40))
def test_a_repeated_trade_is_a_duplicate_across_chunks(places: list[int], cut: int) -> None:
    """The first of equal trades stays, the others are dropped, also if the earlier one is in the chunk before."""
    ticks = [trade(place) for place in places]
    before, after = Ticks.of(ticks[:cut]), Ticks.of(ticks[cut:])
    kept, count = without_duplicates(after, before)
    expected = [tick for place, tick in enumerate(ticks) if place >= cut and repr(tick) not in map(repr, ticks[:place])]
    assert (len(kept), count) == (len(expected), len(after) - len(expected))


def test_the_order_of_a_file_is_recognised() -> None:
    """Small steps back keep the order; a minute and more does not; nearly only steps back are newest first."""
    ticks = Ticks.of(trades(400))
    for rows, ascending, newest_first in (
        (np.arange(400), True, False),
        (np.r_[0:50, 20:400], True, False),
        (np.r_[300:400, 0:300], False, False),
        (np.arange(400)[::-1], False, True),
    ):
        order = TickOrder()
        for start in range(0, len(rows), 90):
            order.add(ticks[rows[start : start + 90]])
        assert (order.is_ascending, order.is_newest_first) == (ascending, newest_first)
    assert all(first < second for first, second in pairwise(ticks.received.tolist()))
