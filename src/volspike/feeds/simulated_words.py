"""How the simulated exchange spells what both protocols tell: instants, prices, sizes, and a product's day."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from volspike.market import SECOND_NS, UNTOLD_ID, Tick

PAST_TRADES = 100
_MADE_UP_VOLUME = 5000.0


class Outgoing(NamedTuple):
    """One frame that is to be sent; ``sequence`` is the number that it carries, ``UNTOLD_ID`` without one."""

    sequence: int
    data: bytes


class Day:
    """What a product did since the simulation began; the day and the month that tickers tell are made of it."""

    def __init__(self) -> None:
        self.open = self.low = self.high = 0.0
        self.volume = _MADE_UP_VOLUME
        self.trades: deque[Tick] = deque(maxlen=PAST_TRADES)

    def take(self, trade: Tick) -> None:
        """Counts one more trade."""
        if not self.trades:
            self.open = self.low = self.high = trade.price
        self.low = min(self.low, trade.price)
        self.high = max(self.high, trade.price)
        self.volume += trade.last_size
        self.trades.append(trade)

    @property
    def last(self) -> Tick | None:
        """The newest trade, if there was any."""
        return self.trades[-1] if self.trades else None

    @property
    def last_trade_id(self) -> int:
        """Its number."""
        return self.trades[-1].trade_id if self.trades else UNTOLD_ID

    @property
    def last_sequence(self) -> int:
        """Its sequence number."""
        return self.trades[-1].sequence if self.trades else UNTOLD_ID


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def micros(ns: int) -> str:
    """RFC 3339 with six digits, as trades are timed: ``2022-10-19T23:28:22.061769Z``."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return f"{_second(seconds)}.{fraction // 1000:06d}Z"


def nanos(ns: int) -> str:
    """RFC 3339 with up to nine digits, trailing zeros trimmed, as Advanced Trade stamps its envelopes."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return f"{_second(seconds)}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def go_time(ns: int, uptime_s: float) -> str:
    """A Go timestamp with its monotonic tail, as Advanced Trade's heartbeats carry it."""
    return f"{nanos(ns)[:-1].replace('T', ' ')} +0000 UTC m=+{uptime_s:.9f}"


def price_text(price: float) -> str:
    """Two digits, as Exchange writes prices in dollars."""
    return f"{price:.2f}"


def trimmed(price: float) -> str:
    """Without trailing zeros, as Advanced Trade writes them."""
    return f"{price:.2f}".rstrip("0").rstrip(".")


def size_text(size: float) -> str:
    """Eight digits."""
    return f"{size:.8f}"
