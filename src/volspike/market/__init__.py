"""What a market tells: ticks, products and time. Knows of no I/O."""

from volspike.market.gap import Cause, Gap
from volspike.market.tick import UNTOLD_ID, Kind, Profile, Side, Tick, Ticks
from volspike.market.time import SECOND_NS, instant, nanoseconds

__all__ = [
    "SECOND_NS",
    "UNTOLD_ID",
    "Cause",
    "Gap",
    "Kind",
    "Profile",
    "Side",
    "Tick",
    "Ticks",
    "instant",
    "nanoseconds",
]
