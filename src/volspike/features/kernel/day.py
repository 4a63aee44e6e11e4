"""The memory of a day: Σr² in bins of five minutes, which outlives sessions, and the features made of it.

A session's last second is not part of it: it ends only with the next session, and not in every kind of row. The kernel
remembers the day for every feature set, so that a replay in parts can begin each part with a session.
"""

from __future__ import annotations

from math import nan, sqrt
from typing import Final

from volspike.compiled import inlined, internal
from volspike.features.kernel.layout import (
    BIN_COLUMNS,
    BIN_MASK,
    BIN_S,
    BINS,
    BINS_PER_DAY,
    DAY_SECONDS,
    DAY_SQUARES,
    EW_COUNT,
    EW_SQUARE,
    H1800,
    Array,
)
from volspike.features.kernel.sums import ratio

_LEAST_DAY_S: Final = 3600
"""Seconds that must be known of the last day."""

_LEAST_YESTERDAY_S: Final = 300
"""Seconds that must be known of the twenty minutes of yesterday."""


@inlined
def _bin_at(number: int) -> int:
    """First column of a bin."""
    return BINS + BIN_COLUMNS * (number & BIN_MASK)


@inlined
def remember_second(latest: Array, p: int, second: int, r: float) -> None:
    """Adds a finished second and its return to the memory."""
    number = second // BIN_S
    at = _bin_at(number)
    if latest[p, at] != number:
        _begin_bin(latest, p, number)
    latest[p, at + 1] += 1.0
    latest[p, at + 2] += r * r


@internal
def _begin_bin(latest: Array, p: int, number: int) -> None:
    """Sums the bins of the last day, and begins the next."""
    seconds, squares = 0.0, 0.0
    for earlier in range(number - BINS_PER_DAY, number):
        at = _bin_at(earlier)
        if latest[p, at] == earlier:
            seconds += latest[p, at + 1]
            squares += latest[p, at + 2]
    latest[p, DAY_SECONDS] = seconds
    latest[p, DAY_SQUARES] = squares
    at = _bin_at(number)
    latest[p, at] = number
    latest[p, at + 1] = 0.0
    latest[p, at + 2] = 0.0


@inlined
def _yesterday(latest: Array, p: int, second: int) -> float:
    """Mean r² of twenty minutes a day ago: the bin of ``second``, one before and two after it; NaN if not known."""
    middle = second // BIN_S - BINS_PER_DAY
    seconds, squares = 0.0, 0.0
    for number in range(middle - 1, middle + 3):
        at = _bin_at(number)
        if latest[p, at] == number:
            seconds += latest[p, at + 1]
            squares += latest[p, at + 2]
    return squares / seconds if seconds >= _LEAST_YESTERDAY_S else nan


@internal
def write_day(averages: Array, latest: Array, p: int, second: int, at: int) -> int:
    """Writes the hour's volatility over the day's, and yesterday's at this time over the day's and the hour's."""
    of_hour = averages[p, H1800 * EW_COUNT + EW_SQUARE]
    seconds = latest[p, DAY_SECONDS]
    of_day = latest[p, DAY_SQUARES] / seconds if seconds >= _LEAST_DAY_S else nan
    yesterday = _yesterday(latest, p, second)
    averages[p, at] = sqrt(ratio(of_hour, of_day))
    averages[p, at + 1] = sqrt(ratio(yesterday, of_day))
    averages[p, at + 2] = sqrt(ratio(yesterday, of_hour))
    return at + 3
