"""Columns on one scale, and what a linear model is given of each."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.samples import exported, fitted, full_sample
from volspike.features.catalogue import CATALOGUE
from volspike.models.detector import log_offset
from volspike.models.linear import Standardization


@pytest.mark.parametrize(
    ("name", "floor"),
    [
        ("realized_volatility_300s", 1e-6),
        ("ewma_volatility_1800s", 1e-6),
        ("leader_volatility_60s", 1e-6),
        ("volatility_ratio_60s", 1e-2),
        ("trade_intensity_30s", 1.0),
        ("log_return_60s", None),
        ("spread_mean_60s", None),
        ("time_of_day_sin", None),
        ("lag_return_1s", None),
        ("column_3", None),
    ],
)
def test_logarithms_are_taken_of_what_has_a_scale(name: str, floor: float | None) -> None:
    """Volatilities, ratios and counts are given as logarithms; returns, prices, clocks and strangers as they are."""
    assert log_offset(name) == floor


def test_the_catalogue_says_which_columns_are_logarithmic() -> None:
    """Beyond the families a column is given as its logarithm exactly where the catalogue says so."""
    assert {name for name in CATALOGUE if log_offset(name) is not None} == {
        name for name, feature in CATALOGUE.items() if feature.is_logarithmic
    }


def test_mean_zero_deviation_one_over_weighted_rows() -> None:
    """Each column comes out with weighted mean 0 and deviation 1, a constant one with 0."""
    random = np.random.default_rng(1)
    x = random.lognormal(size=(500, 3)).astype(np.float32)
    x[:, 2] = 0.1
    weight = random.uniform(0.5, 2, 500)
    standard = Standardization.fit(x, ("realized_volatility_60s", "log_return_60s", "column"), weight)
    z = standard.apply(x)
    np.testing.assert_allclose(np.average(z, axis=0, weights=weight), 0.0, atol=1e-9)
    np.testing.assert_allclose(np.average(z**2, axis=0, weights=weight), [1.0, 1.0, 0.0], atol=1e-9)
    logarithm = np.log(x[:, 0].astype(np.float64) + 1e-6)
    assert np.corrcoef(z[:, 0], logarithm)[0, 1] == pytest.approx(1.0)


def test_an_outlier_does_not_move_the_log_odds_further_than_the_tail() -> None:
    """A ratio a million times its usual size gives the logistic regression what its highest training value gives."""
    sample = full_sample(2000, 2)
    detector = fitted("logistic", sample)
    rows = np.repeat(sample.x[:1], 2, axis=0)
    trend = sample.names.index("trend_60s")
    rows[:, trend] = sample.x[:, trend].max(), 1e6
    assert np.ptp(detector.probability(rows)) == 0.0
    assert np.ptp(exported(detector, rows.shape[1]).probability(rows)) == 0.0
