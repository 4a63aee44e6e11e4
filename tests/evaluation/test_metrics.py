"""The figures agree with scikit-learn's, and are NaN where there is no answer."""

from __future__ import annotations

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from volspike.evaluation import evaluate_scores
from volspike.evaluation.metrics import average_precision, log_losses, roc_auc

outcomes_and_scores = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 8).map(lambda eighths: eighths / 8)), min_size=2, max_size=60
).filter(lambda rows: 0 < sum(y for y, _ in rows) < len(rows))


@given(outcomes_and_scores, st.integers(0, 8).map(lambda eighths: eighths / 8))
def test_figures_are_those_of_scikit_learn(rows: list[tuple[int, float]], threshold: float) -> None:
    """Ties, perfect and useless scores included."""
    y, score = np.array([y for y, _ in rows], np.int8), np.array([s for _, s in rows])
    called = score >= threshold
    found = evaluate_scores(y, score, threshold)
    assert found.pr_auc == pytest.approx(reference.average_precision_score(y, score))
    assert found.roc_auc == pytest.approx(reference.roc_auc_score(y, score))
    assert found.brier == pytest.approx(reference.brier_score_loss(y, score))
    assert found.log_loss == pytest.approx(reference.log_loss(y, np.clip(score, 1e-15, 1 - 1e-15)))
    assert found.precision == pytest.approx(reference.precision_score(y, called, zero_division=nan), nan_ok=True)
    assert found.recall == pytest.approx(reference.recall_score(y, called))
    assert found.f1 == pytest.approx(reference.f1_score(y, called))
    matrix = reference.confusion_matrix(y, called, labels=[0, 1])
    assert [[found.tn, found.fp], [found.fn, found.tp]] == matrix.tolist()
    assert found.rows == len(y)
    assert found.base_rate == pytest.approx(y.mean())


@pytest.mark.parametrize("outcome", [0, 1])
def test_one_class_has_no_areas(outcome: int) -> None:
    """With one class only neither area is defined; it is not 0 and not 0.5."""
    y, score = np.full(5, outcome, np.int8), np.linspace(0, 1, 5)
    assert isnan(average_precision(y, score))
    assert isnan(roc_auc(y, score))


def test_undefined_shares_are_nan() -> None:
    """No call has no precision, no spike no recall, neither no F1."""
    figures = evaluate_scores(np.zeros(4, np.int8), np.zeros(4), 0.5)
    assert all(map(isnan, (figures.precision, figures.recall, figures.f1)))
    assert figures.figures()["precision"] is None


def test_nothing_at_all_is_nan() -> None:
    """No rows give no figure but their count."""
    figures = evaluate_scores(np.zeros(0, np.int8), np.zeros(0), 0.5)
    assert figures.rows == 0
    assert all(map(isnan, (figures.base_rate, figures.pr_auc, figures.brier)))


def test_certainty_that_was_wrong_costs_much_but_not_everything() -> None:
    """A probability of exactly 0 of what came is clipped to 1e-15: 34.5 nats, the same on both sides."""
    losses = log_losses(np.array([1, 0, 1, 0], np.int8), np.array([0.0, 1.0, 1.0, 0.0]))
    assert losses == pytest.approx([34.54, 34.54, 0.0, 0.0], abs=0.01)


@given(outcomes_and_scores)
def test_areas_know_the_order_alone(rows: list[tuple[int, float]]) -> None:
    """A growing function of the score, or another order of the rows, leaves both areas as they are."""
    y, score = np.array([y for y, _ in rows], np.int8), np.array([s for _, s in rows])
    for area in (average_precision, roc_auc):
        assert area(y, np.expm1(3.0 * score)) == pytest.approx(area(y, score))
        assert area(y[::-1], score[::-1]) == pytest.approx(area(y, score))


@given(outcomes_and_scores)
def test_perfect_and_constant_scores(rows: list[tuple[int, float]]) -> None:
    """Knowing all is 1; a constant reaches the base rate, and a half."""
    y = np.array([y for y, _ in rows], np.int8)
    assert (average_precision(y, y.astype(float)), roc_auc(y, y.astype(float))) == (1.0, 1.0)
    assert average_precision(y, np.ones(len(y))) == pytest.approx(y.mean())
    assert roc_auc(y, np.ones(len(y))) == 0.5


def test_a_score_that_is_no_probability_has_no_brier() -> None:
    """A volatility is not evaluated as a probability, by Brier or by log loss."""
    figures = evaluate_scores(np.array([0, 1], np.int8), np.array([3.0, 9.0]), 5.0, is_probability=False)
    assert isnan(figures.brier)
    assert isnan(figures.log_loss)
    assert figures.precision == 1.0


def test_each_row_can_have_its_own_threshold() -> None:
    """Rows of different folds are evaluated at their own thresholds; a single threshold is then undefined."""
    figures = evaluate_scores(np.array([1, 1, 0], np.int8), np.array([0.5, 0.5, 0.5]), np.array([0.4, 0.6, 0.6]))
    assert (figures.tp, figures.fn, figures.tn) == (1, 1, 1)
    assert isnan(figures.threshold)
