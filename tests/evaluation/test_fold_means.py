"""Means over folds weight each fold equally and ignore differences between folds."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tests.evaluation.markets import market
from volspike.evaluation import pooled
from volspike.evaluation.comparison import fold_means


def test_mean_is_that_of_the_folds() -> None:
    """Each fold's PR-AUC counts once, however many rows it has."""
    scored = market(9000, folds=3).only(np.arange(9000) > 1500)
    found = fold_means(scored, 600, resamples=10)
    of_folds = [
        average_precision_score(scored.y[scored.fold == fold], scored.probability[scored.fold == fold])
        for fold in range(3)
    ]
    assert found.model == pytest.approx(np.mean(of_folds))
    assert found.gain == pytest.approx(found.model - found.baseline)
    assert found.folds == 3


def test_telling_folds_apart_gains_nothing() -> None:
    """A model that knows only which fold is volatile has a pooled PR-AUC above the base rate, and no mean above it."""
    scored = market(9000, folds=3)
    random = np.random.default_rng(0)
    y = (random.random(9000) < 0.05 + 0.2 * scored.fold).astype(np.int8)
    blind = replace(scored, y=y, probability=0.05 + 0.2 * scored.fold.astype(np.float64))
    assert fold_means(blind, 600, resamples=10).model == pytest.approx(y.mean(), abs=0.01)
    assert average_precision_score(y, blind.probability) > y.mean() + 0.1


def test_intervals_hold_the_means_and_leads_are_counted() -> None:
    """A model that knows more is ahead in every fold, and the interval of its gain lies above 0."""
    found = fold_means(market(30_000, folds=3, skill=3.0), 600, resamples=100)
    assert found.ahead == 3
    assert 0 < found.gain_interval.low < found.gain < found.gain_interval.high
    assert found.model_interval.low < found.model < found.model_interval.high


def test_folds_of_one_class_are_left_out() -> None:
    """A calm fold has no PR-AUC; without any fold there is no mean. A fold that is too short has no interval."""
    scored = market(9000, folds=3)
    calm = replace(scored, y=np.where(scored.fold == 1, 0, scored.y).astype(np.int8))
    assert fold_means(calm, 600, resamples=10).folds == 2
    nothing = fold_means(replace(scored, y=np.zeros(9000, np.int8)), 600, resamples=10)
    assert nothing.folds == 0
    assert isnan(nothing.gain)
    assert nothing.figures()["gain_low"] is None
    assert isnan(fold_means(scored, 3600, resamples=10).model_interval.low)


def test_pooling_keeps_folds() -> None:
    """Folds put together are the rows they were made of, in their order, with their own thresholds."""
    scored = market(900, folds=3)
    again = pooled([scored.only(scored.fold == fold) for fold in range(3)])
    np.testing.assert_array_equal(again.fold, scored.fold)
    np.testing.assert_array_equal(again.probability, scored.probability)
    assert len(again) == 900
