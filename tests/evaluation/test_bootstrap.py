"""Intervals hold what they promise on data whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from volspike.evaluation.bootstrap import Interval, block_weights, percentile_interval, resampled_pr_auc

SECOND = 1_000_000_000


def simulated(random: np.random.Generator, minutes: int) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Ten rows a minute; whether there is a spike, and much of the score's error, last for the minute."""
    spike = np.repeat(random.random(minutes) < 0.3, 10)
    score = spike + np.repeat(random.normal(size=minutes), 10) + 0.5 * random.normal(size=10 * minutes)
    return spike.astype(np.int8), score


def times(rows: int) -> NDArray[np.int64]:
    return np.arange(rows, dtype=np.int64) * 6 * SECOND


def test_interval_holds_the_truth_about_95_times_in_100() -> None:
    """Over many simulated markets the 95 % interval covers the long-run PR-AUC nearly as often as it says."""
    random = np.random.default_rng(0)
    truth = average_precision_score(*simulated(random, 200_000))
    covered = 0
    for trial in range(200):
        y, score = simulated(random, 400)
        values = resampled_pr_auc(y, [score], times(len(y)), resamples=200, seed=trial)
        interval = percentile_interval(values[:, 0])
        covered += interval.low <= truth <= interval.high
    assert 0.90 <= covered / 200 <= 0.98


def test_a_resample_is_the_weighted_average_precision() -> None:
    """Each value is scikit-learn's average precision under the same weights, ties included."""
    random = np.random.default_rng(1)
    y, score = simulated(random, 200)
    score = np.round(score, 1)
    weights = list(block_weights(times(len(y)), 300, 20, seed=5))
    expected = [average_precision_score(y, score, sample_weight=weight) for weight in weights]
    found = resampled_pr_auc(y, [score], times(len(y)), resamples=20, seed=5)[:, 0]
    np.testing.assert_allclose(found, expected)


def test_every_row_is_drawn_equally_often() -> None:
    """Dense and sparse stretches, first and last rows weigh the same in the mean."""
    dense = np.arange(0, 3000, 1)
    sparse = np.arange(3000, 9000, 30)
    time = np.concatenate([dense, sparse, sparse[-1:] + 100_000 + dense]) * SECOND
    mean = np.mean(list(block_weights(time, 300, 4000, seed=2)), axis=0)
    assert mean == pytest.approx(mean.mean(), rel=0.15)
    assert mean.mean() == pytest.approx(1.0, abs=0.15)


def test_blocks_keep_neighbours_together() -> None:
    """Rows of one moment get one weight, and no block reaches over a silence of its length."""
    time = np.repeat(np.concatenate([np.arange(1500), 2000 + np.arange(1500)]), 2) * SECOND
    for weight in block_weights(time, 300, 20, seed=3):
        assert (weight[::2] == weight[1::2]).all()


def test_order_of_rows_does_not_matter() -> None:
    """Rows told in another order give the same intervals."""
    random = np.random.default_rng(4)
    y, score = simulated(random, 300)
    shuffled = random.permutation(len(y))
    first = resampled_pr_auc(y, [score], times(len(y)), resamples=30)
    second = resampled_pr_auc(y[shuffled], [score[shuffled]], times(len(y))[shuffled], resamples=30)
    np.testing.assert_allclose(first, second)


def test_too_little_time_has_no_interval() -> None:
    """Four blocks of time, or no rows, say nothing: the interval is NaN rather than narrow."""
    y, score = simulated(np.random.default_rng(5), 20)
    assert str(percentile_interval(resampled_pr_auc(y, [score], times(200))[:, 0])) == str(Interval(np.nan, np.nan))
    assert np.isnan(resampled_pr_auc(y[:0], [score[:0]], times(0))).all()


def test_one_class_has_no_interval() -> None:
    """Without a spike no resample has a PR-AUC."""
    values = resampled_pr_auc(np.zeros(4000, np.int8), [np.arange(4000.0)], times(4000), resamples=20)
    assert np.isnan(values).all()
    assert np.isnan(percentile_interval(values[:, 0]).low)
