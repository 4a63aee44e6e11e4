"""Sums that do not drift, and the deviation of returns computed from them.

A running total is kept as an unevaluated pair (high, low) by Knuth's two-sum. A plain running sum loses digits: after
10^8 ticks the difference of two totals would be noise.

Sources: T. J. Dekker, "A floating-point technique for extending the available precision", Numer. Math. 18 (1971);
D. E. Knuth, The Art of Computer Programming, vol. 2, 4.2.2.
"""

from __future__ import annotations

from math import log1p, nan, sqrt
from typing import Final

from volspike.compiled import inlined, internal
from volspike.features.kernel.layout import RETURNS, SQUARES, Array

_SPLIT: Final = 134217729.0  # 2^27 + 1
LEAST_DIVISOR: Final = 1e-200  # a mean that decayed below it has too few digits left


@inlined
def add(records: Array, row: int, column: int, value: float) -> None:
    """Adds to the pair at ``column`` without losing the rounding error (Knuth's two-sum)."""
    high = records[row, column]
    total = high + value
    shifted = total - high
    records[row, column] = total
    records[row, column + 1] += (high - (total - shifted)) + (value - shifted)


@internal
def exact_product(a: float, b: float) -> tuple[float, float]:
    """a·b as a pair (Dekker's product)."""
    p = a * b
    c = _SPLIT * a
    a_high = c - (c - a)
    a_low = a - a_high
    c = _SPLIT * b
    b_high = c - (c - b)
    b_low = b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@inlined
def difference(now: Array, i: int, then: Array, j: int, column: int) -> float:
    """The difference of the pairs at ``column`` of two records."""
    rounded: float = (now[i, column] - then[j, column]) + (now[i, column + 1] - then[j, column + 1])
    return rounded


@internal
def pair_difference(now: Array, i: int, then: Array, j: int, column: int) -> tuple[float, float]:
    """The difference of the pairs at ``column`` of two records, as a pair."""
    a, b = now[i, column], -then[j, column]
    d = a + b
    shifted = d - a
    error = (a - (d - shifted)) + (b - shifted)
    return d, error + (now[i, column + 1] - then[j, column + 1])


@internal
def deviation(now: Array, i: int, then: Array, j: int, n: int) -> float:
    """Standard deviation (ddof 0) of the n returns between two records: √(Σr²/n − (Σr/n)²), in pairs throughout.

    In plain doubles the difference of the two terms would keep few digits in a steady trend.
    """
    s, s_low = pair_difference(now, i, then, j, RETURNS)
    q, q_low = pair_difference(now, i, then, j, SQUARES)
    p, p_low = exact_product(s, s)
    p_low += 2.0 * s * s_low
    m = p / n
    back, back_low = exact_product(m, float(n))
    m_low = ((p - back) - back_low + p_low) / n
    d = q - m
    shifted = d - q
    error = (q - (d - shifted)) + (-m - shifted)
    variance = (d + (error + (q_low - m_low))) / n
    root: float = sqrt(max(variance, 0.0))
    return root


@inlined
def log_ratio(now: float, then: float) -> float:
    """ln(now / then) to the last digit or two, also for prices that differ in their last digit alone.

    The quotient of two close prices has lost the digits that matter, so it is not formed: ln(a/b) = 2 artanh(z) with
    z = (a − b)/(a + b), by its power series where that is short, else through log1p.
    """
    z = (now - then) / (now + then)
    if abs(z) > 0.01:
        return log1p((now - then) / then)
    q = z * z
    return 2.0 * z * (1.0 + q * (1.0 / 3.0 + q * (1.0 / 5.0 + q * (1.0 / 7.0 + q * (1.0 / 9.0 + q / 11.0)))))


@inlined
def ratio(part: float, total: float) -> float:
    """Their quotient; NaN where the total is 0, negative, NaN or too small to divide by."""
    return part / total if total > LEAST_DIVISOR else nan
