"""What the columns of a feature row mean, for people: the source of docs/feature_spec.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from volspike.features.catalogue import Feature

_RETURNS = "r(s−w) … r(s−1) at a tick in second s; r(k−w+1) … r(k) at the end of second k"
_TICKS = "ticks of seconds s−w+1 … s up to this one; of seconds k−w+1 … k"

LOOKS: Final = {
    "log_return": "ln(price / P(s−w)) at a tick in second s; ln(P(k) / P(k−w)) at the end of second k",
    "realized_volatility": _RETURNS,
    "price_velocity": "|P(k) − P(k−1)| of the same seconds as the volatility",
    "spread_mean": _TICKS,
    "order_book_imbalance": _TICKS,
    "trade_intensity": _TICKS,
    "volume_velocity": _TICKS,
}
"""Family → the seconds that its window covers; w is the window in seconds."""

ROW_MEANINGS: Final = {
    "timestamp": "the tick's time, or the end of the second; ns UTC",
    "product_id": "the product, such as BTC-USD",
    "price": "the tick's price, or the last one of the second; quote currency",
    "best_bid": "best bid told by the newest tick; NaN if it told none",
    "best_ask": "best ask told by the newest tick; NaN if it told none",
    "spread": "best ask less best bid; quote currency",
    "spread_bps": "spread over the mid price; basis points",
    "time_since_last_trade": "seconds since the session's last trade before this row; NaN where none was told",
    "gap_seconds": "seconds since the product's last event before this row; NaN at its first",
    "session_id": "the Unix second in which the session began",
    "is_warm": "whether the longest window is warm",
    "is_whole": "whether no silence of more than 10 s lies in the longest window",
}
"""Column → what it is, in the order of ``ROW_COLUMNS``."""

SCOPE_MEANINGS: Final = {
    "core": "the seven families",
    "full": "and what is below, up to the clock, free of the product's scale",
    "deep": "and the last minute second by second",
}
"""Scope → what it adds to the one before it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the catalogue: features that differ in their span alone, which stands as w in name and formula."""

    name: str
    spans: tuple[str, ...]
    unit: str
    meaning: str
    formula: str
    source: str


def entries(features: Sequence[Feature]) -> Iterator[Entry]:
    """A group's features, those of one stem together; the source is the first that is named."""
    for _, group in groupby(features, key=lambda feature: re.sub(r"\d+", "", feature.name)):
        alike = list(group)
        source = next((feature.source for feature in alike if feature.source), "")
        spans = tuple(span for feature in alike for span in re.findall(r"\d+", feature.name))
        some = len(alike) // 2
        if len(alike) == 1:
            spans, span = (), "(?!)"
        else:
            span = rf"(?<!\d){spans[some]}(?!\d)"
        name = re.sub(span, "{w}", alike[some].name)
        meaning, formula = (re.sub(span, "w", text) for text in (alike[some].meaning, alike[some].formula))
        yield Entry(name, spans, alike[0].unit, meaning, formula, source)
