"""The logistic curve from score to probability."""

from __future__ import annotations

import numpy as np
import pytest

from volspike.models.onnx import MIN_SLOPE, LogisticCurve


def test_it_rises_even_against_the_data() -> None:
    """Where spikes come at low scores, the curve still rises a little, and its mean stays the base rate."""
    random = np.random.default_rng(14)
    score = 1000 + 50 * random.normal(size=5000)
    y = (random.random(5000) < 1 / (1 + np.exp(2 + (score - 1000) / 50))).astype(np.int8)
    curve = LogisticCurve.fit(score, y, np.ones(5000))
    assert curve.slope == pytest.approx(MIN_SLOPE / score.std())
    assert curve(score).mean() == pytest.approx(y.mean(), abs=1e-3)


def test_its_log_loss_is_that_of_its_probabilities() -> None:
    """The weighted mean of −ln of the probability that was given to what happened."""
    score, y, weight = np.array([0.0, 1.0, 2.0]), np.array([0, 1, 1], np.int8), np.array([1.0, 1.0, 2.0])
    curve = LogisticCurve(slope=2.0, intercept=-1.0)
    given = np.where(y == 1, curve(score), 1 - curve(score))
    assert curve.log_loss(score, y, weight) == pytest.approx(-np.average(np.log(given), weights=weight))


def test_a_score_that_never_moves_gives_the_base_rate() -> None:
    """Equal scores are all given the share of spikes."""
    y = np.repeat([0, 1], [90, 10]).astype(np.int8)
    curve = LogisticCurve.fit(np.full(100, 3.0), y, np.ones(100))
    assert curve(np.array([3.0]))[0] == pytest.approx(0.1, abs=0.02)
