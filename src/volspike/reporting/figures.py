"""Numbers as a reader meets them, the same in every document; a dash for what is undefined."""

from __future__ import annotations

from math import isnan

from volspike.evaluation import Interval

DASH = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many decimals.

    >>> number(0.12345), number(None)
    ('0.123', '–')
    """
    return DASH if value is None or isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, its sign always told.

    >>> signed(0.05)
    '+0.050'
    """
    return DASH if value is None or isnan(value) else f"{value:+.{digits}f}"


def between(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval; a dash where it has no ends.

    >>> between(0.1, 0.25, 2)
    '0.10 … 0.25'
    """
    if low is None or high is None or isnan(low) or isnan(high):
        return DASH
    return f"{low:.{digits}f} … {high:.{digits}f}"


def span(interval: Interval | None, digits: int = 3) -> str:
    """An interval of the bootstrap; a dash where none was drawn."""
    return DASH if interval is None else between(interval.low, interval.high, digits)


def share(value: float | None, digits: int = 1) -> str:
    """A share in percent.

    >>> share(0.1)
    '10.0 %'
    """
    return DASH if value is None or isnan(value) else f"{100 * value:.{digits}f} %"


def day_and_time(instant: str) -> str:
    """An RFC 3339 instant to the second.

    >>> day_and_time("2025-12-01T16:49:47.178994Z")
    '2025-12-01 16:49:47 UTC'
    """
    return f"{instant[:10]} {instant[11:19]} UTC"
