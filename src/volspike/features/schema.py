"""Names, units and windows of a feature set, and the digest that ties a model to them.

``FAMILIES`` are the seven families over the windows of a set. ``catalogue`` has the further features of the full and
the deep set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final

from volspike.errors import UsageError
from volspike.features.catalogue import (
    AT_TICK,
    BY_SECOND,
    CATALOGUE,
    LAGGED,
    LEADER,
    Feature,
    Supply,
    names_of,
)
from volspike.features.extra import ROW_FACTS, ExtraFeatures, load_extra
from volspike.market.product import canonical_product

DEFINITION: Final = 1
"""Raise it whenever a feature's arithmetic changes: models trained on the old values are then refused."""

_DIGEST_WORDINGS: Final = {
    "the feed has no sizes": "the feed tells no sizes",
    "of ticks with bid b": "of ticks telling bid b",
}
"""Texts that changed after the digests of definition 1 were computed, and how they enter the digest."""

DEFAULT_WINDOWS: Final = (30, 60, 300)
LONGEST_WINDOW_S: Final = 7200
SHORTEST_LONGEST_WINDOW_S: Final = 60
"""The least longest window of the full and the deep set, whose features cover a minute second by second."""


@dataclass(frozen=True, slots=True)
class Family:
    """One quantity, computed over every window of the set; ``seconds`` are those that a window of w seconds covers."""

    name: str
    unit: str
    meaning: str
    seconds: str
    needs: Supply = Supply.PRICES
    counts_ticks: bool = False


_RETURNS = "r(s−w) … r(s−1) at a tick in second s; r(k−w+1) … r(k) at the end of second k"
_TICKS = "ticks of seconds s−w+1 … s up to this one; of seconds k−w+1 … k"

FAMILIES: Final = (
    Family(
        "log_return",
        "1",
        "ln of the price over the price one window ago",
        "ln(price / P(s−w)) at a tick in second s; ln(P(k) / P(k−w)) at the end of second k",
    ),
    Family("realized_volatility", "1", "standard deviation (ddof 0) of the window's one-second log returns", _RETURNS),
    Family(
        "price_velocity",
        "quote/s",
        "mean absolute one-second price change",
        "|P(k) − P(k−1)| of the same seconds as the volatility",
    ),
    Family("spread_mean", "quote", "mean of best ask less best bid over the window's ticks", _TICKS, Supply.QUOTES),
    Family(
        "order_book_imbalance",
        "1",
        "mean of bid size / (bid size + ask size) over the window's ticks",
        _TICKS,
        Supply.QUOTES,
    ),
    Family("trade_intensity", "ticks", "number of ticks in the window", _TICKS, counts_ticks=True),
    Family(
        "volume_velocity",
        "base",
        "sum of trade sizes in the window; NaN where the feed has no sizes",
        _TICKS,
        Supply.TRADES,
    ),
)


ROW_MEANINGS: Final = {
    "timestamp": "the tick's time, or the end of the second; ns UTC",
    "product_id": "the product, such as BTC-USD",
    "price": "the tick's price, or the last one of the second; quote currency",
    "best_bid": "best bid of the newest tick; NaN if it has none",
    "best_ask": "best ask of the newest tick; NaN if it has none",
    "spread": "best ask less best bid; quote currency",
    "spread_bps": "spread over the mid price; basis points",
    "time_since_last_trade": "seconds since the session's last trade before this row; NaN before its first",
    "gap_seconds": "seconds since the product's last event before this row; NaN at its first",
    "session_id": "the Unix second in which the session began",
    "is_warm": "whether the longest window is warm",
    "is_whole": "whether the longest window has no known data loss and no silence of more than 10 s",
}
"""Column of a row before the features → its meaning, in the order of ``ROW_COLUMNS``."""

ROW_COLUMNS: Final = tuple(ROW_MEANINGS)
"""Columns of every feature row before the features."""


ROW_FLOATS: Final = ("price", "best_bid", "best_ask", "spread", "spread_bps", "time_since_last_trade", "gap_seconds")
"""The float columns of a row before its features, in the order in which the kernel writes them."""


class Scope(StrEnum):
    """How many features a set has; each scope includes the one before it."""

    CORE = "core"  # the seven families over the windows
    FULL = "full"  # and the features at a tick and by second
    DEEP = "deep"  # and the last minute second by second

    @classmethod
    def named(cls, text: str) -> Scope:
        """The scope of that name.

        Raises:
            UsageError: there is none.
        """
        if text not in list(cls):
            raise UsageError(f"unknown feature set {text!r}; choose one of {', '.join(cls)}, with +NAME for extra ones")
        return cls(text)


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """The families over ``windows`` (seconds, ascending), and the features that ``scope`` adds to them.

    ``leader`` is a product, possibly at another venue, whose volatility, returns and price are part of every product's
    rows; it needs the full or the deep scope. ``extras`` are features of other distributions, per second; their columns
    follow the ``built_in`` ones, whose values they do not change.

    >>> FeatureSet((30, 60)).names[:3]
    ('log_return_30s', 'log_return_60s', 'realized_volatility_30s')
    """

    windows: tuple[int, ...] = DEFAULT_WINDOWS
    scope: Scope = Scope.CORE
    leader: str | None = None
    extras: tuple[ExtraFeatures, ...] = ()
    built_in: tuple[str, ...] = field(init=False)
    names: tuple[str, ...] = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        _check_windows(self.windows)
        families = tuple(f"{family.name}_{window}s" for family in FAMILIES for window in self.windows)
        added = self._added()
        lines = [
            f"definition {DEFINITION}",
            *(f"{f.name} [{f.unit}]: {f.meaning}" for f in FAMILIES),
            *families,
            *(f"{f.name} [{f.unit}]: {f.formula}" for f in added),
            *([] if self.leader is None else [f"leader {self.leader}"]),
            *(f"extra {extra.name} {extra.digest}" for extra in self.extras),
        ]
        object.__setattr__(self, "built_in", (*families, *names_of(added)))
        object.__setattr__(self, "names", (*self.built_in, *(name for extra in self.extras for name in extra.names)))
        object.__setattr__(self, "digest", _digest("\n".join(lines)))
        self._check_extras()

    def _check_extras(self) -> None:
        names = [extra.name for extra in self.extras]
        if len(set(names)) != len(names):
            raise UsageError(f"extra features must have different names, got {', '.join(names)}")
        for extra in self.extras:
            known = (*ROW_FLOATS, *self.built_in, *ROW_FACTS)
            missing = [name for name in extra.inputs if name not in known]
            if missing:
                raise UsageError(
                    f"the extra features {extra.name} need {', '.join(missing)}, which the {self.scope} feature set "
                    f"over windows {list(self.windows)} does not have; choose a larger set or other windows"
                )

    def _added(self) -> tuple[Feature, ...]:
        """The features beyond the families, in the kernel's order."""
        if self.scope is Scope.CORE:
            if self.leader is not None:
                raise UsageError("a leader needs the full or the deep feature set, not the core set")
            return ()
        taken = [window for window in self.windows if f"realized_volatility_{window}s" in names_of(BY_SECOND)]
        if taken or self.longest_window < SHORTEST_LONGEST_WINDOW_S:
            raise UsageError(
                f"windows {list(self.windows)} do not fit the {self.scope} feature set: it needs one of at least "
                f"{SHORTEST_LONGEST_WINDOW_S} s and has volatilities of 10, 900 and 3600 s of its own; "
                "choose other windows, or the core feature set"
            )
        leader = () if self.leader is None else LEADER
        return (*AT_TICK, *BY_SECOND, *leader, *(LAGGED if self.scope is Scope.DEEP else ()))

    @classmethod
    def of(cls, windows: Iterable[int], scope: str = Scope.CORE, leader: str | None = None) -> FeatureSet:
        """The set over these windows, given in any order; a scope ``full+NAME`` adds the extra features ``NAME``.

        Raises:
            UsageError: unknown scope or extra features, windows that do not fit them, or a leader that is no product's
                name.
        """
        leader = None if leader is None else canonical_product(leader)
        base, *extras = scope.split("+")
        return cls(tuple(sorted(set(windows))), Scope.named(base), leader, tuple(map(load_extra, sorted(set(extras)))))

    @property
    def spec(self) -> str:
        """The scope and the extra features, as ``of`` takes them."""
        return "+".join((str(self.scope), *(extra.name for extra in self.extras)))

    @property
    def longest_window(self) -> int:
        """The longest window in seconds: a session's rows are warm after that many finished seconds and one."""
        return self.windows[-1]


_FAMILY: Final = {family.name: family for family in FAMILIES}


def describe_feature(name: str) -> Feature | Family | None:
    """The feature of the catalogue or the family that a column belongs to; None for another column, such as τ."""
    return CATALOGUE.get(name) or _FAMILY.get(name.rpartition("_")[0])


def _digest(text: str) -> str:
    for wording, digested in _DIGEST_WORDINGS.items():
        text = text.replace(wording, digested)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_windows(windows: tuple[int, ...]) -> None:
    if not windows or any(a >= b for a, b in pairwise(windows)) or windows[0] < 1:
        raise UsageError(f"windows must be ascending numbers of seconds, at least 1, got {list(windows)}")
    if windows[-1] > LONGEST_WINDOW_S:
        raise UsageError(f"the longest window can be {LONGEST_WINDOW_S} s, got {windows[-1]} s")
