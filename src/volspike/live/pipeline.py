"""The live pipeline: what the session tells → tape → engine → model → alerts, outcomes and watchers, in one loop.

A frame's way is plain calls, one after the other; nothing on it waits for a disk, a receiver or a reader. What is shown
goes out by the clock: rows four times a second, health every second, performance every ten.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any, Final

import msgspec
import numpy as np
import structlog

from volspike.api.stream import Publisher, Subscription
from volspike.episodes import Episode, EpisodeTracker
from volspike.errors import UsageError
from volspike.features import Every
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState
from volspike.labels import DelayedLabels, is_spike
from volspike.live.metrics import LiveCounts
from volspike.live.scoring import LiveScorer, ScoredRow
from volspike.live.view import MS_NS, ProductView
from volspike.market import SECOND_NS, Gap, Tick
from volspike.models import Artifact
from volspike.monitoring.alerts import Alert, AlertRouter
from volspike.monitoring.outcome_database import Outcome, Prediction
from volspike.monitoring.outcomes import OutcomeStore
from volspike.monitoring.performance import ServedModel
from volspike.tape.recorder import Recorder

ROWS_EVERY_S: Final = 0.25
HEALTH_EVERY_S: Final = 1.0
PERFORMANCE_EVERY_S: Final = 10.0
PERFORMANCE_OVER_NS: Final = 24 * 3600 * SECOND_NS
TIMED_FRAMES: Final = 2048

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Health:
    """Counts and timings of the stream so far."""

    started: int
    is_connected: bool = False
    reason: str = "connecting"
    frames: int = 0
    ticks: int = 0
    malformed: int = 0
    gaps: int = 0
    connections: int = 0
    last_received: int = 0

    @property
    def reconnects(self) -> int:
        """Connections after the first."""
        return max(0, self.connections - 1)


class LivePipeline:
    """Scores what a source tells, for as long as it tells it.

    Args:
        scorer: engine and model.
        products: what is listened to, the first shown first.
        source: the source's name for people.
        simulated: whether its market is a simulated one; said wherever a number is shown.
        timed_from: the instant (ns UTC) from which ticks tell the wall's time; None where they never do.
        recorder: writes the tape; None records nothing.
        outcomes: keeps predictions and what became of them; None keeps nothing.
        router: takes alerts to whoever wants them; None leaves them to the page and the log.
    """

    def __init__(
        self,
        scorer: LiveScorer,
        products: Sequence[str],
        source: str,
        *,
        simulated: bool,
        timed_from: int | None = 0,
        recorder: Recorder | None = None,
        outcomes: OutcomeStore | None = None,
        router: AlertRouter | None = None,
    ) -> None:
        self.scorer = scorer
        self.source = source
        self.simulated = simulated
        self._timed_from = timed_from
        self.recorder = recorder
        self.outcomes = outcomes
        self.router = router
        self._model = served_model(scorer, simulated)
        self.performance: dict[str, Any] = {}
        self._views = {product: ProductView(product, scorer) for product in products}
        self._trackers: dict[str, EpisodeTracker] = {}
        self._delayed = DelayedLabels(is_per_second=scorer.engine.every is Every.SECOND)
        self._publisher = Publisher()
        self.stream = Health(time.time_ns())
        self.counts = LiveCounts()
        self._latency: deque[int] = deque(maxlen=TIMED_FRAMES)
        self._scoring: deque[int] = deque(maxlen=TIMED_FRAMES)

    async def run(self, events: AsyncIterable[FeedEvent]) -> None:
        """Takes events until there are no more; then every watcher's stream ends."""
        showing = (self._show_rows(), self._show_health(), self._show_performance())
        shown = [asyncio.create_task(show) for show in showing]
        try:
            async for event in events:
                self.take(event)
        finally:
            for task in shown:
                task.cancel()
            await asyncio.gather(*shown, return_exceptions=True)
            self._publisher.close()
            await asyncio.to_thread(self._close)

    def _close(self) -> None:
        """Writes out what is held; may take seconds where a disk or a receiver is slow."""
        if self.recorder is not None:
            self.recorder.close()
        if self.outcomes is not None:
            self.outcomes.close()
        if self.router is not None:
            self.router.close()

    def take(self, event: FeedEvent) -> None:
        """One event, to its end."""
        match event:
            case FeedFrame():
                self._take_frame(event)
            case Gap():
                self._take_gap(event)
            case FeedFault():
                self.stream.malformed += 1
                log.warning("frame_malformed", reason=str(event.error))
            case FeedState():
                self._take_state(event)
            case FeedError():
                log.warning("feed_refused", reason=event.reason, products=event.products)

    def _take_frame(self, event: FeedFrame) -> None:
        if self.recorder is not None:
            self.recorder.frame(event.received, event.frame)
        health = self.stream
        health.frames += 1
        health.last_received = event.received
        self.counts.heard_at = time.perf_counter_ns()
        for tick in event.frame.ticks:
            self.take_tick(tick)
        if event.frame.ticks:
            health.ticks += len(event.frame.ticks)
            told = event.frame.ticks[-1].time
            if self._timed_from is not None and told >= self._timed_from:
                self._latency.append(event.received - told)
                self.counts.latency.observe(event.received - told)

    def take_tick(self, tick: Tick) -> None:
        """One tick: engine, model, and whoever wants to know of its rows."""
        began = time.perf_counter_ns()
        scored = self.scorer.update(tick)
        ended = time.perf_counter_ns()
        self._scoring.append(ended - began)
        self.counts.scoring.observe(ended - began)
        self.counts.of(tick.product_id).ticks += 1
        for row in scored:
            self.counts.row(row, ended)
            self._take_row(row, tick.received)

    def _take_row(self, scored: ScoredRow, received: int) -> None:
        row = scored.row
        view = self._views.get(row.product_id)
        if view is None:
            view = self._views[row.product_id] = ProductView(row.product_id, self.scorer)
        view.add(scored, received)
        episode = self._tracker(row.product_id).update(row.timestamp, scored.probability)
        if episode is not None:
            self.counts.episode(episode)
            self._publish("alert", view.add_episode(episode))
            self._route(episode, float(row.values[0]))
        self._keep(scored)
        tau = self._model.tau
        for label in self._delayed.add(row.product_id, row.timestamp, float(row.values[0]), row.session_id):
            if self.outcomes is not None:
                told = Outcome(label.product, label.second, label.future_volatility, self.simulated)
                self.outcomes.outcome(told)
            if is_spike(label.future_volatility, tau):
                self.counts.of(label.product).spikes += 1
                self._publish("spike", view.add_spike(label, tau))

    def _keep(self, scored: ScoredRow) -> None:
        """Keeps a prediction until its minute is over."""
        row, probability, threshold = scored.row, scored.probability, self.scorer.artifact.threshold
        if self.outcomes is None or isnan(probability):
            return
        is_alert = probability >= threshold
        self.outcomes.predict(Prediction(row.product_id, row.timestamp, probability, threshold, is_alert, self._model))

    def _route(self, episode: Episode, price: float) -> None:
        """Takes an alert to whoever asked for it; never waits."""
        if self.router is None:
            return
        self.router.send(
            Alert(
                id=episode.id,
                product=episode.product,
                is_open=episode.is_open,
                time_ns=episode.opened if episode.closed is None else episode.closed,
                probability=episode.peak_probability,
                threshold=episode.threshold,
                price=price,
                simulated=self.simulated,
            )
        )

    def _tracker(self, product: str) -> EpisodeTracker:
        tracker = self._trackers.get(product)
        if tracker is None:
            tracker = self._trackers[product] = EpisodeTracker(self.scorer.artifact.threshold, product=product)
        return tracker

    def adopt(self, artifact: Artifact) -> None:
        """Score with another model from the next tick on; call it from the loop, where no row is half scored.

        Open episodes go on under the new threshold, and watchers come back to a snapshot of the new model.

        Raises:
            SchemaMismatch: the model takes other rows than the engine makes; nothing was changed.
            UsageError: no episode can have the model's threshold; nothing was changed.
        """
        EpisodeTracker(artifact.threshold, product="")
        for view in self._views.values():
            view.settle()
        self.scorer.adopt(artifact)
        self._model = served_model(self.scorer, self.simulated)
        self.performance = {}
        before, self._trackers = self._trackers, {}
        for product, tracker in before.items():
            self._tracker(product).resume(tracker.state())
        self._publisher.close()

    def _take_gap(self, gap: Gap) -> None:
        self.stream.gaps += 1
        self.counts.gap(gap)
        self.scorer.mark_gap(gap)
        self._delayed.add_gap(gap.start, gap.end, gap.products)
        if self.recorder is not None:
            self.recorder.gap(gap)
        seconds = (gap.end - gap.start) / SECOND_NS
        log.warning("gap", cause=gap.cause, products=gap.products, seconds=seconds, lost=gap.lost)

    def _take_state(self, state: FeedState) -> None:
        self.stream.is_connected = state.is_connected
        self.stream.reason = state.reason
        self.stream.connections += state.is_connected
        log.info("feed_state", connected=state.is_connected, reason=state.reason, url=state.url, attempt=state.attempt)

    async def _show_rows(self) -> None:
        while True:
            await asyncio.sleep(ROWS_EVERY_S)
            if self.recorder is not None:
                self.recorder.tick(time.time_ns())
            for view in self._views.values():
                point = view.take_unpublished()
                if point is not None:
                    self._publish("tick", point)

    async def _show_health(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_EVERY_S)
            self._publish("health", self.health())

    async def _show_performance(self) -> None:
        while self.outcomes is not None:
            await asyncio.sleep(PERFORMANCE_EVERY_S)
            since, model = time.time_ns() - PERFORMANCE_OVER_NS, self._model
            found = await asyncio.to_thread(self.outcomes.performance, since, None, model=model)
            if model is not self._model:
                continue
            self.performance = {**found.figures(), "since": since // MS_NS}
            self._publish("performance", self.performance)

    def _publish(self, event: str, data: dict[str, Any]) -> None:
        if self._publisher.readers:
            self._publisher.publish(event, msgspec.json.encode(data))

    def subscribe(self) -> Subscription:
        """A new watcher's events, from now on."""
        return self._publisher.subscribe()

    def health(self) -> dict[str, Any]:
        """How the stream is, for pages and for `/health`."""
        health, recorder = self.stream, self.recorder
        return {
            "is_connected": health.is_connected,
            "reason": health.reason,
            "source": self.source,
            "latency_ms": _percentiles(self._latency, MS_NS),
            "score_us": _percentiles(self._scoring, 1000),
            "frames": health.frames,
            "ticks": health.ticks,
            "malformed": health.malformed,
            "gaps": health.gaps,
            "reconnects": health.reconnects,
            "last_received": health.last_received // MS_NS or None,
            "is_recording": recorder is not None and recorder.is_recording,
            "recorder_fault": None if recorder is None else recorder.fault or None,
            "started": health.started // MS_NS,
        }

    def snapshot(self, product: str | None) -> dict[str, Any]:
        """Everything that a page needs to draw ``product`` (the first for None) at once.

        Raises:
            UsageError: there is no such product.
        """
        chosen = next(iter(self._views)) if product is None else product
        view = self._views.get(chosen)
        if view is None:
            raise UsageError(f"no product {chosen!r}; there are {', '.join(self._views)}")
        metadata = self.scorer.artifact.metadata
        return {
            "source": self.source,
            "simulated": self.simulated,
            "products": list(self._views),
            "product": chosen,
            "model": {
                "name": metadata.model,
                "version": self._model.digest,
                "threshold": metadata.threshold,
                "threshold_name": metadata.served_threshold,
                "profile": metadata.profile,
                "every": metadata.every,
                "tau": metadata.tau,
                "trained_until": metadata.data.end,
                "simulated": metadata.simulated,
                "metrics": metadata.metrics,
                "baseline": metadata.baseline,
            },
            "points": view.history(),
            "alerts": list(view.alerts),
            "spikes": list(view.spikes),
            "health": self.health(),
            "performance": self.performance,
        }


def served_model(scorer: LiveScorer, simulated: bool) -> ServedModel:
    """The model as outcomes are kept under: figures of two models, or of two kinds of market, are never mixed."""
    metadata = scorer.artifact.metadata
    return ServedModel(
        digest=metadata.onnx_sha256[:12],
        name=metadata.model,
        version=metadata.created,
        tau=metadata.tau,
        simulated=simulated,
    )


def _percentiles(values: deque[int], unit: int) -> dict[str, float | None]:
    """Median and 99th percentile in ``unit`` ns; null before the first value."""
    if not values:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(np.fromiter(values, np.int64), [50, 99]) / unit
    return {"p50": None if isnan(p50) else float(p50), "p99": float(p99)}
