"""The feature set: names, units, meanings, windows, and the digest that ties a model to them.

The arithmetic is in ``kernel``; this module is what people and models read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from volspike.errors import UsageError

DEFINITION: Final = 1
"""Raised whenever a feature's arithmetic changes, so that no model meets values it was not trained on."""

DEFAULT_WINDOWS: Final = (30, 60, 300)
LONGEST_WINDOW_S: Final = 7200


@dataclass(frozen=True, slots=True)
class Family:
    """One quantity, taken over every window of the set."""

    name: str
    unit: str
    meaning: str


FAMILIES: Final = (
    Family("log_return", "1", "ln of the price over the price one window ago"),
    Family("realized_volatility", "1", "standard deviation (ddof 0) of the window's one-second log returns"),
    Family("price_velocity", "quote/s", "mean absolute one-second price change"),
    Family("spread_mean", "quote", "mean of best ask less best bid over the window's ticks"),
    Family("order_book_imbalance", "1", "mean of bid size / (bid size + ask size) over the window's ticks"),
    Family("trade_intensity", "ticks", "number of ticks in the window"),
    Family("volume_velocity", "base", "sum of trade sizes in the window; NaN where the feed tells no sizes"),
)

ROW_COLUMNS: Final = (
    "timestamp",
    "product_id",
    "price",
    "best_bid",
    "best_ask",
    "spread",
    "spread_bps",
    "time_since_last_trade",
    "gap_seconds",
    "session_id",
    "is_warm",
    "is_whole",
)
"""What stands in every feature row before the features themselves."""


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The features over ``windows`` (whole seconds, ascending).

    >>> FeatureSet((30, 60)).names[:3]
    ('log_return_30s', 'log_return_60s', 'realized_volatility_30s')
    """

    windows: tuple[int, ...] = DEFAULT_WINDOWS
    names: tuple[str, ...] = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        windows = self.windows
        if not windows or any(a >= b for a, b in pairwise(windows)) or windows[0] < 1:
            raise UsageError(f"windows must be ascending whole seconds from 1, were {list(windows)}")
        if windows[-1] > LONGEST_WINDOW_S:
            raise UsageError(f"the longest window may be {LONGEST_WINDOW_S} s, was {windows[-1]} s")
        names = tuple(f"{family.name}_{window}s" for family in FAMILIES for window in windows)
        described = [
            f"definition {DEFINITION}",
            *(f"{f.name} [{f.unit}]: {f.meaning}" for f in FAMILIES),
            *names,
        ]
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "digest", hashlib.sha256("\n".join(described).encode()).hexdigest()[:12])

    @classmethod
    def of(cls, windows: Iterable[int]) -> FeatureSet:
        """The set over these windows, in whatever order they were given."""
        return cls(tuple(sorted(set(windows))))

    @property
    def longest_window(self) -> int:
        """The longest window in seconds: how long a session lasts before its rows are warm."""
        return self.windows[-1]
