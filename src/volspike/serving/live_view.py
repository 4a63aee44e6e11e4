"""What a watcher sees of each product: a quarter of an hour a second apart, alerts, spikes, and the newest row."""

from __future__ import annotations

from collections import deque
from math import isfinite
from typing import Any, Final

from volspike.monitoring.delayed import DelayedLabel
from volspike.monitoring.episodes import Episode
from volspike.serving.scoring import LiveScorer, ScoredRow

MS_NS: Final = 1_000_000
SECOND_MS: Final = 1000
POINTS: Final = 15 * 60
POINTS_WITH_FEATURES: Final = 5 * 60
REMEMBERED: Final = 50


def known(value: float) -> float | None:
    """A number for JSON: what is not known is null."""
    return value if isfinite(value) else None


class ProductView:
    """One product as a page draws it; bounded, whatever the rate."""

    def __init__(self, product: str) -> None:
        self.product = product
        self.points: deque[dict[str, Any]] = deque(maxlen=POINTS)
        self.alerts: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.spikes: deque[dict[str, Any]] = deque(maxlen=POINTS)  # one a second while it lasts
        self.unpublished: dict[str, Any] | None = None

    def add(self, scored: ScoredRow, scorer: LiveScorer, received: int) -> None:
        """The newest row; it takes the place of an earlier one of the same second."""
        row, names = scored.row, scored.row.by_name()
        point: dict[str, Any] = {
            "product": row.product_id,
            "time": row.timestamp // MS_NS,
            "received": received // MS_NS,
            "price": known(names["price"]),
            "best_bid": known(names["best_bid"]),
            "best_ask": known(names["best_ask"]),
            "spread": known(names["spread"]),
            "spread_bps": known(names["spread_bps"]),
            "probability": known(scored.probability),
            "threshold": known(scorer.artifact.threshold),
            "is_warm": row.is_warm,
            "is_whole": row.is_whole,
            "features": scorer.inputs(row),
        }
        if self.points and self.points[-1]["time"] // SECOND_MS == point["time"] // SECOND_MS:
            self.points.pop()
        self.points.append(point)
        self.unpublished = point

    def history(self) -> list[dict[str, Any]]:
        """The points for a page that opens; the older ones without their features, which only the newest show."""
        points = list(self.points)
        older, newer = points[:-POINTS_WITH_FEATURES], points[-POINTS_WITH_FEATURES:]
        return [{name: value for name, value in point.items() if name != "features"} for point in older] + newer

    def take_unpublished(self) -> dict[str, Any] | None:
        """The newest row, if nobody was told of it yet."""
        point, self.unpublished = self.unpublished, None
        return point

    def add_episode(self, episode: Episode) -> dict[str, Any]:
        """An alert that opened, or that closed and takes the place of its opening."""
        alert = {
            "product": episode.product,
            "id": episode.id,
            "state": "open" if episode.is_open else "closed",
            "opened": episode.opened // MS_NS,
            "closed": None if episode.closed is None else episode.closed // MS_NS,
            "peak_probability": known(episode.peak_probability),
            "threshold": known(episode.threshold),
        }
        if self.alerts and self.alerts[-1]["id"] == episode.id:
            self.alerts.pop()
        self.alerts.append(alert)
        return alert

    def add_spike(self, label: DelayedLabel, tau: float) -> dict[str, Any]:
        """A second whose next minute has turned out to be a spike."""
        spike = {
            "product": self.product,
            "time": (label.second + 1) * SECOND_MS,
            "future_volatility": known(label.future_volatility),
            "tau": tau,
        }
        self.spikes.append(spike)
        return spike
