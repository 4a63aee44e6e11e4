"""HAR on log volatility: weights that are not negative and have sum 1."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logit

from tests.models.samples import chosen, fitted, full_sample
from volspike.models import DETECTORS
from volspike.models.har import fit_shares


@given(seed=st.integers(0, 10_000), columns=st.integers(1, 5))
def test_shares_are_the_constrained_least_squares(seed: int, columns: int) -> None:
    """No weights that a general optimizer finds under the same conditions have a lower loss."""
    random = np.random.default_rng(seed)
    common = random.normal(size=(60, 1))
    x = common + random.normal(size=(60, columns))
    y, weight = common[:, 0] + random.normal(size=60), random.uniform(0.5, 2.0, 60)
    shares, constant = fit_shares(x, y, weight)
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1.0)

    def loss(parameters: np.ndarray) -> float:
        return float(np.average((x @ parameters[:-1] + parameters[-1] - y) ** 2, weights=weight))

    start = np.append(np.full(columns, 1 / columns), 0.0)
    bounds = [(0.0, 1.0)] * columns + [(None, None)]
    condition = {"type": "eq", "fun": lambda parameters: parameters[:-1].sum() - 1.0}
    reference = minimize(loss, start, method="SLSQP", bounds=bounds, constraints=[condition], tol=1e-12)
    assert loss(np.append(shares, constant)) <= loss(reference.x) + 1e-6


def test_equal_columns_are_harmless() -> None:
    """Two identical columns, as at the start of a session, still give weights with sum 1."""
    x = np.repeat(np.random.default_rng(1).normal(size=(50, 1)), 3, axis=1)
    shares, constant = fit_shares(x, x[:, 0] + 2.0, np.ones(50))
    assert shares.sum() == pytest.approx(1.0)
    assert constant == pytest.approx(2.0)


def test_more_volatility_in_any_window_is_never_less_likely_a_spike() -> None:
    """Doubling the volatility of one window never lowers the probability."""
    sample = chosen("har", full_sample(1500, 4))
    detector = fitted("har", sample)
    before = detector.probability(sample.x)
    for column in range(len(sample.names)):
        x = sample.x.copy()
        x[:, column] *= 2
        assert (detector.probability(x) >= before).all()


def test_har_is_linear_in_logarithms() -> None:
    """Raising one volatility by a twentieth changes the log odds by as much wherever it starts."""
    sample = chosen("har", full_sample(1500, 4))
    detector = fitted("har", sample)
    rows = np.repeat(np.median(sample.x, axis=0, keepdims=True), 3, axis=0)
    column = int(detector.importance().argmax())
    rows[:, column] = (rows[:, column] + 1e-6) * [1.0, 1.05, 1.05**2] - 1e-6
    steps = np.diff(logit(detector.probability(rows)))
    assert steps[0] == pytest.approx(steps[1], rel=1e-2)
    assert abs(steps[0]) > 1e-3


def test_har_requires_the_last_minute() -> None:
    """Windows that are not offered are left out; without that of a minute there is no model."""
    offered = ("realized_volatility_10s", "realized_volatility_60s", "realized_volatility_3600s", "trend_60s")
    assert DETECTORS["har"].columns(offered) == ("realized_volatility_60s", "realized_volatility_3600s")
    assert DETECTORS["har"].columns(("realized_volatility_30s", "realized_volatility_300s")) == ()
