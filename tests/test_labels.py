"""Labels: what they are, where they exist, and that the future of the future never changes them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.errors import NotEnoughData
from volspike.labels import HORIZON_S, SecondGrid, future_volatility, spike_threshold, spikes

SECOND = 1_000_000_000


def walk(n: int, seed: int = 3) -> np.ndarray:
    return 100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 1e-4, n)))


def grid_of(
    time: np.ndarray, price: np.ndarray, session: np.ndarray, cuts: list[int], finished: bool = False
) -> dict[int, float]:
    """Future volatility by second, the rows given in parts."""
    grid = SecondGrid(300 * SECOND, finished)
    for part in np.split(np.arange(len(time)), sorted(cuts)):
        grid.add(time[part], time[part] // SECOND, session[part], price[part])
    return {int(k): float(v) for second, value, _ in grid.labels() for k, v in zip(second, value, strict=True)}


def test_future_volatility_is_the_deviation_of_the_next_sixty_returns() -> None:
    """Each second's label is the plain standard deviation of the 60 log returns that follow it."""
    price = walk(200)
    labels = future_volatility(price)
    for second in (0, 1, 77, 139):
        returns = [math.log(price[k] / price[k - 1]) for k in range(second + 1, second + 61)]
        assert labels[second] == pytest.approx(np.std(returns), rel=1e-9)


def test_labels_exist_only_where_the_next_sixty_seconds_are_over() -> None:
    """The last 60 seconds of a session have no label."""
    labels = future_volatility(walk(100))
    assert np.isfinite(labels[:40]).all()
    assert np.isnan(labels[40:]).all()
    assert np.isnan(future_volatility(walk(60))).all()


@given(st.integers(1, 400), st.integers(62, 400), st.randoms(use_true_random=False))
def test_later_rows_change_no_earlier_label(known: int, total: int, random: object) -> None:
    """A label that exists after some rows is the same, bit for bit, after any more."""
    rng = np.random.default_rng(known * 1000 + total)
    time = np.cumsum(rng.integers(0, 3 * SECOND, total)) + 50 * SECOND
    price, session = walk(total), np.zeros(total, np.int64)
    before = grid_of(time[:known], price[:known], session[:known], [])
    after = grid_of(time, price, session, [])
    assert all(after[second] == label for second, label in before.items() if not math.isnan(label))


@given(st.lists(st.integers(0, 299), max_size=5))
def test_reading_in_parts_changes_no_label(cuts: list[int]) -> None:
    """Labels are the same however the rows are cut into parts, within a second too."""
    rng = np.random.default_rng(8)
    time = np.cumsum(rng.integers(0, SECOND, 300)) + 50 * SECOND
    session = np.repeat([1, 2], 150)
    assert str(grid_of(time, walk(300), session, cuts)) == str(grid_of(time, walk(300), session, []))


def test_labels_never_reach_across_a_session() -> None:
    """A silence over the gap, or another session id, cuts the future off."""
    price = walk(400)
    time = np.arange(400) * SECOND
    time[200:] += 301 * SECOND
    apart = grid_of(time, price, np.zeros(400, np.int64), [])
    named = grid_of(np.arange(400) * SECOND, price, np.repeat([7, 9], 200), [])
    for labels in (apart, named):
        assert math.isnan(labels[199])
        assert math.isnan(labels[140])
        assert math.isfinite(labels[138])


def test_labels_never_reach_into_a_loss() -> None:
    """Where something was lost in the 60 seconds after a row, it has no label; the others keep theirs."""
    price, time = walk(400), np.arange(400) * SECOND
    grid = SecondGrid(300 * SECOND, last_is_finished=False, losses=[(200 * SECOND, 203 * SECOND)])
    grid.add(time, time // SECOND, np.zeros(400, np.int64), price)
    ((second, volatility, _),) = grid.labels()
    whole = grid_of(time, price, np.zeros(400, np.int64), [])
    for k, value in zip(second.tolist(), volatility.tolist(), strict=True):
        if 139 < k + 0 < 202 or k > 338:
            assert math.isnan(value), k
        else:
            assert value == whole[k]


def test_silent_seconds_carry_the_price() -> None:
    """A second without a row has the price of the one before it, so its return is zero."""
    time = np.array([0, 1, 2, 30, *range(31, 100)]) * SECOND
    price = np.array([100.0, 101.0, 100.0, 102.0, *[102.0] * 69])
    labels = grid_of(time, price, np.zeros(len(time), np.int64), [])
    returns = [0.0] * 60
    returns[28 - 1] = math.log(102 / 100)
    assert labels[2] == pytest.approx(np.std(returns), rel=1e-9)


def test_threshold_is_a_percentile_of_what_it_is_given() -> None:
    """τ is the smallest value that the given share does not exceed; weights count as repeated rows."""
    values = np.arange(1.0, 101.0)
    assert spike_threshold(values) == 90.0
    weights = np.random.default_rng(1).integers(0, 5, 100)
    assert spike_threshold(values, 75.0, weights) == spike_threshold(np.repeat(values, weights), 75.0)
    assert spike_threshold(np.append(values, np.nan)) == 90.0


@pytest.mark.parametrize("values", [np.array([]), np.full(5, np.nan), np.zeros(50)])
def test_threshold_of_nothing_is_refused(values: np.ndarray) -> None:
    """Where no future is known, or nothing moved, there is no τ rather than a τ of zero."""
    with pytest.raises(NotEnoughData):
        spike_threshold(values)


def test_a_spike_is_at_or_above_the_threshold() -> None:
    """The label is 1 from τ on."""
    assert spikes(np.array([0.1, 0.2, 0.3]), 0.2).tolist() == [0, 1, 1]
    assert HORIZON_S == 60
