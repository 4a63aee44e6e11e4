"""Predicted against observed frequencies."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.markets import SECOND
from volspike.evaluation import Reliability, reliability


def told(probability: list[float], y: list[int], bins: int = 10) -> Reliability:
    time = np.arange(len(y), dtype=np.int64) * SECOND
    return reliability(np.array(y, np.int8), np.array(probability, np.float64), time, bins=bins, resamples=20)


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 1.0]), st.integers(0, 1)), max_size=60), st.integers(1, 12)
)
def test_bins_hold_every_row_once(rows: list[tuple[float, int]], bins: int) -> None:
    """Bins do not overlap, ascend, and their rows, predicted and observed spikes add up to the totals."""
    probability, y = [p for p, _ in rows], [y for _, y in rows]
    found = told(probability, y, bins)
    assert len(found.bins) <= bins
    assert sum(part.rows for part in found.bins) == len(rows)
    assert sum(part.rows * part.mean_probability for part in found.bins) == pytest.approx(sum(probability))
    assert sum(part.rows * part.observed_rate for part in found.bins) == pytest.approx(sum(y))
    assert all(before.high < after.low for before, after in zip(found.bins, found.bins[1:], strict=False))


def test_bins_are_of_equally_many_rows() -> None:
    """Where probabilities differ, ten bins hold a tenth each."""
    found = told(list(np.random.default_rng(0).random(1000)), [0] * 1000)
    assert [part.rows for part in found.bins] == [100] * 10


def test_expected_error_by_hand() -> None:
    """Two bins: 0.2 predicted and half observed, 0.8 predicted and all observed."""
    found = told([0.2, 0.2, 0.8, 0.8], [0, 1, 1, 1], bins=2)
    assert found.expected_error == pytest.approx((0.3 + 0.2) / 2)


def test_a_calibrated_model_lies_within_its_intervals() -> None:
    """If spikes occur as often as predicted, nearly all bins' intervals contain the probability."""
    random = np.random.default_rng(0)
    probability = random.random(20_000)
    y = (random.random(20_000) < probability).astype(np.int8)
    found = reliability(y, probability, np.arange(20_000) * SECOND, resamples=200)
    assert sum(part.interval.low <= part.mean_probability <= part.interval.high for part in found.bins) >= 8
    assert found.expected_error < 0.02
    assert found.expected_error_interval.low <= found.expected_error_interval.high < 0.04


def test_bins_have_a_ratio_and_their_events() -> None:
    """Observed over predicted rate, and the separate events among a bin's spikes, by hand."""
    probability, y = np.repeat([0.1, 0.4], 1000), np.zeros(2000, np.int8)
    y[:50], y[1000:1200], y[1700:1900] = 1, 1, 1
    found = told(probability.tolist(), y.tolist(), bins=2)
    assert [part.ratio for part in found.bins] == [pytest.approx(0.5), pytest.approx(1.0)]
    assert [part.spike_events for part in found.bins] == [1, 2]
    assert isnan(told([0.0] * 4, [0, 0, 0, 1]).bins[0].ratio)


def test_interval_of_the_ratio_holds_the_truth() -> None:
    """If spikes occur twice as often as predicted, the intervals of nearly all bins contain 2."""
    random = np.random.default_rng(0)
    probability = random.uniform(0.1, 0.4, 20_000)
    y = (random.random(20_000) < 2.0 * probability).astype(np.int8)
    found = reliability(y, probability, np.arange(20_000) * SECOND, resamples=200)
    assert sum(part.ratio_interval.low <= 2.0 <= part.ratio_interval.high for part in found.bins) >= 8


def test_nothing_to_tell() -> None:
    """No rows have no bins and no error; too little time has no interval."""
    assert isnan(told([], []).expected_error)
    assert isnan(told([0.5] * 10, [0, 1] * 5).bins[0].interval.low)
