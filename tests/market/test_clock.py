"""Impossible times and clock steps among ticks."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.market import SECOND_NS
from volspike.market.clock import AHEAD_NS, BEHIND_NS, STEP_TICKS, TimeCheck, isolated_times

NOW = 1_795_000_000 * SECOND_NS
LATENCY = SECOND_NS // 20
IN_2126 = 100 * 365 * 86_400 * SECOND_NS

Times = tuple[str, int, int]


def market(seconds: int, skew: int = 0, products: tuple[str, ...] = ("BTC-USD", "ETH-USD")) -> list[Times]:
    """Two ticks per second of each product: product, exchange's time, time of receipt on a clock behind by ``skew``."""
    moments = [NOW + half * SECOND_NS // 2 for half in range(2 * seconds)]
    return [(product, moment, moment + LATENCY - skew) for moment in moments for product in products]


def rejected(ticks: Iterable[Times], check: TimeCheck | None = None) -> list[int]:
    """The places of the ticks with an impossible time."""
    check = check or TimeCheck()
    return [place for place, tick in enumerate(ticks) if check.fault(*tick)]


def steps(ticks: Iterable[Times]) -> list[tuple[int, float, str]]:
    """Place, seconds and product of each clock step."""
    check = TimeCheck()
    found: list[tuple[int, float, str]] = []
    for place, tick in enumerate(ticks):
        check.fault(*tick)
        if check.step_ns:
            found.append((place, round(check.step_ns / SECOND_NS), check.stepped_product))
    return found


def moved(tick: Times, by: int) -> Times:
    return tick[0], tick[1] + by, tick[2]


SHIFTS = [299 * SECOND_NS, 10 * SECOND_NS, 3600 * SECOND_NS, IN_2126, -NOW, -3600 * SECOND_NS, -300 * SECOND_NS]
SKEWS = [0, SECOND_NS // 2, 300 * SECOND_NS, -400 * SECOND_NS, -7 * 3600 * SECOND_NS]


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("place", [2, 57, 399])
def test_one_impossible_time_is_rejected_alone(shift: int, place: int) -> None:
    """A tick ahead or behind is rejected, and every other tick is accepted, without a clock step."""
    ticks = market(100)
    ticks[place] = moved(ticks[place], shift)
    assert rejected(ticks) == [place]
    assert steps(ticks) == []


@pytest.mark.parametrize("skew", SKEWS)
@pytest.mark.parametrize("shift", [299 * SECOND_NS, IN_2126, -3600 * SECOND_NS])
def test_clock_with_a_constant_error_changes_nothing(skew: int, shift: int) -> None:
    """Our clock may be wrong by minutes or hours: only a difference between ticks is impossible."""
    ticks = market(100, skew)
    assert rejected(ticks) == []
    ticks[60] = moved(ticks[60], shift)
    assert rejected(ticks) == [60]


@pytest.mark.parametrize("shift", [IN_2126, 299 * SECOND_NS, -NOW, -3600 * SECOND_NS])
@pytest.mark.parametrize("skew", SKEWS)
def test_wrong_first_time_locks_no_product_out(shift: int, skew: int) -> None:
    """After a wrong first tick, at most the next nine are rejected, and none if our clock is right."""
    ticks = market(100, skew)
    ticks[0] = moved(ticks[0], shift)
    lost = rejected(ticks)
    assert len(lost) < 2 * STEP_TICKS
    assert not lost or abs(skew) > SECOND_NS
    assert all(place < 2 * STEP_TICKS for place in lost)


@pytest.mark.parametrize("shift", [299 * SECOND_NS, -299 * SECOND_NS, 3600 * SECOND_NS, -3600 * SECOND_NS])
@pytest.mark.parametrize("products", [("BTC-USD",), ("BTC-USD", "ETH-USD", "SOL-USD")])
def test_exchange_clock_step_is_found(shift: int, products: tuple[str, ...]) -> None:
    """When the times of all ticks change together, it is one step, and at most nine ticks are rejected."""
    ticks = market(100, products=products)
    ticks[50:] = [moved(tick, shift) for tick in ticks[50:]]
    found = steps(ticks)
    assert [(seconds, product) for _, seconds, product in found] == [(shift // SECOND_NS, "")]
    assert len(rejected(ticks)) < STEP_TICKS * len(products)


def test_step_of_one_product_is_found() -> None:
    """A product whose times are all wrong is accepted after ten of them; the others are unaffected."""
    ticks = [
        moved(tick, 299 * SECOND_NS) if tick[0] == "ETH-USD" and tick[1] > NOW + 20 * SECOND_NS else tick
        for tick in market(200)
    ]
    ((_, seconds, product),) = steps(ticks)
    assert (seconds, product) == (299, "ETH-USD")
    assert len(rejected(ticks)) == STEP_TICKS - 1
    ticks[700] = moved(ticks[700], -400 * SECOND_NS)
    assert rejected(ticks)[STEP_TICKS - 1 :] == [700]


def test_our_clock_may_be_set() -> None:
    """When our clock is set forward or back, the exchange's times go on, and no tick is rejected."""
    for step in (300, -300, 3600, -3600):
        ticks = market(200)
        ticks[200:] = [(product, time, received + step * SECOND_NS) for product, time, received in ticks[200:]]
        assert rejected(ticks) == []


@given(st.lists(st.integers(0, 40), min_size=20, max_size=60))
def test_congestion_is_no_fault(delays: list[int]) -> None:
    """Ticks that arrive up to 40 s late, in bursts, are accepted, and so are those after the congestion."""
    ticks, arrival = [], 0
    for second, delay in enumerate(delays):
        arrival = max(arrival, second + delay)
        ticks.append(("BTC-USD", NOW + second * SECOND_NS, NOW + arrival * SECOND_NS))
    assert rejected(ticks) == []


@pytest.mark.parametrize("speed", [0.5, 2, 60, 10_000])
def test_market_in_fast_motion_is_accepted(speed: float) -> None:
    """A simulated market runs faster or slower than our clock, with pauses."""
    rng = np.random.default_rng(5)
    times = np.cumsum(rng.exponential(0.4, 5000))
    ticks = [("BTC-USD", NOW + int(time * 1e9), NOW + int(time / speed * 1e9)) for time in times]
    assert len(rejected(ticks)) < STEP_TICKS
    ticks = ticks[100:]
    ticks[2000] = moved(ticks[2000], 299 * SECOND_NS)
    assert 2000 in rejected(ticks)


def test_old_first_ticker_is_accepted() -> None:
    """The first ticker of a product that trades rarely has the time of its last trade; a later one has not."""
    ticks = market(100)
    old = ("XYZ-USD", NOW - 5 * 3600 * SECOND_NS, NOW + 50 * SECOND_NS)
    ticks.insert(150, old)
    assert rejected(ticks) == []


@pytest.mark.parametrize(("shift", "is_rejected"), [(AHEAD_NS, False), (AHEAD_NS + 1, True)])
def test_ahead_at_the_limit(shift: int, is_rejected: bool) -> None:
    """A time exactly ``AHEAD_NS`` ahead of the largest difference is possible."""
    ticks = market(100)
    ticks[60] = (ticks[60][0], ticks[60][2] - LATENCY + shift, ticks[60][2])
    assert rejected(ticks) == ([60] if is_rejected else [])


@pytest.mark.parametrize(("shift", "is_rejected"), [(BEHIND_NS, False), (BEHIND_NS + SECOND_NS, True)])
def test_behind_at_the_limit(shift: int, is_rejected: bool) -> None:
    """A time up to a minute behind is late and not impossible."""
    ticks = market(200)
    ticks[300] = moved(ticks[300], -shift)
    assert rejected(ticks) == ([300] if is_rejected else [])


def seconds_of(*values: float) -> np.ndarray:
    return np.array([NOW + round(value * SECOND_NS) for value in values], np.int64)


@pytest.mark.parametrize(
    ("values", "isolated"),
    [
        ([1, 2, 301, 3, 4], [2]),
        ([301, 1, 2, 3], [0]),
        ([1, 2, 301, 302, 3, 4], [2, 3]),
        ([100, 101, -500, 102], [2]),
        ([1, 2, 400, 401, 402], []),
        ([1, 2, 3, 400], []),
        ([10, 10.5, 9, 11, 9.5, 12], []),
        ([1, 8, 2, 3], [1]),
        ([1, 2, *range(300, 310), 12, 13], []),
        ([1, 2, *range(300, 309), 12, 13], list(range(2, 11))),
        ([], []),
        ([1], []),
    ],
)
def test_isolated_times(values: list[float], isolated: list[int]) -> None:
    """Short runs that fit neither what comes before nor what comes after are isolated; silences and steps are not."""
    assert np.flatnonzero(isolated_times(seconds_of(*values))).tolist() == isolated
