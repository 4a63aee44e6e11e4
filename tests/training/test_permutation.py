"""Permutation of stretches of time: what moves, what stays, and when a drop is one."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from volspike.market import SECOND_NS
from volspike.training.importance import HeldOutSample, PrAucLoss, permutation_loss, permute_blocks


def unseen(rows: int = 6000, seed: int = 0) -> HeldOutSample:
    """Labels in runs of a minute that column 0 and its copy, column 1, tell; column 2 is noise."""
    random = np.random.default_rng(seed)
    regime = np.repeat(random.normal(size=rows // 60), 60)
    x = np.column_stack([regime, regime, random.normal(size=rows)])
    time = np.arange(rows, dtype=np.int64) * SECOND_NS
    return HeldOutSample(time, np.zeros(rows, np.int32), x, (regime > 1.0).astype(np.int8))


def either(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """A model that takes the greater of two columns that say the same."""
    return np.asarray(np.maximum(x[:, 0], x[:, 1]))


def test_stretches_change_places_whole() -> None:
    """Every row comes once, and within a stretch of ten minutes the order of rows stays."""
    rows = unseen()
    order = permute_blocks(rows.time, rows.product, np.random.default_rng(1))
    np.testing.assert_array_equal(np.sort(order), np.arange(6000))
    assert np.count_nonzero(np.diff(order) != 1) <= 9
    assert np.mean(order == np.arange(6000)) < 0.5


def test_products_keep_their_own_values() -> None:
    """A product's rows are given values of that product only."""
    rows = unseen()
    product = (np.arange(6000) % 3).astype(np.int32)
    order = permute_blocks(rows.time, product, np.random.default_rng(1))
    np.testing.assert_array_equal(product[order], product)


def test_what_says_the_same_is_missed_together() -> None:
    """Noise costs nothing, each of two copies something less than both at once, which cost nearly everything."""
    alone, noise, both = permutation_loss(either, unseen(), [np.array([0]), np.array([2]), np.array([0, 1])], 5, seed=3)
    assert (noise == 0.0).all()
    assert both.mean() > alone.mean() > 0.0
    assert both.mean() > 0.5


def test_values_are_left_as_they_were() -> None:
    """Moving columns changes a copy."""
    rows = unseen()
    before = rows.x.copy()
    permutation_loss(either, rows, [np.array([0, 1])], 2, seed=0)
    np.testing.assert_array_equal(rows.x, before)


@pytest.mark.parametrize(
    ("lost", "is_significant"),
    [
        ([[0.10], [0.11], [0.09], [0.10]], True),
        ([[0.30], [-0.10], [0.00], [0.05]], False),
        ([[0.10, 0.11, 0.09]], True),
        ([[0.10]], False),
    ],
)
def test_a_drop_is_real_where_folds_agree(lost: list[list[float]], is_significant: bool) -> None:
    """Folds that agree make a drop real, folds that do not make none, and one number says nothing of its spread."""
    assert PrAucLoss.of(np.array(lost)).is_significant is is_significant


def test_repeats_are_no_folds() -> None:
    """Within a fold repeats are averaged: a hundred of them make two folds that disagree no more alike."""
    few, many = (PrAucLoss.of(np.repeat([[0.2], [-0.1]], count, axis=1)) for count in (1, 100))
    assert (few.mean, few.spread) == pytest.approx((many.mean, many.spread))
    assert not many.is_significant
