"""What a model learns from: one row a second and product, evenly thinned where there are too many."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np

from volspike.datasets import Dataset
from volspike.features import Every
from volspike.training.folds import FitRows, feature_values


def test_the_last_tick_of_each_second_and_product_is_kept(market: Dataset) -> None:
    """Of the ticks of a second the last one stands for it, for each product apart."""
    seconds = [0, 0, 0, 1, 1, 3]
    ticks = replace(
        market,
        facts=msgspec.structs.replace(market.facts, every=Every.TICK),
        time=np.array(seconds, np.int64) * 1_000_000_000 + np.arange(6),
        product=np.array([0, 1, 0, 0, 0, 1], np.int32),
    )
    assert FitRows.select(ticks, np.arange(6)).rows.tolist() == [1, 2, 4, 5]
    assert FitRows.select(ticks, np.array([0, 3, 5])).rows.tolist() == [0, 3, 5]


def test_too_many_seconds_are_thinned_evenly(market: Dataset) -> None:
    """Every k-th second is taken, from one end to the other, and weights still have mean 1."""
    learned = FitRows.select(market, np.arange(9000), most=3100)
    assert set(np.diff(learned.rows).tolist()) == {3}
    assert len(learned.rows) == 3000
    assert abs(learned.weight.mean() - 1.0) < 1e-12


def test_only_the_columns_and_rows_asked_for_are_copied(market: Dataset) -> None:
    """Values come in the order of rows and names."""
    names = ("spread_mean_60s", "log_return_30s")
    rows = np.array([5, 3])
    assert np.array_equal(feature_values(market, rows, names), market.columns(names)[rows])
