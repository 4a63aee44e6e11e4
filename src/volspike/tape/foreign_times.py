"""Times of any type → nanoseconds: whole numbers, decimals, floats, timestamps and texts, exactly.

The size of a number gives its unit: seconds, milliseconds, microseconds and nanoseconds differ in magnitude.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volspike.errors import MalformedTick
from volspike.market import SECOND_NS
from volspike.market.time import NOT_A_TIME, parse_times
from volspike.tape.fields import read_instant

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def column_times(column: pa.Array) -> tuple[Integers, set[str], bool]:
    """Times in ns, the units that occur, and whether the times have no zone."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        moments = column.cast(pa.timestamp("ns", tz=kind.tz)).cast(pa.int64())
        return np.asarray(moments.fill_null(0)).copy(), {"timestamp"}, kind.tz is None
    if pa.types.is_integer(kind):
        counts = column.cast(pa.int64(), safe=False)
        times, _, units = _in_nanoseconds(np.asarray(counts.fill_null(0) if counts.null_count else counts))
        return times, units, False
    if pa.types.is_decimal128(kind):
        whole = pc.floor(column).cast(pa.int64(), safe=False)
        count = np.asarray(whole.fill_null(0) if whole.null_count else whole)
        times, factor, units = _in_nanoseconds(count)
        low = np.frombuffer(column.buffers()[1], np.int64)[2 * column.offset :: 2][: len(column)]
        rest = low - count * SECOND_NS  # both modulo 2^64; the difference is below 10^9
        is_beyond = pc.greater(pc.abs(column), _LONGEST).fill_null(False).to_numpy(zero_copy_only=False)
        return np.where(is_beyond | (times == NOT_A_TIME), NOT_A_TIME, times + rest * factor // SECOND_NS), units, False
    if pa.types.is_floating(kind):
        return (*_float_times(np.asarray(column.to_numpy(zero_copy_only=False), np.float64)), False)
    return _text_times(column.cast(pa.string()).to_pylist())


_INT64_MAX: Final = 2**63 - 1
_LONGEST: Final = pa.scalar(Decimal(10**18 * 5), pa.decimal128(38, 9))
_UNITS: Final = ((10**11, SECOND_NS, "s"), (10**14, 1_000_000, "ms"), (10**17, 1_000, "µs"), (2**63, 1, "ns"))


def _in_nanoseconds(count: Integers) -> tuple[Integers, Integers | int, set[str]]:
    """Times in ns, the ns in the unit of each, which its size determines, and the names of the units that occur."""
    limits = [limit for limit, _, _ in _UNITS[:-1]]
    size = np.abs(count)
    bounds = np.searchsorted(limits, [size.min(initial=_INT64_MAX), size.max(initial=0)], side="right").tolist()
    if bounds[0] == bounds[1]:
        _, factor, unit = _UNITS[bounds[0]]
        times = count * factor
        if size.max() > _INT64_MAX // factor:
            times[size > _INT64_MAX // factor] = NOT_A_TIME
        return times, factor, {unit}
    places = np.searchsorted(limits, size, side="right")
    factors = np.array([factor for _, factor, _ in _UNITS], np.int64)[places]
    times = np.where(size > _INT64_MAX // factors, NOT_A_TIME, count * factors)
    return times, factors, {_UNITS[place][2] for place in np.unique(places).tolist()}


def _float_times(values: Floats) -> tuple[Integers, set[str]]:
    """Times from binary floats: seconds to the µs, which is all that they hold; other units to the ns."""
    usable = np.where(np.isfinite(values), values, 0.0)
    seconds, rest = np.divmod(usable, 1.0)
    whole, factor, units = _in_nanoseconds(np.where(np.abs(seconds) < 2.0**62, seconds, 0.0).astype(np.int64))
    step = np.where(np.asarray(factor) == SECOND_NS, 1_000, 1)
    fraction = np.round(rest * factor / step).astype(np.int64) * step
    return np.where(np.isfinite(values) & (whole != NOT_A_TIME), whole + fraction, NOT_A_TIME), units


def _text_times(texts: Sequence[str | None]) -> tuple[Integers, set[str], bool]:
    times = parse_times([text or "" for text in texts])
    units = {"text"} if (times != NOT_A_TIME).any() else set[str]()
    for place in np.flatnonzero(times == NOT_A_TIME).tolist():
        text = texts[place]
        try:
            times[place] = NOT_A_TIME if text is None else read_instant(text.strip(), "$")
        except (MalformedTick, OverflowError):
            continue
        units.add("number as text" if text is not None and text.strip()[-1:].isdigit() and "-" not in text else "text")
    sample = next((text for text in texts if text), "")
    return times, units, bool(units == {"text"}) and not _has_zone(sample)


def _has_zone(text: str) -> bool:
    clock = text.strip()[len("2025-10-04T") :]
    return clock.endswith(("Z", "z", "UTC")) or "+" in clock or "-" in clock
