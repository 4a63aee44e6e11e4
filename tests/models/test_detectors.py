"""Every detector keeps the same contract."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.models.samples import (
    ALL,
    ANY_COLUMNS,
    chosen,
    exported,
    fitted,
    full_sample,
    learned,
    market_sample,
    sample_of,
)
from volspike.errors import NotEnoughData, UsageError
from volspike.features.schema import FeatureSet, Scope
from volspike.models import DETECTORS, Artifact, Metadata
from volspike.models.baselines import Baseline

detectors = pytest.mark.parametrize("name", ANY_COLUMNS)
each = pytest.mark.parametrize("name", ALL)


@detectors
def test_learns_what_separates(name: str) -> None:
    """A feature that separates the classes is found: spikes score above calm rows never seen in training."""
    random = np.random.default_rng(0)
    y = (random.random(3000) < 0.2).astype(np.int8)
    x = random.normal(size=(3000, 3)) * [0.1, 1, 1] + np.outer(y, [3, 0, 0])
    detector = fitted(name, sample_of(x[:2000], y[:2000]))
    probability, outcome = detector.probability(x[2000:]), y[2000:]
    shown = np.median(probability[outcome == 1]) > np.quantile(probability[outcome == 0], 0.9)
    assert shown


@detectors
def test_importance_is_shares(name: str) -> None:
    """Importances are not negative and add up to one; a learning model relies on the informative feature."""
    importance = fitted(name, market_sample(2000, 2)).importance()
    assert importance.shape == (10,)
    assert (importance >= 0).all()
    assert importance.sum() == pytest.approx(1.0)
    assert name == "baseline" or importance.argmax() == 0


@detectors
def test_onnx_agrees_on_unseen_rows(name: str) -> None:
    """The ONNX form gives the trained model's probabilities to 1e-5."""
    detector = fitted(name, market_sample(3000, 3))
    x = market_sample(5000, 4).x
    served = exported(detector, 10).probability(x)
    np.testing.assert_allclose(served, detector.probability(x), atol=1e-5, rtol=0)


@detectors
def test_onnx_agrees_on_extreme_values(name: str) -> None:
    """The ONNX form agrees where a value is as small or as great as float32 can hold, in any column."""
    sample = market_sample(3000, 5)
    x, y = sample.x, sample.y
    detector = fitted(name, sample_of(x, y))
    extremes = [0.0, -0.0, 1e-45, -1e-40, 1e-12, 1e12, -1e12, 3e38, -3e38]
    rows = np.repeat(x[:20], 10 * len(extremes), axis=0)
    columns = np.tile(np.arange(10), 20 * len(extremes))
    rows[np.arange(len(rows)), columns] = np.tile(np.repeat(extremes, 10), 20)
    served = exported(detector, 10).probability(rows)
    np.testing.assert_allclose(served, detector.probability(rows), atol=1e-5, rtol=0)


@detectors
def test_onnx_agrees_on_split_points(name: str) -> None:
    """Rows whose values are neighbours in float32, where trees split, go the same way in both."""
    random = np.random.default_rng(6)
    # From 3 on neighbours are 2.4e-7 apart: scikit-learn's trees do not split what is within 1e-7.
    first = np.float32(3.0).view(np.int32)
    x = (first + random.integers(0, 12, (2000, 4), dtype=np.int32)).view(np.float32).astype(np.float64)
    y = (x[:, 0] + x[:, 1] > np.median(x[:, 0] + x[:, 1])).astype(np.int8)
    detector = fitted(name, sample_of(x, y))
    np.testing.assert_allclose(exported(detector, 4).probability(x), detector.probability(x), atol=1e-5, rtol=0)


@detectors
def test_onnx_agrees_far_from_zero(name: str) -> None:
    """Columns that hardly move around a great level, as prices do, cost the ONNX form no digits."""
    random = np.random.default_rng(15)
    x = random.normal(size=(3000, 4)) * [1.0, 0.5, 2.0, 0.01] + [90_000.0, 60_000.0, -30_000.0, 500.0]
    y = (x[:, 0] > 90_001.0).astype(np.int8)
    detector = fitted(name, sample_of(x[:2000], y[:2000]))
    served = exported(detector, 4).probability(x[2000:])
    np.testing.assert_allclose(served, detector.probability(x[2000:]), atol=1e-5, rtol=0)


@detectors
def test_onnx_agrees_where_trees_split_near_the_end_of_float32(name: str) -> None:
    """Split points at the limits of float32 are converted, without a warning."""
    random = np.random.default_rng(16)
    x = random.uniform(-3.4e38, 3.4e38, size=(1000, 3))
    y = (x[:, 0] > 3e38).astype(np.int8)
    detector = fitted(name, sample_of(x, y))
    np.testing.assert_allclose(exported(detector, 3).probability(x), detector.probability(x), atol=1e-5, rtol=0)


@detectors
def test_served_probabilities_stay_within_zero_and_one(name: str) -> None:
    """Where the classes separate cleanly, no sum of float32 shares ends above 1 or below 0."""
    random = np.random.default_rng(17)
    y = (random.random(6000) < 0.3).astype(np.int8)
    x = random.normal(size=(6000, 3)) * 0.1 + np.outer(y, [3, 1, 0])
    served = exported(fitted(name, sample_of(x, y)), 3).probability(x)
    assert 0.0 <= served.min() < 0.05
    assert 0.6 < served.max() <= 1.0


@detectors
def test_a_single_row_scores_as_in_a_batch(name: str) -> None:
    """The path for one row gives what the batch gives, to the last bits of float32."""
    sample = market_sample(1000, 7)
    x, y = sample.x, sample.y
    scorer = exported(fitted(name, sample_of(x, y)), 10)
    alone = [scorer.probability_of(row) for row in x[:50].tolist()]
    np.testing.assert_allclose(alone, scorer.probability(x)[:50], atol=1e-6, rtol=0)


@detectors
def test_missing_values_are_never_made_up(name: str) -> None:
    """A row that misses a value is scored as it is where the model accepts that, and is NaN where not."""
    sample = market_sample(2000, 8)
    x, y = sample.x, sample.y
    x[::7, 3] = np.nan
    x[1::50, 4] = np.inf
    x[2::50, 5] = 1e300
    detector = fitted(name, sample_of(x, y))
    missing = ~(np.abs(x) < 1e30).all(axis=1)
    trained, served = detector.probability(x), exported(detector, 10).probability(x)
    np.testing.assert_array_equal(np.isnan(trained), missing & (not detector.accepts_missing))
    np.testing.assert_allclose(served, trained, atol=1e-5, rtol=0)


@detectors
def test_missing_rows_are_left_out_of_training(name: str) -> None:
    """Where missing values are not accepted, training on rows with and without them is the same."""
    sample = market_sample(1500, 9)
    x, y = sample.x, sample.y
    holed = x.copy()
    holed[::5, 2] = np.nan
    whole = np.arange(len(x)) % 5 != 0
    detector = fitted(name, sample_of(holed, y))
    if detector.accepts_missing:
        assert np.isfinite(detector.probability(holed)).all()
        return
    alone = fitted(name, sample_of(x[whole], y[whole]))
    np.testing.assert_array_equal(detector.probability(x), alone.probability(x))


@each
def test_same_seed_same_model(name: str) -> None:
    """Training twice with one seed gives the same graph, byte for byte."""
    first, second = (
        fitted(name, full_sample(700, 10, deep=True), seed=3).to_onnx().SerializeToString() for _ in range(2)
    )
    assert first == second


@detectors
@pytest.mark.parametrize("outcome", [0, 1])
def test_one_class_is_not_enough(name: str, outcome: int) -> None:
    """Rows of one class only are refused, with how many there were."""
    x = market_sample(600, 11).x
    with pytest.raises(NotEnoughData, match="600 of 600 training rows"):
        fitted(name, sample_of(x, np.full(600, outcome, np.int8)))


@detectors
def test_a_constant_column_is_harmless(name: str) -> None:
    """A column of one value gives no infinite or missing probability, and the export still agrees."""
    sample = market_sample(1500, 12)
    x, y = sample.x, sample.y
    x[:, 6] = 0.1
    detector = fitted(name, sample_of(x, y))
    probability = detector.probability(x)
    assert ((probability >= 0) & (probability <= 1)).all()
    np.testing.assert_allclose(exported(detector, 10).probability(x), probability, atol=1e-5, rtol=0)


def test_composite_is_the_seed_systems_rule() -> None:
    """The composite is the mean of z-scores, standardised again, and ``composite_2`` calls the same rows."""
    random = np.random.default_rng(13)
    x = random.normal(size=(4000, 5)).astype(np.float32).astype(np.float64)
    y = (x.sum(axis=1) + random.normal(size=4000) > 3).astype(np.int8)
    baseline = Baseline().fit(sample_of(x, y))
    z = ((x - x.mean(axis=0)) / x.std(axis=0)).mean(axis=1)
    composite = (z - z.mean()) / z.std()
    np.testing.assert_allclose(baseline._composite.composite(x.astype(np.float32)), composite, atol=1e-9)
    called = baseline.probability(x) >= baseline.thresholds()["composite_2"]
    np.testing.assert_array_equal(called, composite >= 2.0)


def test_a_forest_sees_differences_far_below_one() -> None:
    """Features of the size of one-second volatilities are split as finely as the same ones a million times as large."""
    random = np.random.default_rng(2)
    x = random.normal(size=(4000, 2))
    y = (x[:, 0] > 1.2816).astype(np.int8)
    small, large = (
        fitted("random_forest", sample_of(x * scale, y)).probability(x * scale) for scale in (2.0**-27, 1.0)
    )
    np.testing.assert_array_equal(small, large)


class Trial:
    """A search trial that proposes the lowest or the highest value of each range."""

    def __init__(self, *, is_highest: bool) -> None:
        self._is_highest = is_highest

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return high if self._is_highest else low

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return high if self._is_highest else low


@each
@pytest.mark.parametrize("is_highest", [False, True])
def test_what_a_search_proposes_is_a_setting(name: str, is_highest: bool) -> None:
    """Every setting of the search space is one that the detector takes."""
    proposed = DETECTORS[name].search_space(Trial(is_highest=is_highest))
    assert DETECTORS[name](settings=proposed).name == name
    assert bool(proposed) is not DETECTORS[name].is_baseline


@each
def test_an_unknown_setting_is_refused(name: str) -> None:
    """A setting that a detector does not have is named, with those that it has."""
    with pytest.raises(UsageError, match=f"{name} has no setting colour; there are "):
        DETECTORS[name](settings={"colour": 1})


@each
def test_onnx_agrees_on_a_market_and_at_extremes(name: str) -> None:
    """The ONNX form agrees to 1e-5 on rows of a market, and where any value is 0, negative, tiny, huge or missing."""
    sample, detector = learned(name)
    random = np.random.default_rng(22)
    rows = np.repeat(sample.x[::3], 4, axis=0)
    extremes = [0.0, -0.0, 1e-45, 1e-12, -1e-4, 1.0, 1e12, -1e12, 3e38, -3e38, np.nan, np.inf, 1e300]
    rows[np.arange(len(rows)), random.integers(0, rows.shape[1], len(rows))] = random.choice(extremes, len(rows))
    for x in (sample.x, rows):
        served = exported(detector, x.shape[1]).probability(x)
        np.testing.assert_allclose(served, detector.probability(x), atol=1e-5, rtol=0)
    assert np.isfinite(detector.probability(sample.x)).all()


@each
def test_a_row_alone_scores_as_among_others(name: str) -> None:
    """One row gives what it gives in a batch of any size, to the last bits of float32."""
    sample, detector = learned(name)
    scorer = exported(detector, sample.x.shape[1])
    alone = [scorer.probability_of(row) for row in sample.x[:20].tolist()]
    np.testing.assert_allclose(alone, scorer.probability(sample.x)[:20], atol=1e-6, rtol=0)
    np.testing.assert_allclose(detector.probability(sample.x[:20]), detector.probability(sample.x)[:20], atol=1e-6)


@each
def test_importance_covers_all_columns(name: str) -> None:
    """On the columns of a market, too, importances are shares, one for each column."""
    sample, detector = learned(name)
    importance = detector.importance()
    assert importance.shape == (len(sample.names),)
    assert (importance >= 0).all()
    assert importance.sum() == pytest.approx(1.0)


@each
def test_weights_matter(name: str) -> None:
    """Where spikes weigh five times as much, they are called likelier."""
    sample = chosen(name, full_sample(700, 25, deep=True))
    heavy = dataclasses.replace(sample, weight=np.where(sample.y == 1, 5.0, 1.0))
    plain, weighed = (fitted(name, taken).probability(sample.x).mean() for taken in (sample, heavy))
    assert weighed > plain + 0.02


@pytest.mark.parametrize("name", ["baseline", "persistence", "ewma_30", "ewma", "har", "garch", "seasonal", "logistic"])
def test_a_weight_of_two_is_a_row_told_twice(name: str) -> None:
    """For what is fitted in closed form or to its optimum, doubling a weight and repeating the row are the same."""
    sample = chosen(name, full_sample(600, 26))
    twice = np.arange(600) % 3 == 0
    doubled = fitted(name, dataclasses.replace(sample, weight=np.where(twice, 2.0, 1.0)))
    repeated = fitted(name, sample.rows(np.repeat(np.arange(600), np.where(twice, 2, 1))))
    np.testing.assert_allclose(doubled.probability(sample.x), repeated.probability(sample.x), atol=2e-3)


@each
def test_columns_keep_the_order_of_the_offer(name: str) -> None:
    """What a detector takes is a part of what was offered, in its order; of nothing it takes nothing."""
    offered = full_sample(100, 27, deep=True).names
    taken = DETECTORS[name].columns(offered[::-1])
    assert taken
    assert list(taken) == [column for column in offered[::-1] if column in taken]
    assert DETECTORS[name].columns(()) == ()
    assert name == "lstm" or not any(column.startswith("lag_") for column in taken)


@pytest.mark.parametrize("name", ["persistence", "ewma_30", "ewma", "har", "garch", "seasonal", "lstm"])
def test_absent_columns_are_named(name: str) -> None:
    """A detector that needs certain columns takes none of others, and says what it needs when given them."""
    assert DETECTORS[name].columns(("spread_mean_60s", "realized_volatility_30s")) == ()
    with pytest.raises(UsageError, match=f"{name} needs (the|a) column"):
        DETECTORS[name]().fit(market_sample(100, 28))


@each
def test_saved_and_loaded_it_scores_the_same(name: str, tmp_path: Path, metadata: Metadata) -> None:
    """Through an artifact on disk every detector answers what it answered before."""
    sample, detector = learned(name)
    features = FeatureSet(scope=Scope.DEEP)
    facts = msgspec.structs.replace(
        metadata,
        model=name,
        features=sample.names,
        scope=features.scope,
        feature_digest=features.digest,
        accepts_missing=detector.accepts_missing,
    )
    Artifact.save(tmp_path / name, detector.to_onnx().SerializeToString(), facts, {})
    loaded = Artifact.load(tmp_path / name).probability(sample.x)
    np.testing.assert_allclose(loaded, detector.probability(sample.x), atol=1e-5, rtol=0)
