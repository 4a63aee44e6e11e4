"""Time as the exchange and the tape write it: RFC 3339 text on one side, integer nanoseconds UTC on the other.

Inside volspike every instant is an ``int`` of nanoseconds since 1970-01-01T00:00:00Z; a float of seconds
could not hold the nine fractional digits that Coinbase sends.

Many timestamps at once: what ``market.parse_time`` reads one by one, a block's worth in one compiled pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volspike.compiled import compiled

SECOND_NS = 1_000_000_000

_SHAPE = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?"
    r"(?: ?(Z|z|UTC|[+-]\d\d:?\d\d(?: UTC)?))?(?: m=.*)?",
    re.ASCII,
)
_INT64 = range(-(2**63), 2**63)


@lru_cache(maxsize=4096)
def _minute_ns(day: str, minute: str) -> int:
    """The start of a minute; cached, since ticks come by the thousand in the same one."""
    return int(datetime.fromisoformat(f"{day}T{minute}:00+00:00").timestamp()) * SECOND_NS


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 instant; text without a zone is UTC.

    Digits beyond the ninth are cut. A Go timestamp with its ``m=+…`` tail is read as well.

    Raises:
        ValueError: the text is no instant, or one that int64 cannot hold (before 1677 or after 2262).

    >>> parse_time("1970-01-01T00:00:01.5")
    1500000000
    >>> parse_time("1970-01-01T02:00:00+02:00")
    0
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 instant: {text!r}")
    day, minute, second, fraction, zone = match.groups()
    ns = _minute_ns(day, minute)
    if second is not None:
        if second > "60":
            raise ValueError(f"not an RFC 3339 instant: {text!r}")
        ns += int(second) * SECOND_NS
    if fraction is not None:
        ns += int(fraction.ljust(9, "0"))
    if zone is not None and zone[0] in "+-":
        ns -= _offset_ns(zone)
    if ns not in _INT64:
        raise ValueError(f"instant beyond what int64 nanoseconds hold: {text!r}")
    return ns


def _offset_ns(zone: str) -> int:
    """How far ``+hh:mm`` or ``-hhmm``, followed by anything, stands ahead of UTC."""
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":")[:2])
    if hours > 23 or minutes > 59:
        raise ValueError(f"no such zone: {zone!r}")
    offset = (hours * 60 + minutes) * 60 * SECOND_NS
    return offset if zone[0] == "+" else -offset


def format_time(ns: int) -> str:
    """RFC 3339 text in UTC of ``ns``, with as many fractional digits as it takes to read the same ``ns`` back.

    >>> format_time(1_500_000_000)
    '1970-01-01T00:00:01.5Z'
    """
    seconds, fraction = divmod(ns, SECOND_NS)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction == 0:
        return whole + "Z"
    return f"{whole}.{fraction:09d}".rstrip("0") + "Z"


NOT_A_TIME = np.iinfo(np.int64).min
"""Stands where a text is no instant, or one that int64 nanoseconds cannot hold."""

_NEWLINE, _DOT, _COLON, _DASH, _PLUS = b"\n.:-+"


@compiled
def _two(text: Any, at: int) -> int:
    """The two digits at ``at``; negative where one is none."""
    tens, ones = text[at] - 48, text[at + 1] - 48
    if 0 <= tens <= 9 and 0 <= ones <= 9:
        return int(tens * 10 + ones)
    return -10_000


@compiled
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01, by the civil calendar; Hinnant, "chrono-Compatible Low-Level Date Algorithms"."""
    shifted = year - 1 if month <= 2 else year
    era = shifted // 400
    of_era = shifted - era * 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


@compiled
def _month_length(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in (4, 6, 9, 11) else 31


@compiled
def _second(text: Any, start: int) -> int:
    """Seconds since the epoch of ``YYYY-MM-DD[T ]HH:MM:SS`` at ``start``; ``NOT_A_TIME`` for any other shape."""
    if text[start + 4] != _DASH or text[start + 7] != _DASH or text[start + 10] not in (84, 32):
        return NOT_A_TIME
    if text[start + 13] != _COLON or text[start + 16] != _COLON:
        return NOT_A_TIME
    year = _two(text, start) * 100 + _two(text, start + 2)
    month, day = _two(text, start + 5), _two(text, start + 8)
    hour, minute, second = _two(text, start + 11), _two(text, start + 14), _two(text, start + 17)
    # Outside of these years int64 nanoseconds end; there the one-by-one reader decides.
    if not (1680 <= year <= 2260 and 1 <= month <= 12 and 1 <= day <= _month_length(year, month)):
        return NOT_A_TIME
    if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 60):
        return NOT_A_TIME
    return _days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second


@compiled
def _offset(text: Any, start: int, end: int) -> int:
    """Nanoseconds east of Greenwich of a zone (none, ``Z``, ``z``, ``±HH:MM``); ``NOT_A_TIME`` for any other."""
    if start == end or (start + 1 == end and text[start] in (90, 122)):
        return 0
    if end - start != 6 or text[start + 3] != _COLON or text[start] not in (_PLUS, _DASH):
        return NOT_A_TIME
    hours, minutes = _two(text, start + 1), _two(text, start + 4)
    if not (0 <= hours <= 14 and 0 <= minutes <= 59):  # beyond the earth's zones the one-by-one reader decides
        return NOT_A_TIME
    east = (hours * 60 + minutes) * 60 * SECOND_NS
    return east if text[start] == _PLUS else -east


@compiled
def _instant(text: Any, start: int, end: int) -> int:
    if end - start < 19:
        return NOT_A_TIME
    second = _second(text, start)
    if second == NOT_A_TIME:
        return NOT_A_TIME
    fraction, place, at = 0, 100_000_000, start + 19
    if at < end and text[at] == _DOT:
        at += 1
        digits = at
        while at < end and 48 <= text[at] <= 57:
            fraction += (text[at] - 48) * place
            place //= 10
            at += 1
        if at == digits:
            return NOT_A_TIME
    east = _offset(text, at, end)
    if east == NOT_A_TIME:
        return NOT_A_TIME
    return second * SECOND_NS + fraction - east


@compiled
def _instants(text: Any, out: Any) -> int:
    """Reads the newline-separated texts into ``out``; how many there are, also where ``out`` is shorter."""
    start, found = 0, 0
    for at in range(len(text) + 1):
        if at == len(text) or text[at] == _NEWLINE:
            if found < len(out):
                out[found] = _instant(text, start, at)
            found += 1
            start = at + 1
    return found


def parse_times(texts: Sequence[str]) -> NDArray[np.int64]:
    """Nanoseconds UTC of each text exactly as ``nanoseconds`` reads it; ``NOT_A_TIME`` where that one raises."""
    out = np.empty(len(texts), np.int64)
    if len(texts) == 0:
        return out
    joined = np.frombuffer("\n".join(texts).encode("utf-8", "surrogatepass"), np.uint8)
    if _instants(joined, out) != len(texts):  # a text holds a line end itself
        out[:] = NOT_A_TIME
    for row in np.flatnonzero(out == NOT_A_TIME).tolist():
        out[row] = _time_or_nat(texts[row])
    return out


def _time_or_nat(text: str) -> int:
    """Nanoseconds UTC of one text; ``NOT_A_TIME`` where it is no instant that int64 nanoseconds can hold."""
    try:
        ns = parse_time(text)
    except (ValueError, OverflowError):
        return int(NOT_A_TIME)
    return ns if -(2**63) < ns < 2**63 else int(NOT_A_TIME)
