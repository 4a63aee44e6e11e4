"""Alerts of a stream's partition: the episodes of its products, kept across restarts, and who is told."""

from __future__ import annotations

import msgspec

from volspike.episodes import EpisodeTracker, TrackerState
from volspike.errors import DataError
from volspike.monitoring.alerts import Alert, AlertRouter


class _Watched(msgspec.Struct, frozen=True):
    """A watch's snapshot."""

    threshold: float
    trackers: dict[str, TrackerState]


class StreamAlerts:
    """One tracker per product, as the live pipeline has them; ``streams.predictor.AlertWatch``.

    Without a ``router`` alerts are marked in the predictions and told to nobody.
    """

    def __init__(self, threshold: float, router: AlertRouter | None = None) -> None:
        self._threshold = threshold
        self._router = router
        self._trackers: dict[str, EpisodeTracker] = {}

    def update(
        self, product: str, time_ns: int, probability: float | None, price: float, *, simulated: bool
    ) -> Alert | None:
        """The alert that a row gives rise to; nobody is told yet."""
        tracker = self._trackers.get(product)
        if tracker is None:
            tracker = self._trackers[product] = EpisodeTracker(self._threshold, product=product)
        episode = tracker.update(time_ns, probability)
        if episode is None:
            return None
        return Alert(
            id=episode.id,
            product=product,
            is_open=episode.is_open,
            time_ns=episode.opened if episode.closed is None else episode.closed,
            probability=episode.peak_probability,
            threshold=episode.threshold,
            price=price,
            simulated=simulated,
        )

    def tell(self, told: Alert) -> None:
        """Hands an alert to the router."""
        if self._router is not None:
            self._router.send(told)

    def snapshot(self) -> bytes:
        """Every tracker's state."""
        trackers = {product: tracker.state() for product, tracker in self._trackers.items()}
        return msgspec.msgpack.encode(_Watched(self._threshold, trackers))

    def restore(self, snapshot: bytes) -> None:
        """Takes up where the snapshot was made; a model of another threshold begins without episodes.

        Raises:
            DataError: the bytes are no snapshot.
        """
        try:
            watched = msgspec.msgpack.decode(snapshot, type=_Watched)
        except msgspec.DecodeError as error:
            raise DataError(f"not a predictor's snapshot: {error}") from error
        if watched.threshold != self._threshold:
            return
        for product, state in watched.trackers.items():
            self._trackers[product] = EpisodeTracker(self._threshold, product=product)
            self._trackers[product].resume(state)
