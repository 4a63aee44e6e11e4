"""The arrays of a training sample match."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from tests.models.samples import market_sample
from volspike.errors import UsageError
from volspike.models.detector import as_float32


def test_rows_are_taken_with_all_that_belongs_to_them() -> None:
    """By number or by mask, each row keeps its outcome, its volatility and its weight."""
    sample = dataclasses.replace(market_sample(50, 1), weight=np.linspace(0.5, 1.5, 50))
    part = sample.rows(np.array([40, 3]))
    for what in ("x", "y", "volatility", "tau", "weight"):
        np.testing.assert_array_equal(getattr(part, what), getattr(sample, what)[[40, 3]])
    assert (len(part), part.names) == (2, sample.names)
    assert len(sample.rows(sample.y == 1)) == sample.y.sum()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("x", np.zeros((50, 9))),
        ("x", np.zeros((49, 10))),
        ("volatility", np.ones(51)),
        ("tau", np.ones(51)),
        ("weight", np.ones(49)),
    ],
)
def test_lengths_that_do_not_fit_are_refused(field: str, value: Any) -> None:
    """A field of another length than the outcomes, or a matrix of another width than the names, is named."""
    with pytest.raises(UsageError, match=f"{field} of a sample must be"):
        dataclasses.replace(market_sample(50, 2), **{field: value})


@pytest.mark.parametrize(
    ("field", "value"), [("tau", np.zeros(50)), ("tau", np.full(50, np.nan)), ("weight", np.zeros(50))]
)
def test_weights_and_tau_are_above_zero(field: str, value: Any) -> None:
    """No row counts for nothing, and no volatility below 0 is a spike."""
    with pytest.raises(UsageError, match="above 0"):
        dataclasses.replace(market_sample(50, 3), **{field: value})


def test_single_precision_is_kept_as_it_is() -> None:
    """Rows in single precision are not copied; of double ones, infinities and numbers beyond float32 are missing."""
    single = np.array([[1.5, np.nan], [2.5, 3.5]], np.float32)
    assert as_float32(single) is single
    np.testing.assert_array_equal(as_float32(np.array([[1.5, np.inf], [1e300, 3.5]])), [[1.5, np.nan], [np.nan, 3.5]])
    infinite = np.array([[np.inf, 1.0]], np.float32)
    np.testing.assert_array_equal(as_float32(infinite), [[np.nan, 1.0]])
    assert np.isinf(infinite[0, 0])
