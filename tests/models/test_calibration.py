"""Calibrations make probabilities come true and never change their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit, logit

from tests.models.samples import fitted, market_sample
from volspike.models.calibration import CALIBRATIONS, MOST_KNOTS, TILT, Calibration, Isotonic
from volspike.models.scorer import Scorer

each = pytest.mark.parametrize("name", list(CALIBRATIONS))
fitting = pytest.mark.parametrize("name", ["platt", "isotonic"])


def overconfident(rows: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
    """Probabilities with log odds three times too large, what happened, and the true probabilities."""
    random = np.random.default_rng(seed)
    odds = random.normal(-1.5, 1.0, rows)
    true = expit(odds)
    return expit(3 * odds), (random.random(rows) < true).astype(np.int8), true


@fitting
def test_what_was_overconfident_comes_true(name: str) -> None:
    """Fitted to one block, probabilities of another are within a few percent of the true ones."""
    probability, y, _ = overconfident(20_000, 1)
    calibrated = CALIBRATIONS[name].fit(probability, y)
    unseen, _, true = overconfident(5000, 2)
    assert np.abs(calibrated.apply(unseen) - true).mean() < 0.02 < np.abs(unseen - true).mean()


@each
@given(
    st.lists(st.floats(0.0, 1.0, width=32), min_size=2, max_size=40, unique=True),
    st.lists(st.integers(0, 1), min_size=40, max_size=40),
)
def test_order_is_kept(name: str, told: list[float], outcomes: list[int]) -> None:
    """Whatever happened, a higher probability is never calibrated below a lower one, and all stay within 0 and 1."""
    probability = np.sort(np.array(told))
    calibrated = CALIBRATIONS[name].fit(probability, np.array(outcomes[: len(told)], np.int8)).apply(probability)
    assert (np.diff(calibrated) >= 0).all()
    assert calibrated[0] >= 0.0
    assert calibrated[-1] <= 1.0


@fitting
def test_what_was_told_apart_stays_apart(name: str) -> None:
    """Probabilities a thousandth apart are no tie afterwards, even against the data."""
    probability = np.linspace(0.001, 0.999, 999)
    y = (probability < 0.3).astype(np.int8)
    assert (np.diff(CALIBRATIONS[name].fit(probability, y).apply(probability).astype(np.float32)) > 0).all()


def test_isotonic_has_few_knots_and_little_tilt() -> None:
    """Any number of steps is reduced to fifty knots from 0 to 1, and the tilt is a thousandth."""
    probability, y, _ = overconfident(50_000, 3)
    calibration = Isotonic.fit(probability, y)
    assert 10 < len(calibration.knots) <= MOST_KNOTS
    assert calibration.knots[[0, -1]].tolist() == [0.0, 1.0]
    flat = Isotonic.fit(np.array([0.2, 0.4, 0.6, 0.8]), np.array([1, 0, 1, 0], np.int8))
    assert np.ptp(flat.apply(np.array([0.2, 0.8]))) == pytest.approx(0.6 * TILT)


@fitting
def test_no_certainty_from_a_few_rows(name: str) -> None:
    """Rows that separate cleanly do not make anything certain."""
    probability = np.concatenate([np.full(10, 0.1), np.full(10, 0.9)])
    calibration = CALIBRATIONS[name].fit(probability, np.repeat([0, 1], 10).astype(np.int8))
    low, high = calibration.apply(np.array([0.0, 1.0]))
    assert 0.0 < low < 0.3
    assert 0.7 < high < 1.0


@fitting
def test_a_weight_of_two_is_a_row_told_twice(name: str) -> None:
    """Doubling a weight and repeating the row give the same calibration."""
    probability, y, _ = overconfident(500, 4)
    twice = np.arange(500) % 4 == 0
    doubled = CALIBRATIONS[name].fit(probability, y, np.where(twice, 2.0, 1.0))
    again = np.repeat(np.arange(500), np.where(twice, 2, 1))
    repeated = CALIBRATIONS[name].fit(probability[again], y[again])
    np.testing.assert_allclose(doubled.apply(probability), repeated.apply(probability), atol=2e-3)


@each
@pytest.mark.parametrize("detector", ["logistic", "xgboost", "lightgbm"])
def test_the_graph_agrees(name: str, detector: str) -> None:
    """Appended to a served graph, the calibration equals NumPy's to 1e-6, and the graph is otherwise unchanged."""
    sample = market_sample(1500, 5)
    trained = fitted(detector, sample)
    model = trained.to_onnx()
    before = model.SerializeToString()
    plain = Scorer(before, width=10, accepts_missing=trained.accepts_missing).probability(sample.x)
    calibration: Calibration = CALIBRATIONS[name].fit(plain, sample.y)
    after = calibration.append_to(model).SerializeToString()
    served = Scorer(after, width=10, accepts_missing=trained.accepts_missing)
    np.testing.assert_allclose(served.probability(sample.x), calibration.apply(plain), atol=1e-6, rtol=0)
    assert served.probability_of(sample.x[0].tolist()) == pytest.approx(calibration.apply(plain)[0], abs=1e-6)
    assert model.SerializeToString() == before


@each
def test_what_could_not_be_scored_stays_so(name: str) -> None:
    """NaN is left out of the fit and stays NaN, in a graph with rows that have no answer too."""
    probability, y, _ = overconfident(300, 6)
    holed = np.where(np.arange(300) % 3 == 0, np.nan, probability)
    calibration = CALIBRATIONS[name].fit(holed, y)
    np.testing.assert_array_equal(np.isnan(calibration.apply(holed)), np.isnan(holed))
    kept = np.isfinite(holed)
    alone = CALIBRATIONS[name].fit(holed[kept], y[kept])
    np.testing.assert_array_equal(alone.apply(probability), calibration.apply(probability))


def test_platt_undoes_a_stretch_of_the_log_odds() -> None:
    """Log odds that were stretched by three are divided by three."""
    probability, y, true = overconfident(100_000, 7)
    calibrated = CALIBRATIONS["platt"].fit(probability, y).apply(probability)
    slope = np.polyfit(logit(true), logit(calibrated), 1)[0]
    assert slope == pytest.approx(1.0, abs=0.05)


def test_platt_leaves_probabilities_alone_until_it_has_seen_enough() -> None:
    """Two hours of ten-minute blocks move log odds that were stretched by three a little, a year all the way."""
    probability, y, true = overconfident(50_000, 8)
    slopes = []
    for observations in (12.0, 50_000.0):
        weight = np.full(50_000, observations / 50_000)
        calibrated = CALIBRATIONS["platt"].fit(probability, y, weight).apply(probability)
        slopes.append(np.polyfit(logit(true), logit(calibrated), 1)[0])
    assert 1.5 < slopes[0] < 3.0
    assert slopes[1] == pytest.approx(1.0, abs=0.05)
