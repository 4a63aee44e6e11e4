"""A forecast of log volatility and a classifier, combined, in float32 and in one graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from lightgbm import Dataset, train
from scipy.special import expit

from tests.models.samples import chosen, exported, fitted, full_sample, sample_of
from volspike.labels import TAU
from volspike.models import Sample
from volspike.models.combined import FORECAST_ALONE, Combination
from volspike.models.detector import as_float32
from volspike.models.forecast import available_volatilities, log_target
from volspike.models.trees import with_float32_splits


def test_missing_values_take_their_own_branch() -> None:
    """A missing value that is informative counts; a row without a volatility of the linear part is not scored."""
    sample = full_sample(3000, 1)
    random = np.random.default_rng(1)
    holed = random.random(3000) < 0.3
    sample = dataclasses.replace(
        sample,
        y=holed.astype(np.int8),
        volatility=np.where(holed, 2.0, 0.5) * sample.tau,
    )
    trend, last = sample.names.index("trend_60s"), sample.names.index("realized_volatility_60s")
    sample.x[holed, trend] = np.nan
    detector = fitted("lightgbm", sample, column_share=1.0)
    rows = sample.x.copy()
    rows[::50, last] = np.nan
    served = exported(detector, rows.shape[1]).probability(rows)
    np.testing.assert_allclose(served, detector.probability(rows), atol=1e-5, rtol=0)
    assert np.flatnonzero(np.isnan(served)).tolist() == list(range(0, 3000, 50))
    filled = rows.copy()
    filled[holed, trend] = 0.0
    assert np.nanmean(served[holed]) > np.nanmean(detector.probability(filled)[holed]) + 0.3


def test_rows_before_the_windows_are_full_teach_nothing() -> None:
    """Rows without any volatility are left out of the training, and those with it are scored as without them."""
    sample = full_sample(1200, 2)
    late = np.arange(1200) >= 200
    early = sample.x.copy()
    early[~late] = np.nan
    with_them = fitted("lightgbm", dataclasses.replace(sample, x=early)).probability(sample.x)
    np.testing.assert_array_equal(with_them, fitted("lightgbm", sample.rows(late)).probability(sample.x))


def test_a_volatility_that_goes_on_missing_is_left_to_the_trees() -> None:
    """A volatility that is often missing does not exclude the rows without it."""
    sample = full_sample(1000, 3)
    sample.x[::2, sample.names.index("ewma_volatility_30s")] = np.nan
    sample.x[:50] = np.nan
    told = available_volatilities(as_float32(sample.x), sample.names)
    assert "ewma_volatility_30s" not in told
    assert "realized_volatility_60s" in told
    assert np.isfinite(fitted("lightgbm", sample).probability(sample.x[50:])).all()


def test_a_shift_of_the_level_shifts_the_probability() -> None:
    """On a day with all volatilities three times as high, spikes are called likelier than on any day of training."""
    sample = full_sample(3000, 4)
    detector = fitted("lightgbm", sample)
    louder = sample.x.copy()
    for name in sample.names:
        if "volatility" in name:
            louder[:, sample.names.index(name)] *= 3.0
    assert detector.probability(louder).mean() > detector.probability(sample.x).mean() + 0.2


def test_the_target_keeps_still_minutes_finite() -> None:
    """A minute without price changes is 20 times below τ and no further; τ itself is slightly above 0."""
    np.testing.assert_allclose(log_target(np.array([0.0, 2e-4]), np.full(2, 2e-4)), [np.log(0.05), np.log(1.05)])


@pytest.mark.parametrize("level", [3.0, -3.0, 1e-30, -700.1, 3e38])
def test_a_split_between_neighbours_of_float32_keeps_each_on_its_side(level: float) -> None:
    """A split point that float32 does not hold is rounded so that no training row changes sides."""
    lower = np.float32(level)
    upper = np.nextafter(lower, np.float32(np.inf))
    x = np.tile([[lower], [upper]], (300, 1))
    y = np.tile([0, 1], 300).astype(np.int8)
    detector = fitted("lightgbm", sample_of(x.astype(np.float64), y))
    rows = x[:2].astype(np.float64)
    served = exported(detector, 1).probability(rows)
    np.testing.assert_allclose(served, detector.probability(rows), atol=1e-5, rtol=0)
    assert served[1] > served[0] + 0.5


def test_trees_in_float32_answer_as_before() -> None:
    """On rows of float32 the trees with rounded split points give what LightGBM trained; only NaN has a new branch."""
    random = np.random.default_rng(5)
    x = random.normal(size=(2000, 3)).astype(np.float32)
    parameters: dict[str, Any] = {"verbosity": -1, "num_threads": 1, "deterministic": True, "force_row_wise": True}
    trees = train(parameters, Dataset(x, x[:, 0] * x[:, 1]), 20)
    single = with_float32_splits(trees)
    np.testing.assert_array_equal(single.predict(x), trees.predict(x))
    missing = np.full((1, 3), np.nan, np.float32)
    lowest = np.full((1, 3), -3e38, np.float32)
    np.testing.assert_array_equal(single.predict(missing), single.predict(lowest))


def test_without_any_volatility_the_mean_is_the_linear_part() -> None:
    """Columns of other kinds alone are learned from by the trees, and every row is scored."""
    sample = full_sample(900, 6)
    part = dataclasses.replace(chosen("seasonal", sample))
    probability = fitted("lightgbm", part).probability(part.x)
    assert np.isfinite(probability).all()
    assert probability.std() > 0.01


def test_weights_follow_held_out_rows() -> None:
    """Of two scores, the one that predicts the outcomes has the greater weight; none is negative."""
    random = np.random.default_rng(7)
    signal = random.normal(size=30_000)
    y = (random.random(30_000) < expit(signal - 1.0)).astype(np.int8)
    noise, weight = random.normal(size=30_000), np.ones(30_000)
    for forecast, classifier in ((signal, noise), (noise, signal)):
        found = Combination.fit(np.column_stack([forecast, classifier]), y, weight)
        better, worse = sorted((found.forecast, found.classifier), reverse=True)
        assert (found.forecast > found.classifier) == (forecast is signal)
        assert better == pytest.approx(1.0, abs=0.25)
        assert 0.0 <= worse < 0.25
    opposite = Combination.fit(np.column_stack([signal, -signal]), y, weight)
    assert opposite.classifier >= 0.0


def test_few_rows_keep_equal_weights() -> None:
    """A minute of rows is one observation: it moves the weights hardly from one half."""
    random = np.random.default_rng(8)
    margins = random.normal(size=(60, 2))
    found = Combination.fit(margins, (margins[:, 0] > 0).astype(np.int8), np.ones(60))
    assert (found.forecast, found.classifier) == pytest.approx((0.5, 0.5), abs=0.1)


def with_tau(sample: Sample) -> Sample:
    """The same rows with τ as their last column, as for a τ that differs from row to row."""
    return dataclasses.replace(sample, names=(*sample.names, TAU), x=np.column_stack([sample.x, sample.tau]))


def test_a_half_without_spikes_leaves_the_forecast_alone() -> None:
    """If one half of the training time holds no spike, there is no classifier."""
    sample = with_tau(full_sample(1200, 9))
    y = sample.y.copy()
    y[:600] = 0
    detector: Any = fitted("lightgbm", dataclasses.replace(sample, y=y))
    assert (detector._model.combination, detector._model.pair.classifier) == (FORECAST_ALONE, None)


@pytest.mark.parametrize("is_frozen", [True, False])
def test_only_a_moving_threshold_has_a_classifier(is_frozen: bool) -> None:
    """With a frozen τ the share of spikes shifts from day to day, so only the forecast is used; both are exported."""
    sample = full_sample(1200, 9) if is_frozen else with_tau(full_sample(1200, 9))
    detector: Any = fitted("lightgbm", sample)
    assert (detector._model.pair.classifier is None) is is_frozen
    assert (detector._model.combination == FORECAST_ALONE) is is_frozen
    served = exported(detector, sample.x.shape[1]).probability(sample.x)
    np.testing.assert_allclose(served, detector.probability(sample.x), atol=1e-5, rtol=0)
