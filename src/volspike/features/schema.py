"""The feature set: names, units, meanings, windows, and the digest that ties a model to them.

The arithmetic is in ``kernel``; this module is what people and models read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final

from volspike.errors import UsageError
from volspike.features.catalogue import AT_TICK, BY_SECOND, LAGGED, LEADER, LEAST_LONGEST_WINDOW_S, Feature, names_of

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


class Scope(StrEnum):
    """How many features a set has, each scope with those of the one before it."""

    CORE = "core"  # the seven families over the windows
    FULL = "full"  # and those of ``catalogue``
    DEEP = "deep"  # and the last minute second by second

    @classmethod
    def named(cls, text: str) -> Scope:
        """The scope of that name.

        Raises:
            UsageError: there is none.
        """
        if text not in list(cls):
            raise UsageError(f"no feature set {text!r}; there are {', '.join(cls)}")
        return cls(text)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The families over ``windows`` (whole seconds, ascending), and what ``scope`` adds to them.

    ``leader`` is a product whose volatility stands in every product's rows, from the full scope on.

    >>> FeatureSet((30, 60)).names[:3]
    ('log_return_30s', 'log_return_60s', 'realized_volatility_30s')
    """

    windows: tuple[int, ...] = DEFAULT_WINDOWS
    scope: Scope = Scope.CORE
    leader: str | None = None
    names: tuple[str, ...] = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        _check_windows(self.windows)
        families = tuple(f"{family.name}_{window}s" for family in FAMILIES for window in self.windows)
        added = self._added()
        names = (*families, *names_of(added))
        described = [
            f"definition {DEFINITION}",
            *(f"{f.name} [{f.unit}]: {f.meaning}" for f in FAMILIES),
            *families,
            *(f"{f.name} [{f.unit}]: {f.formula}" for f in added),
            *([] if self.leader is None else [f"leader {self.leader}"]),
        ]
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "digest", hashlib.sha256("\n".join(described).encode()).hexdigest()[:12])

    def _added(self) -> tuple[Feature, ...]:
        """The features beyond the families, in the kernel's order."""
        if self.scope is Scope.CORE:
            if self.leader is not None:
                raise UsageError("a leader's volatility belongs to the full feature set, not to the core")
            return ()
        twice = [window for window in self.windows if f"realized_volatility_{window}s" in names_of(BY_SECOND)]
        if twice or self.longest_window < LEAST_LONGEST_WINDOW_S:
            raise UsageError(
                f"windows were {list(self.windows)}: the full feature set needs one of at least "
                f"{LEAST_LONGEST_WINDOW_S} s and has volatilities of 10, 900 and 3600 s of its own; "
                "choose others, or the core feature set"
            )
        leader = () if self.leader is None else LEADER
        return (*AT_TICK, *BY_SECOND, *leader, *(LAGGED if self.scope is Scope.DEEP else ()))

    @classmethod
    def of(cls, windows: Iterable[int], scope: str = Scope.CORE, leader: str | None = None) -> FeatureSet:
        """The set over these windows, in whatever order they were given.

        Raises:
            UsageError: no such scope, or windows that it cannot have.
        """
        return cls(tuple(sorted(set(windows))), Scope.named(scope), leader)

    @property
    def longest_window(self) -> int:
        """The longest window in seconds: how long a session lasts before its rows are warm."""
        return self.windows[-1]


def _check_windows(windows: tuple[int, ...]) -> None:
    if not windows or any(a >= b for a, b in pairwise(windows)) or windows[0] < 1:
        raise UsageError(f"windows must be ascending whole seconds from 1, were {list(windows)}")
    if windows[-1] > LONGEST_WINDOW_S:
        raise UsageError(f"the longest window may be {LONGEST_WINDOW_S} s, was {windows[-1]} s")


CATALOGUE: Final[Mapping[str, Feature]] = {
    feature.name: feature for feature in (*AT_TICK, *BY_SECOND, *LEADER, *LAGGED)
}
"""Every feature beyond the families, by name."""
