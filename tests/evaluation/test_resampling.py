"""A resample's figures are those of the rows it draws, repeated as often as it draws them."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.markets import market
from volspike.evaluation import evaluate_scores
from volspike.evaluation.bootstrap import FIGURES, Calls, Draws, Ranking, resampled_figures
from volspike.evaluation.metrics import average_precision, roc_auc


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 3)), max_size=50))
def test_weighted_areas_are_those_of_repeated_rows(rows: list[tuple[int, int, int]]) -> None:
    """Ties, rows that were not drawn, and one class only included."""
    y, score, weight = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.zeros(0),) * 3
    repeated = np.repeat(np.arange(len(rows)), weight.astype(int))
    weights = np.column_stack([weight, np.ones(len(rows))]).astype(np.int16)
    found = tuple(Ranking(y.astype(np.int8), score.astype(float)).areas(weights)[0])
    ours, scores = y.astype(np.int8)[repeated], score.astype(float)[repeated]
    assert found == pytest.approx((average_precision(ours, scores), roc_auc(ours, scores)), nan_ok=True)


def test_every_figure_is_that_of_the_drawn_rows() -> None:
    """Each figure of each resample is what the slow way finds: repeat the rows and evaluate them."""
    scored = market(4000, step_s=3.0)
    draws = Draws.of(scored.time, 600, 8, seed=1)
    calls = Calls(scored.y, np.round(scored.probability, 2), scored.threshold, is_probability=True)
    found = resampled_figures([calls], draws)[0]
    for resample in range(len(draws)):
        weight = draws.weight(resample)
        rows = np.repeat(np.arange(len(scored)), weight)
        expected = evaluate_scores(calls.y[rows], calls.score[rows], 0.3)
        for name in FIGURES:
            assert found[name][resample] == pytest.approx(getattr(expected, name)), name


def test_a_score_that_is_no_probability_has_no_losses() -> None:
    """Brier and log loss of a volatility are undefined on every resample, the areas are not."""
    scored = market(4000)
    draws = Draws.of(scored.time, 600, 5)
    found = resampled_figures([Calls(scored.y, scored.baseline, scored.baseline_threshold, False)], draws)[0]
    assert np.isnan(found["brier"]).all()
    assert np.isnan(found["log_loss"]).all()
    assert np.isfinite(found["pr_auc"]).all()


def test_one_class_has_no_areas() -> None:
    """Without a spike no resample has an area; the base rate is 0 and recall undefined."""
    scored = market(4000)
    calls = Calls(np.zeros(4000, np.int8), scored.probability, scored.threshold, is_probability=True)
    found = resampled_figures([calls], Draws.of(scored.time, 600, 5))[0]
    assert np.isnan(found["pr_auc"]).all()
    assert np.isnan(found["recall"]).all()
    assert (found["base_rate"] == 0.0).all()
    assert found["f1"] != pytest.approx([nan] * 5)
