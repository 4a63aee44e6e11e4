"""What the columns of a feature row mean, for people: the source of docs/feature_spec.md."""

from __future__ import annotations

from typing import Final

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
