"""Means over folds or days weight each part equally, and calm rows are those whose last minute was no spike."""

from __future__ import annotations

from dataclasses import replace
from math import isnan

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tests.evaluation.markets import market
from volspike.evaluation import pooled
from volspike.evaluation.bootstrap import Draws
from volspike.evaluation.scored import DAY_NS
from volspike.evaluation.subsets import calm_rows, day_means, fold_means


def test_mean_is_that_of_the_folds() -> None:
    """Each fold's PR-AUC counts once, however many rows it has."""
    scored = market(9000, folds=3).only(np.arange(9000) > 1500)
    found = fold_means(scored, 600, resamples=10)
    of_folds = [
        average_precision_score(scored.y[scored.fold == fold], scored.probability[scored.fold == fold])
        for fold in range(3)
    ]
    assert found.pr_auc.model == pytest.approx(np.mean(of_folds))
    assert found.pr_auc.gain == pytest.approx(found.pr_auc.model - found.pr_auc.baseline)
    assert found.parts == 3


def test_telling_folds_apart_gains_nothing() -> None:
    """A model that knows only which fold is volatile has a pooled PR-AUC above the base rate, and no mean above it."""
    scored = market(9000, folds=3)
    random = np.random.default_rng(0)
    y = (random.random(9000) < 0.05 + 0.2 * scored.fold).astype(np.int8)
    blind = replace(scored, y=y, probability=0.05 + 0.2 * scored.fold.astype(np.float64))
    assert fold_means(blind, 600, resamples=10).pr_auc.model == pytest.approx(y.mean(), abs=0.01)
    assert average_precision_score(y, blind.probability) > y.mean() + 0.1


def test_intervals_hold_the_means_and_leads_are_counted() -> None:
    """A model that knows more is ahead in every fold, and the interval of its gain lies above 0."""
    found = fold_means(market(30_000, folds=3, skill=3.0), 600, resamples=100)
    assert found.ahead == 3
    means = found.pr_auc
    assert 0 < means.gain_interval.low < means.gain < means.gain_interval.high
    assert 1 < means.ratio_interval.low < means.ratio < means.ratio_interval.high
    assert means.model_interval.low < means.model < means.model_interval.high


def test_folds_of_one_class_are_left_out() -> None:
    """A calm fold has no PR-AUC; without any fold there is no mean. A fold that is too short has no interval."""
    scored = market(9000, folds=3)
    calm = replace(scored, y=np.where(scored.fold == 1, 0, scored.y).astype(np.int8))
    assert fold_means(calm, 600, resamples=10).parts == 2
    nothing = fold_means(replace(scored, y=np.zeros(9000, np.int8)), 600, resamples=10)
    assert nothing.parts == 0
    assert isnan(nothing.pr_auc.gain)
    assert nothing.figures()["gain_low"] is None
    assert isnan(fold_means(scored, 3600, resamples=10).pr_auc.model_interval.low)


def test_pooling_keeps_folds() -> None:
    """Folds put together are the rows they were made of, in their order, with their own thresholds."""
    scored = market(900, folds=3)
    again = pooled([scored.only(scored.fold == fold) for fold in range(3)])
    np.testing.assert_array_equal(again.fold, scored.fold)
    np.testing.assert_array_equal(again.probability, scored.probability)
    assert len(again) == 900


def test_days_are_utc_days_with_both_classes() -> None:
    """Each day counts once, whatever its fold; a day without a spike, or of less than five blocks, does not count."""
    scored = market(4 * 1440, step_s=60.0, memory=20.0)
    offset = (scored.time[0] // DAY_NS + 1) * DAY_NS - scored.time[0]
    scored = replace(scored, time=scored.time + offset - 49 * 60 * 10**9)  # 49 minutes, three days, and the rest
    first = scored.day[0]
    scored = replace(scored, y=np.where(scored.day == first + 2, 0, scored.y).astype(np.int8))
    found = day_means(scored, 600, resamples=20)
    of_days = [
        average_precision_score(scored.y[scored.day == day], scored.probability[scored.day == day])
        for day in (first + 1, first + 3, first + 4)
    ]
    assert found.parts == 3
    assert found.pr_auc.model == pytest.approx(np.mean(of_days))
    assert found.pr_auc.model_interval.low < found.pr_auc.model < found.pr_auc.model_interval.high
    assert found.figures()["days"] == 3


def test_calm_rows_are_those_below_tau() -> None:
    """PR-AUC of the rows whose last minute was below τ, and the separate events among them."""
    scored = market(20_000, skill=3.0)
    found = calm_rows(scored, Draws.of(scored.time, 600, 100))
    calm = scored.past_volatility < 1.0
    assert 0 < found.rows == calm.sum() < len(scored)
    assert found.base_rate == pytest.approx(scored.y[calm].mean())
    assert found.pr_auc.model == pytest.approx(average_precision_score(scored.y[calm], scored.probability[calm]))
    assert found.pr_auc.baseline == pytest.approx(average_precision_score(scored.y[calm], scored.baseline[calm]))
    assert found.pr_auc.ratio_interval.low < found.pr_auc.ratio < found.pr_auc.ratio_interval.high
    assert found.spike_events > 5


def test_resamples_of_calm_rows_draw_blocks_of_all_rows() -> None:
    """Each resample of the calm rows is the calm part of a resample of all rows."""
    scored = market(5000)
    draws = Draws.of(scored.time, 600, 30)
    calm = scored.is_calm
    expected = []
    for resample in range(30):
        drawn = np.repeat(np.flatnonzero(calm), draws.weight(resample)[calm])
        expected.append(average_precision_score(scored.y[drawn], scored.probability[drawn]))
    low, high = np.quantile(expected, [0.025, 0.975])
    found = calm_rows(scored, draws).pr_auc.model_interval
    assert [found.low, found.high] == pytest.approx([low, high])


def test_no_calm_row_has_no_figure() -> None:
    """If every minute is a spike, PR-AUC in calm rows is undefined."""
    scored = market(3000)
    none = calm_rows(replace(scored, past_volatility=np.ones(3000)), Draws.of(scored.time, 100, 10))
    assert none.rows == 0
    assert none.figures()["model"] is none.figures()["base_rate"] is None
