"""Rank correlation beside SciPy's, and group_redundant of features that say the same."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr

from volspike.training.importance import clustered_order, drop_redundant, group_redundant, rank_correlation


def columns(rows: int = 500) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """0 and 2 say the same (2 the other way round), 1 and 3 are their own, 4 never changes, 5 is never told."""
    random = np.random.default_rng(0)
    first, second, third = random.normal(size=(3, rows))
    return np.column_stack([first, second, -np.exp(first), third + 0.5 * second, np.ones(rows), np.full(rows, np.nan)])


def test_correlation_is_spearmans() -> None:
    """Without missing values it is SciPy's to the last digits, ties included."""
    x = np.round(columns()[:, :4], 1)
    np.testing.assert_allclose(rank_correlation(x), spearmanr(x).statistic, atol=1e-12)


def test_missing_values_cost_their_own_rows_only() -> None:
    """A column half untold keeps its correlation with the others, nearly."""
    x = columns()
    holed = x.copy()
    holed[::2, 1] = np.nan
    whole, found = rank_correlation(x), rank_correlation(holed)
    assert abs(found[1, 3] - whole[1, 3]) < 0.1
    np.testing.assert_allclose(found[0, 3], whole[0, 3], atol=1e-12)


def test_what_never_changes_has_no_correlation() -> None:
    """A constant and an untold column are NaN against everything, themselves included."""
    found = rank_correlation(columns())
    assert np.isnan(found[4:]).all()
    assert np.isnan(found[:, 4:]).all()


def test_what_says_the_same_is_one_group() -> None:
    """Either sign counts; columns without a correlation stand alone; the order puts the group side by side."""
    correlation = rank_correlation(columns())
    found = group_redundant(correlation)
    assert found[0] == found[2]
    assert len(set(found)) == 5
    place = {int(column): index for index, column in enumerate(clustered_order(correlation))}
    assert sorted(place) == list(range(6))
    assert abs(place[0] - place[2]) == 1


def test_one_column_is_a_group_of_its_own() -> None:
    """A file of which one column is asked for has something to say too."""
    correlation = np.ones((1, 1))
    assert group_redundant(correlation).tolist() == [0]
    assert clustered_order(correlation).tolist() == [0]


def test_the_better_of_two_that_say_the_same_is_chosen() -> None:
    """In order of merit: the first of each group, whatever the others' names."""
    correlation = rank_correlation(columns())
    assert drop_redundant([2, 3, 0, 1], correlation) == [2, 3, 1]
    assert drop_redundant([0, 1, 2, 3], correlation) == [0, 1, 3]
