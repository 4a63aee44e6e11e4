"""Rows whose labels overlap share their weight."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from volspike.training.folds import average_uniqueness


def plain(second: list[int], product: list[int], horizon: int) -> NDArray[np.float64]:
    """The definition, label by label and second by second."""
    uniqueness = []
    for s, p in zip(second, product, strict=True):
        terms = []
        for t in range(s + 1, s + horizon + 1):
            alive = sum(
                1 for other, of in zip(second, product, strict=True) if of == p and other + 1 <= t <= other + horizon
            )
            terms.append(1 / alive)
        uniqueness.append(sum(terms) / horizon)
    told: NDArray[np.float64] = np.array(uniqueness) / np.mean(uniqueness)
    return told


@given(
    st.lists(st.tuples(st.integers(0, 120), st.integers(0, 2)), min_size=1, max_size=40),
    st.integers(1, 20),
)
def test_uniqueness_is_that_of_the_definition(rows: list[tuple[int, int]], horizon: int) -> None:
    """However rows are strewn over seconds and products, each weight is the mean of 1/concurrency over its label."""
    rows = sorted(rows)
    second, product = [row[0] for row in rows], [row[1] for row in rows]
    found = average_uniqueness(np.array(second, np.int64), np.array(product, np.int32), horizon)
    np.testing.assert_allclose(found, plain(second, product, horizon), rtol=1e-12)


def test_a_busy_second_weighs_no_more_than_a_quiet_one() -> None:
    """A hundred ticks of one second weigh together what one tick of another, equally overlapped, weighs."""
    second = np.concatenate([np.full(100, 0), [1000]]).astype(np.int64)
    weight = average_uniqueness(second, np.zeros(101, np.int32))
    assert weight[:100].sum() == pytest.approx(weight[100])
    assert weight.mean() == pytest.approx(1.0)


def test_a_regular_grid_weighs_the_same_all_over() -> None:
    """With a row a second, rows away from the ends weigh alike, and those at the ends, less overlapped, more."""
    weight = average_uniqueness(np.arange(1000, dtype=np.int64), np.zeros(1000, np.int32))
    assert np.ptp(weight[60:-60]) < 1e-9
    assert weight[0] > 3 * weight[500]
