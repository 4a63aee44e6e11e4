"""Thresholds stand between scores and do what their names say."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from volspike.evaluation import best_f1_threshold, rate_threshold

rows = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 9)), min_size=1, max_size=40).filter(
    lambda rows: any(y for y, _ in rows)
)


@given(rows)
def test_no_other_threshold_has_a_better_f1(rows: list[tuple[int, int]]) -> None:
    """Of all cuts that call at most half of the rows the chosen one has the greatest F1; None if none catches any."""
    y, score = np.array([y for y, _ in rows], np.int8), np.array([float(s) for _, s in rows])
    allowed = [cut for cut in np.unique(score) if np.mean(score >= cut) <= 0.5]
    best = max((f1_score(y, score >= cut) for cut in allowed), default=0.0)
    threshold = best_f1_threshold(y, score)
    assert (f1_score(y, score >= threshold) if threshold is not None else 0.0) == pytest.approx(best)


def test_threshold_stands_between_scores() -> None:
    """The last bit of a score turns no call over."""
    threshold = best_f1_threshold(np.array([0, 0, 1, 1], np.int8), np.array([0.1, 0.2, 0.6, 0.7]))
    assert threshold == pytest.approx(0.4)


@pytest.mark.parametrize("y", [[0, 0, 0, 0], [1, 0, 0, 0]])
def test_no_caught_spike_no_threshold(y: list[int]) -> None:
    """Without a spike, or where only an alarm that is always on would catch it, there is nothing to choose by."""
    assert best_f1_threshold(np.array(y, np.int8), np.arange(4.0)) is None


def test_rate_threshold_calls_its_share() -> None:
    """One row in ten reaches the 10 % threshold; where scores are tied, the next lower share that they allow."""
    score = np.random.default_rng(0).random(1000)
    assert np.mean(score >= rate_threshold(score, 0.10)) == pytest.approx(0.10)
    tied = np.repeat([0.1, 0.5, 0.9], [80, 13, 7])
    assert np.mean(tied >= rate_threshold(tied, 0.10)) == pytest.approx(0.07)
    constant = np.full(50, 0.3)
    assert not np.any(constant >= rate_threshold(constant, 0.10))
