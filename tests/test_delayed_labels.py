"""Delayed labels: live tells, a minute later, exactly what replay tells."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.features import Every
from volspike.labels import MOST_LOSSES, DelayedLabels, SecondGrid

SECOND = 1_000_000_000
START = 1_700_000_000

Row = tuple[int, float, int]
Loss = tuple[int, int]


def replayed(rows: list[Row], losses: list[Loss], every: Every, horizon: int = 60) -> dict[int, float]:
    """What SecondGrid tells, by second; of a second told twice the known value."""
    if not rows:
        return {}
    time = np.array([row[0] for row in rows])
    grid = SecondGrid(300 * SECOND, every is Every.SECOND, losses)
    second = time // SECOND - (1 if every is Every.SECOND else 0)
    grid.add(time, second, np.array([row[2] for row in rows]), np.array([row[1] for row in rows]))
    told = [
        (int(k), float(v))
        for ks, vs, _ in grid.labels(horizon)
        for k, v in zip(ks, vs, strict=True)
        if math.isfinite(v)
    ]
    return dict(told)


def live(rows: list[Row], losses: list[Loss], every: Every, horizon: int = 60) -> dict[int, float]:
    """What comes live; each loss is told before the first row after its start."""
    labels, told, waiting = DelayedLabels(horizon, every=every), {}, sorted(losses)
    for time, price, session in rows:
        while waiting and waiting[0][0] <= time:
            labels.gap(*waiting.pop(0), ("X",))
        for label in labels.add("X", time, price, session):
            assert label.second not in told
            told[label.second] = label.future_volatility
    return told


@st.composite
def markets(draw: st.DrawFn, every: Every) -> tuple[list[Row], list[Loss]]:
    """Rows in time order with silences and sessions, and losses anywhere among them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows: list[Row] = []
    time, session, price = START * SECOND, 0, 100.0
    for _ in range(draw(st.integers(0, 5))):
        mean = draw(st.sampled_from([0.1, 1.0, 4.0, 70.0]))
        for _ in range(draw(st.integers(1, 150))):
            step = rng.exponential(mean) * SECOND
            if every is Every.SECOND:
                step = max(1, round(step / SECOND)) * SECOND
            time += int(step)
            price *= math.exp(rng.normal(0, 1e-4))
            rows.append((time, price, session))
        session += draw(st.integers(0, 1))
        time += draw(st.integers(0, 400)) * SECOND
    span = max(1, (time - START * SECOND) // SECOND)
    losses = []
    for _ in range(draw(st.integers(0, 6))):
        start = START * SECOND + draw(st.integers(0, span)) * SECOND + draw(st.integers(0, SECOND))
        losses.append((start, start + draw(st.integers(0, 30 * SECOND))))
    return rows, losses


@pytest.mark.parametrize("horizon", [60, 7])
@given(markets(Every.TICK))
def test_live_labels_of_ticks_are_those_of_replay(horizon: int, market: tuple[list[Row], list[Loss]]) -> None:
    """Bit for bit the same seconds and values, across silences, sessions and losses."""
    assert live(*market, Every.TICK, horizon) == replayed(*market, Every.TICK, horizon)


@given(markets(Every.SECOND))
def test_live_labels_of_seconds_are_those_of_replay(market: tuple[list[Row], list[Loss]]) -> None:
    """The same holds for rows at the end of each second."""
    assert live(*market, Every.SECOND) == replayed(*market, Every.SECOND)


def test_a_label_comes_with_the_first_row_that_ends_its_minute() -> None:
    """Second s is told when second s+60 is over, not before."""
    labels = DelayedLabels()
    for k in range(61):
        assert labels.add("X", (START + k) * SECOND, 100.0 + k, 0) == []
    (label,) = labels.add("X", (START + 61) * SECOND, 100.0, 0)
    assert (label.product, label.second) == ("X", START)


def test_products_do_not_mix() -> None:
    """Each product has its own course, session and losses."""
    labels, told = DelayedLabels(), []
    labels.gap((START + 10) * SECOND, (START + 11) * SECOND, ("Y",))
    for k in range(100):
        for product, price in (("X", 100.0 + k), ("Y", 50.0)):
            told += labels.add(product, (START + k) * SECOND, price, 0)
    assert {label.product for label in told if label.second < START + 10} == {"X"}
    assert all(label.future_volatility == 0.0 for label in told if label.product == "Y")


def test_a_step_back_begins_a_new_session() -> None:
    """A row before the newest never makes a label out of a disordered past."""
    labels = DelayedLabels()
    for k in range(50):
        labels.add("X", (START + k) * SECOND, 100.0, 0)
    labels.add("X", (START + 20) * SECOND, 100.0, 0)
    told = [label for k in range(21, 82) for label in labels.add("X", (START + k) * SECOND, 100.0, 0)]
    assert [label.second for label in told] == [START + 20]


def test_memory_is_bounded() -> None:
    """However many rows and losses come, two minutes of prices and a few losses are held."""
    labels = DelayedLabels()
    for k in range(5000):
        labels.add("X", (START + k) * SECOND, 100.0, 0)
        labels.gap((START + k) * SECOND, (START + k) * SECOND + 1, ("X",))
        labels.gap((START + 100 * k) * SECOND, (START + 100 * k) * SECOND + 1, ("Z",))
    course = labels._courses["X"]
    assert len(course._closes) <= 61
    assert len(course._pending) <= 62
    assert len(labels._losses["X"]) == 1
    assert len(labels._losses["Z"]) <= MOST_LOSSES
