"""Every detector keeps the same contract."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from volspike.errors import NotEnoughData
from volspike.models import DETECTORS, Detector
from volspike.models.baseline import LEAST_SLOPE, Baseline, platt
from volspike.models.scorer import Scorer

Rows = tuple[NDArray[np.float64], NDArray[np.int8]]
MarketRows = Callable[[int, int], Rows]

detectors = pytest.mark.parametrize("name", list(DETECTORS))


def exported(detector: Detector, width: int) -> Scorer:
    return Scorer(detector.to_onnx().SerializeToString(), width=width, accepts_missing=detector.accepts_missing)


@detectors
def test_learns_what_separates(name: str) -> None:
    """A feature that separates the classes is found: spikes score above calm rows never seen in training."""
    random = np.random.default_rng(0)
    y = (random.random(3000) < 0.2).astype(np.int8)
    x = random.normal(size=(3000, 3)) * [0.1, 1, 1] + np.outer(y, [3, 0, 0])
    detector = DETECTORS[name]().fit(x[:2000], y[:2000])
    probability, outcome = detector.probability(x[2000:]), y[2000:]
    shown = np.median(probability[outcome == 1]) > np.quantile(probability[outcome == 0], 0.9)
    assert shown


@detectors
def test_importance_is_shares(name: str, market_rows: MarketRows) -> None:
    """Importances are not negative and add up to one; what a learning model goes by is the telling feature."""
    importance = DETECTORS[name]().fit(*market_rows(2000, 2)).importance()
    assert importance.shape == (10,)
    assert (importance >= 0).all()
    assert importance.sum() == pytest.approx(1.0)
    assert name == "baseline" or importance.argmax() == 0


@detectors
def test_onnx_agrees_on_unseen_rows(name: str, market_rows: MarketRows) -> None:
    """The ONNX form gives the trained model's probabilities to 1e-5."""
    detector = DETECTORS[name]().fit(*market_rows(3000, 3))
    x, _ = market_rows(5000, 4)
    served = exported(detector, 10).probability(x)
    np.testing.assert_allclose(served, detector.probability(x), atol=1e-5, rtol=0)


@detectors
def test_onnx_agrees_on_extreme_values(name: str, market_rows: MarketRows) -> None:
    """The ONNX form agrees where a value is as small or as great as float32 can hold, in any column."""
    x, y = market_rows(3000, 5)
    detector = DETECTORS[name]().fit(x, y)
    extremes = [0.0, -0.0, 1e-45, -1e-40, 1e-12, 1e12, -1e12, 3e38, -3e38]
    rows = np.repeat(x[:20], 10 * len(extremes), axis=0)
    columns = np.tile(np.arange(10), 20 * len(extremes))
    rows[np.arange(len(rows)), columns] = np.tile(np.repeat(extremes, 10), 20)
    served = exported(detector, 10).probability(rows)
    np.testing.assert_allclose(served, detector.probability(rows), atol=1e-5, rtol=0)


@detectors
def test_onnx_agrees_on_split_points(name: str) -> None:
    """Rows whose values stand next to one another in float32, where trees split, go the same way in both."""
    random = np.random.default_rng(6)
    # From 3 on neighbours are 2.4e-7 apart: scikit-learn's trees do not split what is within 1e-7.
    first = np.float32(3.0).view(np.int32)
    x = (first + random.integers(0, 12, (2000, 4), dtype=np.int32)).view(np.float32).astype(np.float64)
    y = (x[:, 0] + x[:, 1] > np.median(x[:, 0] + x[:, 1])).astype(np.int8)
    detector = DETECTORS[name]().fit(x, y)
    np.testing.assert_allclose(exported(detector, 4).probability(x), detector.probability(x), atol=1e-5, rtol=0)


@detectors
def test_onnx_agrees_far_from_zero(name: str) -> None:
    """Columns that hardly move around a great level, as prices do, cost the ONNX form no digits."""
    random = np.random.default_rng(15)
    x = random.normal(size=(3000, 4)) * [1.0, 0.5, 2.0, 0.01] + [90_000.0, 60_000.0, -30_000.0, 500.0]
    y = (x[:, 0] > 90_001.0).astype(np.int8)
    detector = DETECTORS[name]().fit(x[:2000], y[:2000])
    served = exported(detector, 4).probability(x[2000:])
    np.testing.assert_allclose(served, detector.probability(x[2000:]), atol=1e-5, rtol=0)


@detectors
def test_onnx_agrees_where_trees_split_near_the_end_of_float32(name: str) -> None:
    """Split points that stand at the edge of float32's reach are converted, without a warning."""
    random = np.random.default_rng(16)
    x = random.uniform(-3.4e38, 3.4e38, size=(1000, 3))
    y = (x[:, 0] > 3e38).astype(np.int8)
    detector = DETECTORS[name]().fit(x, y)
    np.testing.assert_allclose(exported(detector, 3).probability(x), detector.probability(x), atol=1e-5, rtol=0)


@detectors
def test_served_probabilities_stay_within_zero_and_one(name: str) -> None:
    """Where the classes separate cleanly, no sum of float32 shares ends above 1 or below 0."""
    random = np.random.default_rng(17)
    y = (random.random(6000) < 0.3).astype(np.int8)
    x = random.normal(size=(6000, 3)) * 0.1 + np.outer(y, [3, 1, 0])
    served = exported(DETECTORS[name]().fit(x, y), 3).probability(x)
    assert 0.0 <= served.min() < 0.05
    assert 0.6 < served.max() <= 1.0


@detectors
def test_a_single_row_scores_as_in_a_batch(name: str, market_rows: MarketRows) -> None:
    """The path for one row gives what the batch gives, to the last bits of float32."""
    x, y = market_rows(1000, 7)
    scorer = exported(DETECTORS[name]().fit(x, y), 10)
    alone = [scorer.probability_of(row) for row in x[:50].tolist()]
    np.testing.assert_allclose(alone, scorer.probability(x)[:50], atol=1e-6, rtol=0)


@detectors
def test_missing_values_are_never_made_up(name: str, market_rows: MarketRows) -> None:
    """A row that misses a value is scored as it is where the model accepts that, and is NaN where not."""
    x, y = market_rows(2000, 8)
    x[::7, 3] = np.nan
    x[1::50, 4] = np.inf
    x[2::50, 5] = 1e300
    detector = DETECTORS[name]().fit(x, y)
    missing = ~(np.abs(x) < 1e30).all(axis=1)
    trained, served = detector.probability(x), exported(detector, 10).probability(x)
    np.testing.assert_array_equal(np.isnan(trained), missing & (not detector.accepts_missing))
    np.testing.assert_allclose(served, trained, atol=1e-5, rtol=0)


@detectors
def test_missing_rows_are_left_out_of_training(name: str, market_rows: MarketRows) -> None:
    """Where missing values are not accepted, training on rows with and without them is the same."""
    x, y = market_rows(1500, 9)
    holed = x.copy()
    holed[::5, 2] = np.nan
    whole = np.arange(len(x)) % 5 != 0
    detector = DETECTORS[name]()
    if detector.accepts_missing:
        assert np.isfinite(detector.fit(holed, y).probability(holed)).all()
        return
    alone = DETECTORS[name]().fit(x[whole], y[whole])
    np.testing.assert_array_equal(detector.fit(holed, y).probability(x), alone.probability(x))


@detectors
def test_same_seed_same_model(name: str, market_rows: MarketRows) -> None:
    """Training twice with one seed gives the same graph, byte for byte."""
    x, y = market_rows(1500, 10)
    first, second = (DETECTORS[name](seed=3).fit(x, y).to_onnx().SerializeToString() for _ in range(2))
    assert first == second


@detectors
@pytest.mark.parametrize("outcome", [0, 1])
def test_one_class_is_not_enough(name: str, outcome: int, market_rows: MarketRows) -> None:
    """Rows of one class only are refused, with how many there were."""
    x, _ = market_rows(600, 11)
    with pytest.raises(NotEnoughData, match="600 of 600 training rows"):
        DETECTORS[name]().fit(x, np.full(600, outcome, np.int8))


@detectors
def test_a_constant_column_is_harmless(name: str, market_rows: MarketRows) -> None:
    """A column of one value gives no infinite or missing probability, and the export still agrees."""
    x, y = market_rows(1500, 12)
    x[:, 6] = 0.1
    detector = DETECTORS[name]().fit(x, y)
    probability = detector.probability(x)
    assert ((probability >= 0) & (probability <= 1)).all()
    np.testing.assert_allclose(exported(detector, 10).probability(x), probability, atol=1e-5, rtol=0)


def test_composite_is_the_seed_systems_rule() -> None:
    """The composite is the mean of z-scores, standardised again, and ``composite_2`` calls the same rows."""
    random = np.random.default_rng(13)
    x = random.normal(size=(4000, 5)).astype(np.float32).astype(np.float64)
    y = (x.sum(axis=1) + random.normal(size=4000) > 3).astype(np.int8)
    baseline = Baseline().fit(x, y)
    z = ((x - x.mean(axis=0)) / x.std(axis=0)).mean(axis=1)
    composite = (z - z.mean()) / z.std()
    np.testing.assert_allclose(baseline.composite(x.astype(np.float32)), composite, atol=1e-9)
    called = baseline.probability(x) >= baseline.thresholds()["composite_2"]
    np.testing.assert_array_equal(called, composite >= 2.0)


def test_platt_curve_rises_even_against_the_data() -> None:
    """Where spikes come at low composites, the curve still rises, and its mean stays the base rate."""
    random = np.random.default_rng(14)
    score = random.normal(size=5000)
    y = (random.random(5000) < 1 / (1 + np.exp(2 + score))).astype(np.int8)
    slope, intercept = platt(score, y)
    assert slope == LEAST_SLOPE
    assert np.mean(1 / (1 + np.exp(-slope * score - intercept))) == pytest.approx(y.mean(), abs=1e-3)


def test_a_forest_sees_differences_far_below_one() -> None:
    """Features of the size of one-second volatilities are split as finely as the same ones a million times as large."""
    random = np.random.default_rng(2)
    x = random.normal(size=(4000, 2))
    y = (x[:, 0] > 1.2816).astype(np.int8)
    small, large = (
        DETECTORS["random_forest"](seed=0).fit(x * scale, y).probability(x * scale) for scale in (2.0**-27, 1.0)
    )
    np.testing.assert_array_equal(small, large)
