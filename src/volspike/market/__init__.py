"""Ticks, products, gaps, times and modes; no I/O."""

from volspike.market.gap import Cause, Gap
from volspike.market.mode import Mode
from volspike.market.tick import MISSING_ID, Kind, Profile, Side, Tick, Ticks
from volspike.market.time import SECOND_NS, format_time, parse_time

__all__ = [
    "MISSING_ID",
    "SECOND_NS",
    "Cause",
    "Gap",
    "Kind",
    "Mode",
    "Profile",
    "Side",
    "Tick",
    "Ticks",
    "format_time",
    "parse_time",
]
