"""What a watcher sees of each product: a quarter of an hour a second apart, alerts, spikes, and the newest row."""

from __future__ import annotations

from collections import deque
from math import isfinite
from typing import Any, Final

from volspike.episodes import Episode
from volspike.labels import DelayedLabel
from volspike.live.scoring import LiveScorer, ScoredRow
from volspike.market import SECOND_NS

MS_NS: Final = 1_000_000
SECOND_MS: Final = 1000
POINTS: Final = 15 * 60
POINTS_WITH_FEATURES: Final = 5 * 60
REMEMBERED: Final = 50


def known(value: float) -> float | None:
    """A number for JSON: what is not known is null."""
    return value if isfinite(value) else None


class ProductView:
    """One product as a page draws it; bounded, whatever the rate. A row costs nothing here until it is shown."""

    def __init__(self, product: str, scorer: LiveScorer) -> None:
        self.product = product
        self.points: deque[dict[str, Any]] = deque(maxlen=POINTS - 1)  # of the seconds before the newest row's
        self.alerts: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.spikes: deque[dict[str, Any]] = deque(maxlen=POINTS)  # one a second while it lasts
        self._scorer = scorer
        self._newest: tuple[ScoredRow, int] | None = None
        self._is_told = True

    def add(self, scored: ScoredRow, received: int) -> None:
        """The newest row; it takes the place of an earlier one of the same second."""
        before, self._newest = self._newest, (scored, received)
        self._is_told = False
        if before is not None and before[0].row.timestamp // SECOND_NS != scored.row.timestamp // SECOND_NS:
            self._remember(self._point(*before))
        if self.alerts:
            self._raise(self.alerts[-1], scored.probability)

    def _raise(self, alert: dict[str, Any], probability: float) -> None:
        """An open alert's peak is the highest probability so far."""
        if alert["state"] == "open" and probability > alert["peak_probability"]:
            alert["peak_probability"] = probability

    def settle(self) -> None:
        """Make a point of the newest row now, while the model that scored it is the one that is served."""
        if self._newest is not None:
            self._remember(self._point(*self._newest))
            self._newest, self._is_told = None, True

    def _remember(self, point: dict[str, Any]) -> None:
        """The last row of a second that is over; features are kept of the newest points only, which alone show them."""
        self.points.append(point)
        if len(self.points) >= POINTS_WITH_FEATURES:
            self.points[-POINTS_WITH_FEATURES].pop("features", None)

    def _point(self, scored: ScoredRow, received: int) -> dict[str, Any]:
        row, names = scored.row, scored.row.by_name()
        return {
            "product": row.product_id,
            "time": row.timestamp // MS_NS,
            "received": received // MS_NS,
            "price": known(names["price"]),
            "best_bid": known(names["best_bid"]),
            "best_ask": known(names["best_ask"]),
            "spread": known(names["spread"]),
            "spread_bps": known(names["spread_bps"]),
            "probability": known(scored.probability),
            "threshold": known(self._scorer.artifact.threshold),
            "is_warm": row.is_warm,
            "is_whole": row.is_whole,
            "features": self._scorer.inputs(row),
        }

    def history(self) -> list[dict[str, Any]]:
        """The points for a page that opens; the older ones without their features."""
        return [*self.points] if self._newest is None else [*self.points, self._point(*self._newest)]

    def take_unpublished(self) -> dict[str, Any] | None:
        """The newest row, if nobody was told of it yet."""
        if self._newest is None or self._is_told:
            return None
        self._is_told = True
        return self._point(*self._newest)

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
