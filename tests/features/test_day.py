"""The memory of a day: equal to its formulas across sessions, in both kinds of rows, and in a replay in parts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.features.reference import SECOND, Session
from tests.features.reference_day import day_memory
from tests.features.strategies import START
from volspike.features import Every, FeatureEngine, FeatureRow, FeatureSet, Scope
from volspike.market import Kind, Profile, Tick

FULL = FeatureSet((3, 20, 60), Scope.FULL)
SESSION_GAP = 300 * SECOND


def days(seed: int, hours: float = 54.0) -> list[Tick]:
    """Ticks of some days, a few a minute, with breaks between sessions."""
    rng = np.random.default_rng(seed)
    n = round(hours * 60)
    gap = rng.exponential(60e9, n) + 1e9
    gap[rng.random(n) < 0.01] += 1500e9
    time = START + np.cumsum(np.minimum(gap, 1600e9)).astype(np.int64)
    price = 60_000 * np.exp(np.cumsum(rng.normal(0, 1e-4, n) * (1 + np.sin(np.arange(n) / 100))))
    return [
        Tick(time=int(t), received=int(t), kind=Kind.TICKER, product_id="BTC-USD", price=float(np.round(p, 2)))
        for t, p in zip(time, price, strict=True)
    ]


def sessions_of(ticks: list[Tick]) -> list[Session]:
    """The sessions of ticks in order."""
    sessions: list[Session] = []
    for tick in ticks:
        if not sessions or tick.time - sessions[-1].clock > SESSION_GAP:
            sessions.append(Session())
        sessions[-1].ticks.append((tick.time, tick))
        sessions[-1].clock = tick.time
    return sessions


@pytest.mark.parametrize("every", list(Every))
def test_the_memory_of_a_day_equals_its_formulas(every: Every) -> None:
    """Rows of some days with breaks have the volatility of the last day and of yesterday's same time."""
    ticks = days(3)
    engine, checked = FeatureEngine(FULL, every=every), 0
    for number, tick in enumerate(ticks):
        rows = [row for row in engine.update(tick) if row.is_warm]
        if number % 50 or not rows:
            continue
        found = rows[0].by_name()
        second = rows[0].timestamp // SECOND - 1
        past = [past for past in ticks[: number + 1] if past.time // SECOND <= second]
        expected = day_memory(sessions_of(past), second, Profile.TICKER)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-9, err_msg=name)
        checked += not math.isnan(found["yesterday_to_day_ratio"])
    assert checked > 10


def bits(rows: list[FeatureRow]) -> list[tuple[int, bytes]]:
    return [(row.timestamp, row.values.tobytes()) for row in rows]


@pytest.mark.parametrize("every", list(Every))
def test_a_later_session_needs_only_what_the_core_set_remembers(every: Every) -> None:
    """An engine that continues with a session after another engine's core set makes the same rows, bit for bit."""
    ticks = days(4, 30.0)
    start = next(i for i in range(len(ticks) - 1, 0, -1) if ticks[i].time - ticks[i - 1].time > SESSION_GAP)
    scout, single, second = FeatureEngine(), FeatureEngine(FULL, every=every), FeatureEngine(FULL, every=every)
    for tick in ticks[:start]:
        scout.update(tick)
        single.update(tick)
    second.restore(scout.between_sessions("BTC-USD", FULL, every))
    completed = single.update(ticks[start])
    own = second.update(ticks[start])
    assert bits(completed[1 if every is Every.SECOND else 0 :]) == bits(own)
    later = [(single.update(tick), second.update(tick)) for tick in ticks[start + 1 :]]
    assert all(bits(a) == bits(b) for a, b in later)
    assert any(not math.isnan(row.by_name()["hour_to_day_ratio"]) for rows, _ in later for row in rows)
