"""The dashboard's data of a product: 15 minutes of one-second points, alerts, spikes, and the newest row."""

from __future__ import annotations

from collections import deque
from math import isfinite
from typing import Any, Final

from msgspec import to_builtins

from volspike.api.schema import ProductState, ThresholdSource, WarmUp
from volspike.episodes import Episode
from volspike.live.scoring import LiveScorer, Outcome, ScoredRow
from volspike.live.warm_up import warm_up
from volspike.market import SECOND_NS, format_time
from volspike.market.time import MILLISECOND_NS
from volspike.models import Artifact
from volspike.models.evidence import has_evidence
from volspike.models.volatility import volatility_fields

SECOND_MS: Final = 1000
POINTS: Final = 15 * 60
POINTS_WITH_FEATURES: Final = 5 * 60
ALERTS: Final = 50


class ProductView:
    """The recent past of one product as JSON values; bounded at any rate. Rows are encoded only when they are shown."""

    def __init__(self, product: str, scorer: LiveScorer) -> None:
        self.product = product
        self.points: deque[dict[str, Any]] = deque(maxlen=POINTS - 1)  # of the seconds before the newest row's
        self.alerts: deque[dict[str, Any]] = deque(maxlen=ALERTS)
        self.spikes: deque[dict[str, Any]] = deque(maxlen=POINTS)  # one per second of a spike
        self._scorer = scorer
        self._newest: tuple[ScoredRow, int, float, bool] | None = None
        self._is_published = True

    def add_row(self, scored: ScoredRow, received: int, threshold: float, *, is_in_sample: bool = False) -> None:
        """Set the newest row and its alert threshold; it replaces an earlier one of the same second.

        ``is_in_sample`` is whether it lies within the model's own data.
        """
        before, self._newest = self._newest, (scored, received, threshold, is_in_sample)
        self._is_published = False
        if before is not None and before[0].row.timestamp // SECOND_NS != scored.row.timestamp // SECOND_NS:
            self._store(self._point(*before))
        if self.alerts:
            _raise_peak(self.alerts[-1], scored.probability)

    def store_newest(self) -> None:
        """Turn the newest row into a point now, before another model replaces the one that scored it."""
        if self._newest is not None:
            self._store(self._point(*self._newest))
            self._newest, self._is_published = None, True

    def take_unpublished(self) -> dict[str, Any] | None:
        """The newest row as a point with the product's warm-up, once."""
        if self._newest is None or self._is_published:
            return None
        self._is_published = True
        return self._point(*self._newest) | {"warm_up": to_builtins(self.warm_up())}

    def history(self) -> list[dict[str, Any]]:
        """All points, oldest first; only the newest ``POINTS_WITH_FEATURES`` have features."""
        return [*self.points] if self._newest is None else [*self.points, self._point(*self._newest)]

    def _store(self, point: dict[str, Any]) -> None:
        self.points.append(point)
        if len(self.points) >= POINTS_WITH_FEATURES:
            self.points[-POINTS_WITH_FEATURES].pop("features", None)

    def _point(self, scored: ScoredRow, received: int, threshold: float, is_in_sample: bool) -> dict[str, Any]:
        row, values = scored.row, scored.row.by_name()
        return {
            "product": row.product_id,
            "time": row.timestamp // MILLISECOND_NS,
            "received": received // MILLISECOND_NS,
            "price": finite(values["price"]),
            "best_bid": finite(values["best_bid"]),
            "best_ask": finite(values["best_ask"]),
            "spread": finite(values["spread"]),
            "spread_bps": finite(values["spread_bps"]),
            "probability": finite(scored.probability),
            "tau": finite(scored.tau),
            **volatility_fields(scored.volatility),
            "state": None if scored.volatility is None else scored.volatility.state,
            "threshold": finite(threshold),
            "is_calibrated": scored.is_calibrated,
            "horizons": {str(horizon): finite(probability) for horizon, probability in scored.horizons.items()},
            "is_warm": row.is_warm,
            "is_whole": row.is_whole,
            "is_in_sample": is_in_sample,
            "features": self._scorer.inputs(row),
        }

    def state(self, threshold: float, source: ThresholdSource) -> ProductState:
        """The newest row's time, the product's alert threshold with its source, and its warm-up, for ``/health``."""
        time = None if self._newest is None else format_time(self._newest[0].row.timestamp)
        is_in_sample = self._newest is not None and self._newest[3]
        return ProductState(
            product=self.product,
            time=time,
            is_in_sample=is_in_sample,
            threshold=threshold,
            threshold_source=source,
            warm_up=self.warm_up(),
        )

    def warm_up(self) -> WarmUp:
        """The seconds and the inputs that the model still waits for after the newest row."""
        newest = None if self._newest is None else self._newest[0]
        return warm_up(newest, self._scorer.artifact, self._scorer.feature_set)

    def add_episode(self, episode: Episode, origin: dict[str, Any]) -> dict[str, Any]:
        """Add an alert that opened, or replace it by its closed state; returns it for the event stream.

        ``origin`` are further fields: the mode of the source, and whether the time lies within the model's own data.
        """
        alert = {
            "product": episode.product,
            "id": episode.id,
            "state": "open" if episode.is_open else "closed",
            "opened": episode.opened // MILLISECOND_NS,
            "closed": None if episode.closed is None else episode.closed // MILLISECOND_NS,
            "peak_probability": finite(episode.peak_probability),
            "threshold": finite(episode.threshold),
            **origin,
        }
        if self.alerts and self.alerts[-1]["id"] == episode.id:
            self.alerts.pop()
        self.alerts.append(alert)
        return alert

    def add_spike(self, outcome: Outcome) -> dict[str, Any]:
        """Add a second whose horizon was a spike; returns it for the event stream."""
        spike = {
            "product": self.product,
            "time": (outcome.second + 1) * SECOND_MS,
            "future_volatility": finite(outcome.future_volatility),
            "tau": outcome.tau,
        }
        self.spikes.append(spike)
        return spike


def finite(value: float) -> float | None:
    """A number for JSON, null if it is NaN or infinite."""
    return value if isfinite(value) else None


def _raise_peak(alert: dict[str, Any], probability: float) -> None:
    if alert["state"] == "open" and probability > alert["peak_probability"]:
        alert["peak_probability"] = probability


def model_summary(artifact: Artifact, version: str, product: str) -> dict[str, Any]:
    """The model that scores ``product``, for the dashboard."""
    metadata = artifact.metadata
    return {
        "name": metadata.model,
        "version": version,
        "threshold": metadata.threshold,
        "threshold_name": metadata.served_threshold,
        "profile": metadata.profile,
        "every": metadata.every,
        "tau": metadata.tau,
        "spike": str(metadata.spike_definition),
        "spike_text": metadata.spike_definition.describe(),
        "horizon_s": metadata.horizon_s,
        "horizons": list(artifact.horizons),
        "learns": artifact.holds_budget,
        "is_product_in_training": product in metadata.products,
        "split_method": metadata.split.method,
        "has_evidence": has_evidence(metadata),
        "products": list(metadata.products),
        "venues": list(metadata.venues),
        "trained_from": metadata.data.start,
        "trained_until": metadata.data.end,
        "simulated": metadata.simulated,
        "metrics": metadata.metrics,
        "baseline": metadata.baseline,
    }
