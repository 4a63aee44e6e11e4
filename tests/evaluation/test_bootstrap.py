"""Draws keep neighbours together, weigh rows alike, and their intervals hold what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from tests.evaluation.markets import SECOND, autoregressive
from volspike.evaluation.bootstrap import Draws, percentile_interval, resampled_areas


def simulated(random: np.random.Generator, seconds: int) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """A row every 6 s; spikes and the score's errors come and go within about a minute."""
    rows = seconds // 6
    level = autoregressive(random, rows, 10.0)
    return (level > 0.8).astype(np.int8), level + autoregressive(random, rows, 10.0)


def times(rows: int) -> NDArray[np.int64]:
    return np.arange(rows, dtype=np.int64) * 6 * SECOND


def weights_of(draws: Draws) -> list[NDArray[np.int16]]:
    return [draws.weight(resample) for resample in range(len(draws))]


def test_interval_holds_the_truth_about_95_times_in_100() -> None:
    """Over many simulated markets the 95 % interval covers the long-run PR-AUC nearly as often as it says."""
    random = np.random.default_rng(0)
    truth = average_precision_score(*simulated(random, 3_000_000))
    covered = 0
    for trial in range(150):
        y, score = simulated(random, 36_000)
        draws = Draws.of(times(len(y)), 600, 200, seed=trial)
        interval = percentile_interval(resampled_areas([(y, score)], draws)[0]["pr_auc"])
        covered += interval.low <= truth <= interval.high
    assert 0.88 <= covered / 150 <= 0.98


def test_neighbours_taken_for_independent_promise_too_much() -> None:
    """Blocks of one row cover the truth far less often than they say: what the length of blocks is for."""
    random = np.random.default_rng(1)
    truth = average_precision_score(*simulated(random, 3_000_000))
    covered = 0
    for trial in range(40):
        y, score = simulated(random, 12_000)
        draws = Draws.of(times(len(y)), 6, 100, seed=trial)
        interval = percentile_interval(resampled_areas([(y, score)], draws)[0]["pr_auc"])
        covered += interval.low <= truth <= interval.high
    assert covered / 40 < 0.7


def test_every_row_is_drawn_equally_often() -> None:
    """Dense and sparse stretches, first and last rows weigh the same in the mean."""
    dense = np.arange(0, 3000, 1)
    sparse = np.arange(3000, 9000, 30)
    time = np.concatenate([dense, sparse, sparse[-1:] + 100_000 + dense]) * SECOND
    mean = np.mean(weights_of(Draws.of(time, 300, 4000, seed=2)), axis=0)
    assert mean == pytest.approx(mean.mean(), rel=0.15)
    assert mean.mean() == pytest.approx(1.0, abs=0.15)


def test_blocks_keep_neighbours_together() -> None:
    """Rows of one moment get one weight, and no block reaches over a silence of its length."""
    time = np.repeat(np.concatenate([np.arange(1500), 2000 + np.arange(1500)]), 2) * SECOND
    weights = weights_of(Draws.of(time, 300, 20, seed=3))
    assert len(weights) == 20
    for weight in weights:
        assert (weight[::2] == weight[1::2]).all()


def test_sums_are_those_of_the_drawn_rows() -> None:
    """A column's sum over blocks is its sum under the weights, whatever the order of the rows."""
    random = np.random.default_rng(4)
    time = random.permutation(times(900))
    columns = random.normal(size=(900, 3))
    draws = Draws.of(time, 600, 25, seed=6)
    expected = [weight @ columns for weight in weights_of(draws)]
    np.testing.assert_allclose(draws.sums(columns), expected, atol=1e-9)


def test_order_of_rows_does_not_matter() -> None:
    """The order of the rows does not change how often each is drawn."""
    shuffled = np.random.default_rng(5).permutation(900)
    first = weights_of(Draws.of(times(900), 600, 10))
    second = weights_of(Draws.of(times(900)[shuffled], 600, 10))
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine[shuffled], theirs)


@pytest.mark.parametrize("rows", [0, 400])
def test_too_little_time_is_not_drawn(rows: int) -> None:
    """Four blocks of time, or no rows, say nothing: the interval is NaN rather than narrow."""
    draws = Draws.of(times(rows), 600)
    assert len(draws) == 0
    assert np.isnan(percentile_interval(draws.sums(np.ones((rows, 1)))[:, 0]).low)


def test_interval_of_mostly_undefined_values_is_untold() -> None:
    """Where under half of the resamples have the figure there is no interval."""
    assert np.isnan(percentile_interval(np.array([0.5, np.nan, np.nan])).low)
    assert percentile_interval(np.array([0.5, 0.5, np.nan])).low == 0.5
