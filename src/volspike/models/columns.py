"""The feature columns that a model takes unless others are asked for."""

from __future__ import annotations

from typing import Final

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
