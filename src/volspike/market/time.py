"""Time as the exchange and the tape write it: RFC 3339 text on one side, integer nanoseconds UTC on the other.

Inside volspike every instant is an ``int`` of nanoseconds since 1970-01-01T00:00:00Z; a float of seconds
could not hold the nine fractional digits that Coinbase sends.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

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


def nanoseconds(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 instant; text without a zone is UTC.

    Digits beyond the ninth are cut. A Go timestamp with its ``m=+…`` tail is read as well.

    Raises:
        ValueError: the text is no instant, or one that int64 cannot hold (before 1677 or after 2262).

    >>> nanoseconds("1970-01-01T00:00:01.5")
    1500000000
    >>> nanoseconds("1970-01-01T02:00:00+02:00")
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


def instant(ns: int) -> str:
    """RFC 3339 text in UTC of ``ns``, with as many fractional digits as it takes to read the same ``ns`` back.

    >>> instant(1_500_000_000)
    '1970-01-01T00:00:01.5Z'
    """
    seconds, fraction = divmod(ns, SECOND_NS)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction == 0:
        return whole + "Z"
    return f"{whole}.{fraction:09d}".rstrip("0") + "Z"
