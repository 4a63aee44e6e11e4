"""Which columns a model takes, and what a linear one makes of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from volspike.features.schema import CATALOGUE

TEN_FEATURES: Final = (
    "log_return_300s",
    "spread_mean_300s",
    "trade_intensity_300s",
    "order_book_imbalance_300s",
    "spread_mean_60s",
    "order_book_imbalance_60s",
    "price_velocity_300s",
    "realized_volatility_300s",
    "order_book_imbalance_30s",
    "realized_volatility_60s",
)
"""The ten features that the earlier system's models were trained on, in its order."""

STILL_VOLATILITY: Final = 1e-6
"""Added to a volatility before its logarithm is taken: a minute in which no price moved has volatility 0.

A hundredth of a basis point a second: too little to matter to any minute in which prices did move."""

_STILL_RATIO: Final = 1e-2
"""The same for ratios, rates a second and basis points, of which a hundredth is next to nothing."""

_ONE_TICK: Final = 1.0

_VOLATILITY: Final = re.compile(r"[a-z]+_volatility_\d+s")
_LOG_VOLATILITY: Final = re.compile(r"(realized|ewma)_volatility_\d+s")
_LAG: Final = re.compile(r"lag_(return|ticks)_\d+s")


_OF_ITS_PRODUCT: Final = re.compile(r"(price_velocity|spread_mean|volume_velocity)_\d+s")
"""In the quote or base currency: a model of several products, or of years, would learn what is one product's price."""


def default_columns(names: Sequence[str]) -> tuple[str, ...]:
    """What is learned from unless columns are asked for: of a full or deep feature set whatever is free of the
    product's scale, else ``TEN_FEATURES``, whether ``names`` holds them or not.
    """
    if not any(name in CATALOGUE for name in names):
        return TEN_FEATURES
    return tuple(name for name in names if not _OF_ITS_PRODUCT.fullmatch(name))


def log_floor(name: str) -> float | None:
    """What is added to a column before a linear model takes its logarithm; None for one that it takes as it is.

    Logarithms are taken of what spreads over orders of magnitude and has a scale of its own: volatilities, ratios,
    rates, counts of ticks. Quantities in the quote or base currency have none that holds for every product.
    """
    if _VOLATILITY.fullmatch(name):
        return STILL_VOLATILITY
    if name.startswith("trade_intensity_"):
        return _ONE_TICK
    known = CATALOGUE.get(name)
    return _STILL_RATIO if known is not None and known.is_logarithmic else None


def log_floors(names: Sequence[str]) -> tuple[float | None, ...]:
    """``log_floor`` of each column."""
    return tuple(map(log_floor, names))


def without_lags(offered: Sequence[str]) -> tuple[str, ...]:
    """All but the second-by-second columns, which are for models that read a sequence."""
    return tuple(name for name in offered if not _LAG.fullmatch(name))


def plain_volatilities(names: Sequence[str]) -> tuple[str, ...]:
    """The realized and the exponentially weighted volatilities among ``names``."""
    return tuple(name for name in names if _LOG_VOLATILITY.fullmatch(name))
