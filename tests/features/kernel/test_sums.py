"""The kernel's arithmetic compared with exact fractions and with many digits."""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volspike.compiled import compiled
from volspike.features.kernel import sums
from volspike.features.kernel.layout import RECORD_COLUMNS, RETURNS, SQUARES

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False)
FACTORS = st.one_of(st.floats(-1e3, -1e-3), st.floats(1e-3, 1e3))
CENTS = st.integers(1, 10_000_000)


@compiled
def add_all(records: np.ndarray, values: np.ndarray) -> None:
    for value in values:
        sums.add(records, 0, 0, value)


@compiled
def add_returns(records: np.ndarray, returns: np.ndarray) -> None:
    """Row k + 1 is the record after the k-th return."""
    for k in range(len(returns)):
        records[k + 1] = records[k]
        square, low = sums.exact_product(returns[k], returns[k])
        sums.add(records, k + 1, RETURNS, returns[k])
        sums.add(records, k + 1, SQUARES, square)
        records[k + 1, SQUARES + 1] += low


@compiled
def deviation(records: np.ndarray, row: int, n: int) -> float:
    return sums.deviation(records, row, records, row - n, n)


@compiled
def exact_product(a: float, b: float) -> tuple[float, float]:
    return sums.exact_product(a, b)


@compiled
def log_ratio(now: float, then: float) -> float:
    return sums.log_ratio(now, then)


@compiled
def ratio(part: float, total: float) -> float:
    return sums.ratio(part, total)


@given(st.lists(NUMBERS, min_size=1, max_size=50))
def test_a_pair_keeps_the_rounding_errors_of_a_sum(values: list[float]) -> None:
    """The pair's sum differs from the exact one by no more than the rounding errors of its low part."""
    records = np.zeros((1, 2))
    add_all(records, np.array(values))
    error = Fraction(records[0, 0]) + Fraction(records[0, 1]) - sum(map(Fraction, values))
    low_parts = len(values) * max(map(abs, values)) * len(values) * 2.0**-52
    assert abs(error) <= low_parts * len(values) * 2.0**-52


@given(FACTORS, FACTORS)
def test_a_product_is_exact(a: float, b: float) -> None:
    """The two parts of a product add up to it without any error."""
    high, low = exact_product(a, b)
    assert Fraction(high) + Fraction(low) == Fraction(a) * Fraction(b)


@given(CENTS.flatmap(lambda cents: st.tuples(st.just(cents), st.integers((cents + 1) // 2, 2 * cents))))
def test_log_ratio_has_all_digits(cents: tuple[int, int]) -> None:
    """ln(now / then) is right to two units in the last place, for prices one cent apart and up to a factor of two."""
    now, then = (value / 100 for value in cents)
    with localcontext(prec=60):
        exact = (Decimal(now) / Decimal(then)).ln()
    assert log_ratio(now, then) == pytest.approx(float(exact), rel=5e-16, abs=0.0)


@pytest.mark.parametrize("z", [0.0099999, 0.01, 0.0100001])
def test_log_ratio_is_continuous_where_its_method_changes(z: float) -> None:
    """Around z = 0.01, where the power series ends, both methods give the same value."""
    now, then = 1.0 + z, 1.0 - z
    with localcontext(prec=60):
        exact = (Decimal(now) / Decimal(then)).ln()
    assert log_ratio(now, then) == pytest.approx(float(exact), rel=5e-16)


@pytest.mark.parametrize("drift", [0.0, 1e-6, 1e-3])
def test_deviation_keeps_its_digits_after_many_returns(drift: float) -> None:
    """After a million returns, and in a steady trend, the deviation of the last thirty is right to 1e-9."""
    returns = np.random.default_rng(3).normal(drift, 1e-8, 1_000_000)
    records = np.zeros((len(returns) + 1, RECORD_COLUMNS))
    add_returns(records, returns)
    exact = [Fraction(value) for value in returns[-30:]]
    mean = sum(exact) / 30
    variance = sum((value - mean) ** 2 for value in exact) / 30
    assert deviation(records, len(returns), 30) == pytest.approx(float(variance) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("total", [0.0, -1.0, nan, 1e-200])
def test_a_ratio_to_nothing_is_nan(total: float) -> None:
    """A ratio is NaN if its total is 0, negative, unknown or at most 1e-200."""
    assert isnan(ratio(1.0, total))


def test_a_ratio_is_the_quotient_above_the_least_total() -> None:
    """The smallest total that is divided by is the first number above 1e-200."""
    total = np.nextafter(1e-200, 1.0)
    assert ratio(total, total) == 1.0
