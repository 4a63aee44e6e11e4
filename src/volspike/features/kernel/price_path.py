"""The price within a second, and its extremes over the last minutes.

``add_price`` takes each tick, ``collect_path`` each second that ends. The ``write_`` functions write the features made
of them: a family from ``at`` on, returning the column after it.
"""

from __future__ import annotations

from math import log, nan, sqrt
from typing import Final

from volspike.compiled import inlined, internal
from volspike.features.kernel.core import hour_row
from volspike.features.kernel.layout import (
    CELL_NS,
    CELL_PRICE,
    EW_CELL_SQUARES,
    EW_COUNT,
    EW_FOURTH,
    EW_SQUARE,
    EW_TICK_SQUARES,
    FIRST_SECOND,
    H10,
    H60,
    H300,
    H1800,
    HIGH,
    HIGH_PEAKS,
    HOUR_VOLATILITY,
    LAST_CHANGE,
    LOG_HALF_LIVES,
    LOG_MEANS,
    LOW,
    LOW_PEAKS,
    MASK_OF_300_S,
    MASK_OF_900_S,
    MINUTES,
    PRICE,
    RETURN_PEAKS,
    SECOND,
    SECOND_NS,
    TENS,
    TENS_MASK,
    UNFINISHED,
    VOLATILITY_RATIOS,
    Array,
    State,
)
from volspike.features.kernel.sums import LEAST_DIVISOR, log_ratio, ratio

_LOG_DECAYS: Final = tuple(0.5 ** (1.0 / half_life) for half_life in LOG_HALF_LIVES)
_PARKINSON: Final = 4.0 * log(2.0)  # E[ln²(high/low)] of a random walk with variance 1
_CLOSE: Final = 2.0 * log(2.0) - 1.0  # weight of the squared return in Garman and Klass's estimator


# Each tick


@inlined
def add_price(averages: Array, totals: Array, clocks: Array, p: int, now: int, price: float) -> None:
    """Adds a tick's price to the unfinished second, before it joins the totals and the intensities."""
    last = totals[p, PRICE]
    if last == 0.0:
        begin_path(averages, p, price)
        clocks[p, LAST_CHANGE] = now
        return
    if price == last:
        return
    if now // CELL_NS != clocks[p, LAST_CHANGE] // CELL_NS:
        _end_cell(averages, p, last)
    r = log_ratio(price, last)
    averages[p, UNFINISHED + EW_TICK_SQUARES] += r * r
    averages[p, HIGH] = max(averages[p, HIGH], price)
    averages[p, LOW] = min(averages[p, LOW], price)
    clocks[p, LAST_CHANGE] = now


@inlined
def _end_cell(averages: Array, p: int, price: float) -> None:
    """Ends the cell whose last price this is; cells without a change have no return."""
    if price != averages[p, CELL_PRICE]:
        r = log_ratio(price, averages[p, CELL_PRICE])
        averages[p, UNFINISHED + EW_CELL_SQUARES] += r * r
        averages[p, CELL_PRICE] = price


# Each second


@internal
def collect_path(averages: Array, clocks: Array, p: int, price: float, r: float) -> None:
    """Completes the quantities of the second that ends with this price and return; not for a session's first."""
    _end_cell(averages, p, price)
    square = r * r
    averages[p, UNFINISHED + EW_FOURTH] = square * square
    second, first = clocks[p, SECOND], clocks[p, FIRST_SECOND] + 1
    _roll_peaks(averages, p, RETURN_PEAKS, MASK_OF_900_S, second, first, abs(r))
    _roll_peaks(averages, p, HIGH_PEAKS, MASK_OF_300_S, second, first, averages[p, HIGH])
    _roll_peaks(averages, p, LOW_PEAKS, MASK_OF_300_S, second, first, -averages[p, LOW])


@inlined
def begin_path(averages: Array, p: int, price: float) -> None:
    """Begins a second at the price of the one before."""
    averages[p, HIGH] = price
    averages[p, LOW] = price
    averages[p, CELL_PRICE] = price


@internal
def _roll_peaks(averages: Array, p: int, peaks: int, mask: int, second: int, first: int, value: float) -> None:
    """Adds a second's value to the rings of a quantity; ``first`` is the first second that has a value."""
    tens = peaks + TENS
    averages[p, peaks + (second & (TENS - 1))] = value
    averages[p, tens + (second & TENS_MASK)] = _highest(averages, p, peaks, TENS - 1, 1, 10, second, first)
    averages[p, peaks + MINUTES + (second & mask)] = _highest(averages, p, tens, TENS_MASK, 10, 6, second, first)


@inlined
def _highest(averages: Array, p: int, ring: int, mask: int, span: int, spans: int, second: int, first: int) -> float:
    """The highest of a ring's last ``spans`` spans up to ``second``, or of those that end with ``first`` or later."""
    highest: float = averages[p, ring + (second & mask)]
    for j in range(1, min(spans, (second - first) // span + 1)):
        highest = max(highest, averages[p, ring + ((second - j * span) & mask)])
    return highest


@inlined
def _peak(averages: Array, p: int, peaks: int, mask: int, window: int, second: int, first: int) -> float:
    """The highest value of a quantity in the last 10 s, or in the last minutes."""
    if window == 10:
        return _highest(averages, p, peaks + TENS, TENS_MASK, 10, 1, second, first)
    return _highest(averages, p, peaks + MINUTES, mask, 60, window // 60, second, first)


@internal
def update_log_means(averages: Array, p: int) -> None:
    """Moves mean and variance of ln E_10[r²] by the second that ends, once the price has changed (West, 1979)."""
    square = averages[p, H10 * EW_COUNT + EW_SQUARE]
    if square <= LEAST_DIVISOR:
        return
    logarithm = log(square)
    for h in range(len(LOG_HALF_LIVES)):
        at = LOG_MEANS + 3 * h
        weight = averages[p, at + 2] * _LOG_DECAYS[h] + 1.0
        new = 1.0 / weight
        step = logarithm - averages[p, at]
        averages[p, at] += new * step
        averages[p, at + 1] = (1.0 - new) * (averages[p, at + 1] + new * step * step)
        averages[p, at + 2] = weight


# Features


@inlined
def _mean(averages: Array, p: int, half_life: int, quantity: int) -> float:
    mean: float = averages[p, half_life * EW_COUNT + quantity]
    return mean


@inlined
def _root_ratio(averages: Array, p: int, half_life: int, part: int, base: int, total: int) -> float:
    """Root of a quantity's mean over that of another with its own half-life."""
    return sqrt(ratio(_mean(averages, p, half_life, part), _mean(averages, p, base, total)))


@internal
def _write_hour_volatility_ratio(averages: Array, p: int, at: int, quantity: int) -> int:
    """A kind of volatility relative to that of the hour."""
    for i, h in enumerate((H10, H60, H300)):
        averages[p, at + i] = _root_ratio(averages, p, h, quantity, H1800, quantity)
    return at + 3


@internal
def _write_signature(averages: Array, p: int, at: int, quantity: int) -> int:
    """A kind of volatility relative to the one-second volatility of the same time."""
    for i, h in enumerate((H60, H300)):
        averages[p, at + i] = _root_ratio(averages, p, h, quantity, h, EW_SQUARE)
    return at + 2


@internal
def _write_kurtosis(averages: Array, p: int, at: int) -> int:
    for i, h in enumerate((H60, H300, H1800)):
        square = _mean(averages, p, h, EW_SQUARE)
        averages[p, at + i] = ratio(_mean(averages, p, h, EW_FOURTH), square * square)
    return at + 3


@internal
def _write_largest_return(averages: Array, p: int, second: int, first: int, at: int) -> int:
    for i, window in enumerate((60, 300, 900)):
        largest = _peak(averages, p, RETURN_PEAKS, MASK_OF_900_S, window, second, first)
        averages[p, at + i] = ratio(largest, averages[p, HOUR_VOLATILITY])
    return at + 3


@internal
def _write_ranges(averages: Array, hours: Array, p: int, second: int, first: int, at: int) -> int:
    """Four features of the range over each of 10, 60 and 300 s: two volatilities, their noise and the place in it."""
    price, of_hour = hours[hour_row(p, second), PRICE], averages[p, HOUR_VOLATILITY]
    for i, window in enumerate((10, 60, 300)):
        n = min(window, second - first + 1)
        high = _peak(averages, p, HIGH_PEAKS, MASK_OF_300_S, window, second, first)
        low = -_peak(averages, p, LOW_PEAKS, MASK_OF_300_S, window, second, first)
        span, change = log_ratio(high, low), log_ratio(price, hours[hour_row(p, second - n), PRICE])
        square = span * span
        parkinson = sqrt(square / (_PARKINSON * n))
        averages[p, at + i] = ratio(parkinson, of_hour)
        averages[p, at + 3 + i] = ratio(sqrt((0.5 * square - _CLOSE * (change * change)) / n), of_hour)
        averages[p, at + 6 + i] = ratio(averages[p, at + i], averages[p, VOLATILITY_RATIOS[i]])
        averages[p, at + 9 + i] = ratio(abs(log_ratio(price, high) + log_ratio(price, low)), span)
    return at + 12


@internal
def _write_volatility_of_volatility(averages: Array, p: int, at: int) -> int:
    for i in range(len(LOG_HALF_LIVES)):
        column = LOG_MEANS + 3 * i
        averages[p, at + i] = sqrt(averages[p, column + 1]) if averages[p, column + 2] > 0.0 else nan
    return at + 3


@internal
def write_path(state: State, p: int, at: int) -> int:
    """Computes the features of the price path as of the newest finished second."""
    averages, hours, clocks = state.averages, state.hours, state.clocks
    second, first = clocks[p, SECOND] - 1, clocks[p, FIRST_SECOND] + 1
    at = _write_ranges(averages, hours, p, second, first, at)
    at = _write_largest_return(averages, p, second, first, at)
    at = _write_kurtosis(averages, p, at)
    at = _write_volatility_of_volatility(averages, p, at)
    at = _write_hour_volatility_ratio(averages, p, at, EW_CELL_SQUARES)
    at = _write_signature(averages, p, at, EW_CELL_SQUARES)
    at = _write_hour_volatility_ratio(averages, p, at, EW_TICK_SQUARES)
    at = _write_signature(averages, p, at, EW_TICK_SQUARES)
    averages[p, at] = ((second + 1) * SECOND_NS - clocks[p, LAST_CHANGE]) / 1e9
    return at + 1
