"""RFC 3339 text to integer nanoseconds UTC, and back.

Inside volspike every time is an ``int`` of nanoseconds since 1970-01-01T00:00:00Z: a float of seconds cannot hold the
nine fractional digits that Coinbase sends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

SECOND_NS: Final = 1_000_000_000
MILLISECOND_NS: Final = 1_000_000
NOT_A_TIME: Final = -(2**63)
"""Marks a text in an array of times that is no time; the bits of NumPy's ``NaT``."""

_SHAPE = re.compile(
    r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9})\d*)?)?"
    r"(?: ?(Z|z|UTC|[+-]\d\d:?\d\d(?: UTC)?))?(?: m=.*)?",
    re.ASCII,
)
_INT64 = range(-(2**63), 2**63)
_DAY_NS = 86_400 * SECOND_NS
_BLOCK = 2048
_LEAST_FOR_ARROW = 32
_LEAST_LENGTH = len("1970-01-01T00:00")
_MINUTES_COLON = len("1970-01-01T00")


def parse_time(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; a time without a zone is UTC.

    Digits after the ninth are dropped. Go's format with its ``m=+…`` suffix is accepted too.

    Raises:
        ValueError: the text is not a time, or one outside int64 nanoseconds (before 1677 or after 2262).

    >>> parse_time("1970-01-01T00:00:01.5")
    1500000000
    >>> parse_time("1970-01-01T02:00:00+02:00")
    0
    """
    match = _SHAPE.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    day, minute, second, fraction, zone = match.groups()
    ns = _minute_ns(day, minute)
    if second is not None:
        if second > "60":
            raise ValueError(f"not an RFC 3339 time: {text!r}")
        ns += int(second) * SECOND_NS
    if fraction is not None:
        ns += int(fraction.ljust(9, "0"))
    if zone is not None and zone[0] in "+-":
        ns -= _offset_ns(zone)
    if ns not in _INT64:
        raise ValueError(f"the time is outside 1677 to 2262, the range of int64 nanoseconds: {text!r}")
    return ns


def parse_times(texts: Sequence[str]) -> NDArray[np.int64]:
    """Nanoseconds of each text, exactly those of ``parse_time``; ``NOT_A_TIME`` where that raises.

    Arrow parses blocks in which every text has the usual shape; one unusual text sends its block to ``parse_time``.
    """
    times = np.empty(len(texts), np.int64)
    for start in range(0, len(texts), _BLOCK):
        block = texts[start : start + _BLOCK]
        parsed = _parse_with_arrow(block) if len(block) >= _LEAST_FOR_ARROW else None
        times[start : start + _BLOCK] = [_time_or_nat(text) for text in block] if parsed is None else parsed
    return times


def format_time(ns: int) -> str:
    """RFC 3339 text in UTC with the fewest fractional digits from which ``parse_time`` returns the same ``ns``.

    >>> format_time(1_500_000_000)
    '1970-01-01T00:00:01.5Z'
    """
    seconds, fraction = divmod(ns, SECOND_NS)
    whole = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    if fraction == 0:
        return whole + "Z"
    return f"{whole}.{fraction:09d}".rstrip("0") + "Z"


@lru_cache(maxsize=4096)
def _minute_ns(day: str, minute: str) -> int:
    """The start of a minute; cached, because thousands of ticks share one."""
    return int(datetime.fromisoformat(f"{day}T{minute}:00+00:00").timestamp()) * SECOND_NS


def _offset_ns(zone: str) -> int:
    """How far a zone (``+hh:mm`` or ``-hhmm``, followed by anything) is ahead of UTC."""
    hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":")[:2])
    if hours > 23 or minutes > 59:
        raise ValueError(f"not a time zone: {zone!r}")
    offset = (hours * 60 + minutes) * 60 * SECOND_NS
    return offset if zone[0] == "+" else -offset


def _time_or_nat(text: str) -> int:
    try:
        return parse_time(text)
    except ValueError:
        return NOT_A_TIME


def _parse_with_arrow(texts: Sequence[str]) -> NDArray[np.int64] | None:
    """Times of texts that all have a zone or all have none; None if ``parse_time`` has to decide about one of them.

    Arrow rejects whatever ``parse_time`` rejects, with three exceptions, which are checked here: times without minutes
    (``10``, ``10+01:00``), zones without minutes (``+01``) and offsets that lead out of the range of int64.
    """
    import pyarrow as pa  # noqa: PLC0415  slow to import, and only batches need it

    has_zone = texts[0].endswith("Z") or not {"+", "-"}.isdisjoint(texts[0][-6:])
    try:
        strings = pa.array(texts, pa.string())
        stamps = strings.cast(pa.timestamp("ns", "UTC" if has_zone else None))
    except (pa.ArrowInvalid, UnicodeEncodeError):
        return None
    times: NDArray[np.int64] = stamps.view(pa.int64()).to_numpy()
    _, offsets, characters = strings.buffers()
    ends = np.frombuffer(offsets, np.int32, len(texts) + 1)
    starts, ends = ends[:-1], ends[1:]
    if (ends - starts).min() < _LEAST_LENGTH or times.min() < _DAY_NS - 2**63 or times.max() > 2**63 - _DAY_NS:
        return None
    if has_zone:
        utf8 = np.frombuffer(characters, np.uint8)
        zone_hours_sign = utf8[ends - 3]
        if (
            (utf8[starts + _MINUTES_COLON] != ord(":")) | (zone_hours_sign == ord("+")) | (zone_hours_sign == ord("-"))
        ).any():
            return None
    return times
