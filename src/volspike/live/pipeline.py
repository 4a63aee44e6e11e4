"""The live pipeline: feed events → tape, features, probability, alerts, delayed labels, dashboard, in one event loop.

A frame is processed by plain function calls, in this order (``LivePipeline.take``):

1. ``FeedCounts.add`` counts it.
2. ``Recorder.frame`` queues its lines for the tape.
3. ``LiveScorer.update`` turns each tick into feature rows, their probabilities, and the outcomes of rows a minute ago.
4. ``ProductView.add_row`` keeps the row for the dashboard.
5. ``EpisodeTracker.update`` opens or closes an alert, which goes to the dashboard and the ``AlertRouter``. Its
   threshold is the user's (``AlertThresholds``), the model's, or follows the product's own alarm minutes
   (``AlertLevel``).
6. ``OutcomeStore.predict`` stores the prediction.
7. Outcomes are stored, and shown if they are spikes. They decide the outcomes of alerts (``AlertLog``).

None of these waits for a disk, an alert receiver or a reader of the dashboard: those have bounded queues. The dashboard
is updated by the clock: rows four times per second, health every second, performance every ten. An error in one of
these does not end it (``BackgroundTask``).

A replay (``Source.replay``) runs on the time of its tape. Where a session of the tape ends, and at the tape's end, open
alerts close as a silence would close them; after the end the dashboard keeps showing the last state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from volspike.api.schema import ReplayState, SessionState, SourceState, ThresholdSource
from volspike.background import BackgroundTask
from volspike.episodes import Episode, EpisodeTracker
from volspike.errors import DataError, UsageError
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState, FeedStats, SessionEnd
from volspike.labels import is_spike
from volspike.live.alert_log import AlertLog, Explanation
from volspike.live.bars import DAY_S
from volspike.live.calibration_store import CalibrationFile, CalibrationStore
from volspike.live.history import HistoryRange, StoredHistory, gap_spans, read_history
from volspike.live.metrics import LiveCollector, LiveCounts, percentiles
from volspike.live.scoring import LiveScorer, Outcome, ScoredRow
from volspike.live.sources import TapeReplay
from volspike.live.stream import Publisher
from volspike.live.view import ProductView, model_summary
from volspike.market import SECOND_NS, Gap, Mode, Tick, format_time
from volspike.market.time import MILLISECOND_NS
from volspike.models import Artifact, Metadata
from volspike.models.alert_level import AlertLevel
from volspike.models.alert_thresholds import AlertThresholds
from volspike.models.evidence import (
    Limitations,
    Spans,
    all_limitations,
    live_markets,
    texts,
    training_spans,
)
from volspike.monitoring.alerts import Alert, AlertRouter
from volspike.monitoring.outcome_database import AlertEntry, OutcomeRecord, PredictionRecord
from volspike.monitoring.outcomes import OutcomeStore
from volspike.monitoring.performance import ServedModel
from volspike.tape.recorder import Recorder
from volspike.tape.upkeep import TapeUpkeep

ROWS_EVERY_S: Final = 0.25
HEALTH_EVERY_S: Final = 1.0
MARKETS_EVERY_S: Final = 2.0
PERFORMANCE_EVERY_S: Final = 10.0
SAVE_EVERY_S: Final = 60.0
PERFORMANCE_WINDOW_NS: Final = 24 * 3600 * SECOND_NS
EXPLAINED_DAYS: Final = 14.0
"""How far back stored minutes explain a probability."""
SHOWN_ALERTS: Final = 500
MEMORY_S: Final = 10 * DAY_S
"""Seconds of bars in memory, of all products together (76 MB); older ones come from the tape."""
LEAST_MEMORY_S: Final = 3600
DAY_NS: Final = DAY_S * SECOND_NS

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Product:
    """The state of a product: its view on the dashboard, its alert, and the level of its alert threshold.

    ``level`` is None if the threshold is fixed. ``is_in_sample_logged`` is whether a row within the model's
    data has been reported. ``last`` is the newest row, and ``row_at`` the time of its scoring on the clock of
    ``time.perf_counter_ns``.
    """

    view: ProductView
    episodes: EpisodeTracker
    level: AlertLevel | None
    is_in_sample_logged: bool = False
    last: ScoredRow | None = None
    row_at: int = 0


class _Periodic(NamedTuple):
    """A background task of the event loop, its step, and the seconds between two steps."""

    task: BackgroundTask
    step: Callable[[], Coroutine[Any, Any, None]]
    every_s: float


class LivePipeline:
    """Scores the events of a source until it ends.

    Args:
        scorer: feature engine and model.
        products: the subscribed products; the dashboard shows the first by default.
        source: name of the source, shown on the dashboard.
        mode: live, replay or simulated; shown wherever a number is shown.
        timed_from: time (ns UTC) from which ticks are in real time; None for never.
        stats: the statistics of the source's session; None for a source without one.
        recorder: writes the tape; None records nothing.
        upkeep: compacts the tape and deletes old ones; None does neither.
        outcomes: stores predictions and outcomes; None stores nothing.
        router: logs alerts and sends them to receivers; None only logs them.
        thresholds: alert thresholds of products in place of the model's.
        calibration: file in which calibrations and alert levels survive a restart; None keeps them in memory.
        replay: the progress of the tape; None for other sources.
        feeds: the protocols of the source's sessions.
    """

    def __init__(
        self,
        scorer: LiveScorer,
        products: Sequence[str],
        source: str,
        *,
        mode: Mode,
        timed_from: int | None = 0,
        stats: Callable[[], FeedStats] | None = None,
        recorder: Recorder | None = None,
        upkeep: TapeUpkeep | None = None,
        outcomes: OutcomeStore | None = None,
        router: AlertRouter | None = None,
        thresholds: AlertThresholds = AlertThresholds(),  # noqa: B008  immutable
        calibration: Path | None = None,
        replay: TapeReplay | None = None,
        feeds: Sequence[str] = (),
    ) -> None:
        self.scorer = scorer
        self.source = source
        self.mode = mode
        self.replay = replay
        self.recorder = recorder
        self.upkeep = upkeep
        self.outcomes = outcomes
        self.router = AlertRouter() if router is None else router
        self._thresholds = thresholds
        self.publisher = Publisher()
        self._timed_from = timed_from
        self.counts = LiveCounts(timed_from, scorer.artifact.threshold, stats, feeds)
        metadata = scorer.artifact.metadata
        self._model = ServedModel.of(metadata, simulated=mode.is_simulated)
        self.alerts = AlertLog(metadata.horizon_s, mode)
        tape = None if recorder is None else recorder.folder
        self.stored = StoredHistory(tape, outcomes, simulated=mode.is_simulated, horizon_s=metadata.horizon_s)
        self._is_behind = timed_from is not None and timed_from > 0
        self._own_data: dict[str, Spans] = {}
        self._products: dict[str, _Product] = {}
        self._other_levels: dict[str, tuple[float, int]] = {}
        self._calibration = CalibrationStore(calibration)
        self._tape_fault = ""
        self._tape = BackgroundTask("tape recording")
        self._memory_s = max(LEAST_MEMORY_S, min(DAY_S, MEMORY_S // max(1, len(products))))
        for product in products:
            self._product(product)
        self._restore_calibration()
        self._periodic = self._periodic_tasks()

    @property
    def products(self) -> tuple[str, ...]:
        """The products of the source so far."""
        return tuple(self._products)

    def restore(self) -> None:
        """Continue with the stored alerts, and with the minutes that explain a probability; may take a second."""
        if self.outcomes is None:
            return
        try:
            self.alerts.restore(self.outcomes.alerts(simulated=self.mode.is_simulated, limit=SHOWN_ALERTS))
            for minute in self.outcomes.minutes(self._model, EXPLAINED_DAYS):
                if minute.product in self._products:
                    explanation = self._products[minute.product].view.explanation
                    explanation.count(minute.probability, is_spike=minute.spike)
        except DataError as error:
            log.warning("dashboard_not_restored", reason=str(error))

    def collector(self) -> LiveCollector:
        """The collector of the pipeline's metrics."""
        return LiveCollector(
            self.source,
            mode=self.mode,
            counts=self.counts,
            recorder=self.recorder,
            upkeep=self.upkeep,
            router=self.router,
            outcomes=self.outcomes,
        )

    @property
    def tasks(self) -> tuple[BackgroundTask, ...]:
        """All background tasks of the pipeline and its parts."""
        parts = (self.recorder, self.upkeep, self.outcomes, self.router)
        own = () if self.recorder is None else (self._tape,)
        return (*(each.task for each in self._periodic), *own, *(task for part in parts if part for task in part.tasks))

    async def run(self, events: AsyncIterable[FeedEvent]) -> None:
        """Process events until there are no more; then end every dashboard stream and close the parts.

        An error of a periodic task does not end the processing of events; an error of that processing ends it all.
        After a replay the last state is shown until this task is cancelled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(each.task.repeat(each.step, each.every_s)) for each in self._periodic]
                async for event in events:
                    self.take(event)
                if self.replay is not None:
                    self._end_replay(self.replay)
                    return  # once the periodic tasks are cancelled
                for task in running:
                    task.cancel()
        except BaseExceptionGroup as faults:  # of one: the supervised tasks raise none
            raise faults.exceptions[0] from None
        finally:
            self.publisher.close()
            await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Write out what is queued; may take seconds if a disk or a receiver is slow. One failure prevents no other."""
        parts = [part for part in (self.recorder, self.upkeep, self.outcomes, self.router) if part is not None]
        for close in (lambda: self._calibration.save(self._calibration_state()), *(part.close for part in parts)):
            try:
                close()
            except Exception:  # the other parts are still to be closed
                log.exception("part_not_closed")

    def take(self, event: FeedEvent) -> None:
        """Process one event completely."""
        self.counts.add(event)
        match event:
            case FeedFrame():
                self._take_frame(event)
            case Gap():
                self._take_gap(event)
            case FeedFault():
                log.warning("malformed_frame", reason=str(event.error))
            case FeedState():
                state = {"connected": event.is_connected, "reason": event.reason}
                log.info("feed_state", **state, url=event.url, attempt=event.attempt)
            case SessionEnd():
                self._end_session()
                times = {"last": format_time(event.last), "next": format_time(event.next)}
                log.info("session_ended", **times, skipped_s=(event.next - event.last) // SECOND_NS)
            case FeedError():
                log.warning("feed_error", reason=event.reason, products=event.products)

    def _take_frame(self, event: FeedFrame) -> None:
        if self.recorder is not None:
            self.recorder.frame(event.received, event.frame)
        for tick in event.frame.ticks:
            self._take_tick(tick)

    def _take_tick(self, tick: Tick) -> None:
        if tick.product_id in self._products:
            self._products[tick.product_id].view.add_tick(tick)
        began = time.perf_counter_ns()
        rows = self.scorer.update(tick)
        ended = time.perf_counter_ns()
        self.counts.add_scoring(ended - began)
        for scored in rows:
            self.counts.add_row(scored, ended)
            self._take_row(scored, tick.received)

    def _take_row(self, scored: ScoredRow, received: int) -> None:
        row, price = scored.row, float(scored.row.values[0])
        product = self._product(row.product_id)
        if product.level is not None and not isnan(scored.probability):
            is_open = product.episodes.current is not None
            product.episodes.set_threshold(product.level.update(row.timestamp, is_open=is_open))
        threshold = self.counts.of(row.product_id).threshold = product.episodes.threshold
        is_in_sample = self._is_in_sample(row.product_id, row.timestamp)
        if is_in_sample and not product.is_in_sample_logged:
            product.is_in_sample_logged = True
            self._log_in_sample(row.product_id, row.timestamp)
        product.view.add_row(scored, received, threshold, is_in_sample=is_in_sample)
        self.alerts.raise_peak(row.product_id, scored.probability)
        product.last, product.row_at = scored, time.perf_counter_ns()
        may_open = product.level is None or scored.is_calm
        episode = product.episodes.update(row.timestamp, scored.probability, may_open=may_open)
        if episode is not None:
            self._take_episode(episode, price, scored.is_calibrated)
        self._store_prediction(scored, threshold)
        for outcome in scored.outcomes:
            self._take_outcome(product.view, outcome)

    def _take_episode(self, episode: Episode, price: float, is_calibrated: bool | None) -> None:
        self.counts.add_episode(episode)
        time_ns = episode.opened if episode.closed is None else episode.closed
        is_in_sample = self._is_in_sample(episode.product, time_ns)
        alert = Alert.of(
            episode,
            price,
            mode=self.mode,
            spike=self.scorer.artifact.metadata.spike_definition.describe(),
            is_calibrated=is_calibrated,
            limitations=texts(self.limitations(self.scorer.artifact.metadata, [episode.product])),
            is_in_sample=is_in_sample,
        )
        suppressed = self.router.send(alert)
        self._show_alert(self.alerts.add(episode, is_in_sample=is_in_sample, suppressed=suppressed))

    def _show_alert(self, alert: AlertEntry) -> None:
        self._publish("alert", self.alerts.fields(alert))
        if self.outcomes is not None:
            self.outcomes.alert(alert)

    def _end_session(self) -> None:
        """Close open alerts as a silence after the newest row does."""
        for product in self._products.values():
            last, episode = product.last, product.episodes.end_session()
            if episode is not None and last is not None:
                self._take_episode(episode, float(last.row.values[0]), last.is_calibrated)

    def _end_replay(self, replay: TapeReplay) -> None:
        """Close open alerts and report the end."""
        self._end_session()
        self._publish("health", self.health())
        report = replay.report
        log.info(
            "replay_ended",
            source=self.source,
            first=format_time(replay.start),
            last=format_time(replay.now),
            ticks=report.ticks,
            sessions=replay.sessions,
            rejected_lines=report.rejected,
            notes=[f"{note.file}: {note.text}" for note in report.notes],
        )

    def _is_in_sample(self, product: str, time_ns: int) -> bool:
        """Whether a row lies within the data that the model was trained or evaluated on."""
        spans = self._own_data.get(product)
        if spans is None:
            metadata = self.scorer.artifact.metadata
            spans = training_spans(metadata, product, simulated=self.mode.is_simulated)
            self._own_data[product] = spans
        return any(start <= time_ns <= end for start, end in spans)

    def _log_in_sample(self, product: str, time_ns: int) -> None:
        data = self.scorer.artifact.metadata.data
        log.warning(
            "in_sample",
            product=product,
            time=format_time(time_ns),
            model=self._model.name,
            data_start=data.start,
            data_end=data.end,
            meaning="the model was trained or evaluated on this time, so its results here are no evidence",
        )

    def _store_prediction(self, scored: ScoredRow, threshold: float) -> None:
        row, probability = scored.row, scored.probability
        if self.outcomes is not None and not isnan(probability):
            is_alert = probability >= threshold
            record = PredictionRecord(
                row.product_id, row.timestamp, probability, threshold, is_alert, self._model, scored.tau
            )
            self.outcomes.predict(record)

    def _take_outcome(self, view: ProductView, outcome: Outcome) -> None:
        second = self.scorer.row_second(outcome)
        if self.outcomes is not None:
            record = OutcomeRecord(outcome.product, second, outcome.future_volatility, self.mode.is_simulated)
            self.outcomes.outcome(record)
        if isnan(outcome.tau):
            return  # without a threshold it is neither a spike nor none
        has_spike = is_spike(outcome.future_volatility, outcome.tau)
        view.explanation.outcome(second, is_spike=has_spike)
        for alert in self.alerts.outcome(outcome.product, second, is_spike=has_spike):
            self._show_alert(alert)
        if has_spike:
            self.counts.of(outcome.product).spikes += 1
            self._publish("spike", view.add_spike(outcome))

    def _take_gap(self, gap: Gap) -> None:
        if self.recorder is not None:
            self.recorder.gap(gap)
        if not gap.verifiable:  # no known loss: windows and labels stay
            log.info("losses_not_verifiable", products=gap.products, detail=gap.detail)
            return
        self.scorer.mark_gap(gap)
        for name in gap.products:
            if name in self._products:
                self._products[name].view.gaps.append(gap)
        seconds = (gap.end - gap.start) / SECOND_NS
        log.warning("gap", cause=gap.cause, products=gap.products, seconds=seconds, lost=gap.lost, detail=gap.detail)

    def _product(self, name: str) -> _Product:
        """A product; created with its first row if it is not subscribed by name, as on a tape."""
        product = self._products.get(name)
        if product is None:
            episodes, level = self._alert_rule(name, self.scorer.artifact)
            product = self._products[name] = _Product(ProductView(name, self.scorer, self._memory_s), episodes, level)
        return product

    def _alert_rule(self, product: str, artifact: Artifact) -> tuple[EpisodeTracker, AlertLevel | None]:
        """The alert episodes of a product, and its level if no fixed threshold applies."""
        own, adaptation = self._thresholds.find(product), artifact.metadata.adaptation
        level = None if own is not None or adaptation is None else AlertLevel(adaptation.alert_log_odds)
        return EpisodeTracker(artifact.threshold if own is None else own, product=product), level

    def limitations(self, metadata: Metadata, products: Iterable[str] | None = None) -> Limitations:
        """The limitations of a model on this source's market, for these products or for all."""
        markets = live_markets(self._products if products is None else products, simulated=self.mode.is_simulated)
        return all_limitations(
            metadata,
            markets,
            simulated=self.mode.is_simulated,
            profile=self.scorer.profile,
            received=self._products,
        )

    def adopt(self, artifact: Artifact) -> None:
        """Score with another model from the next tick on; call it in the event loop.

        Open alerts continue under the new threshold. Readers of the stream receive a new snapshot.

        Raises:
            SchemaMismatch: the model needs other rows than the engine produces; nothing was changed.
            UsageError: the model's threshold is not valid for alerts; nothing was changed.
        """
        rules = {name: self._alert_rule(name, artifact) for name in self._products}
        self.scorer.check(artifact)
        for name, product in self._products.items():
            product.view.store_newest()
            state = product.episodes.state()
            product.episodes, product.level = rules[name]
            product.episodes.resume(state)
        self.scorer.adopt(artifact)
        self.counts.threshold, self.counts.performance = artifact.threshold, {}
        self._model = ServedModel.of(artifact.metadata, simulated=self.mode.is_simulated)
        self._own_data = {}
        self.alerts.horizon_s = self.stored.horizon_s = artifact.metadata.horizon_s
        for product in self._products.values():
            product.is_in_sample_logged = False
            product.view.explanation = Explanation()
        self.publisher.refresh()

    def _periodic_tasks(self) -> tuple[_Periodic, ...]:
        tasks = [
            _Periodic(BackgroundTask("rows"), self._publish_rows, ROWS_EVERY_S),
            _Periodic(BackgroundTask("health"), self._publish_health, HEALTH_EVERY_S),
            _Periodic(BackgroundTask("markets"), self._publish_markets, MARKETS_EVERY_S),
        ]
        if self._timed_from is not None:
            tasks.append(_Periodic(BackgroundTask("alert expiry"), self._expire_alerts, HEALTH_EVERY_S))
        if self.outcomes is not None:
            tasks.append(_Periodic(BackgroundTask("performance"), self._publish_performance, PERFORMANCE_EVERY_S))
        if self._calibration.is_used:
            tasks.append(_Periodic(BackgroundTask("calibration"), self._save_calibrations, SAVE_EVERY_S))
        return tuple(tasks)

    async def _publish_rows(self) -> None:
        for name, product in self._products.items():
            point = product.view.take_unpublished() if self.publisher.is_wanted("tick", name) else None
            if point is not None:
                self._publish("tick", point)

    async def _publish_markets(self) -> None:
        if self.publisher.readers:
            self._publish("markets", {"markets": self.markets()})
            for name, product in self._products.items():
                if self.publisher.is_wanted("explanation", name):
                    self._publish("explanation", product.view.explanation.fields(name, self.alerts.horizon_s))

    async def _publish_health(self) -> None:
        self._publish("health", self.health())
        if self._is_behind and self.counts.is_in_real_time:
            self._is_behind = False
            self.publisher.refresh()  # rows are published at most four times per second: pages miss most of the past
        fault = "" if self.recorder is None else self.recorder.fault
        if self.recorder is not None and fault != self._tape_fault:
            self._tape_fault = fault
            if fault:
                self._tape.fail(f"{fault}; {self.recorder.unrecorded:,} ticks lost so far")
            else:
                self._tape.succeed()

    async def _expire_alerts(self) -> None:
        """Close the alerts of products whose rows have stopped; a row would close them only when the feed is back."""
        now = time.perf_counter_ns()
        for product in self._products.values():
            if (last := product.last) is not None:
                episode = product.episodes.expire(last.row.timestamp + now - product.row_at)
                if episode is not None:
                    self._take_episode(episode, float(last.row.values[0]), last.is_calibrated)

    async def _publish_performance(self) -> None:
        if self.outcomes is None:
            return
        since, model = time.time_ns() - PERFORMANCE_WINDOW_NS, self._model
        performance = await asyncio.to_thread(self.outcomes.performance, since, None, model=model)
        if model is self._model:
            figures = performance.figures()
            figures["alert_rows"] = figures.pop("alerts")
            self.counts.performance = {**figures, "since": since // MILLISECOND_NS}
            self._publish("performance", self.counts.performance)

    async def _save_calibrations(self) -> None:
        await asyncio.to_thread(self._calibration.save, self._calibration_state())

    def _calibration_state(self) -> CalibrationFile:
        levels = {name: each.level.state() for name, each in self._products.items() if each.level is not None}
        levels = self._other_levels | levels
        return CalibrationFile(self._model.digest, self.mode.is_simulated, self.scorer.dump_calibrations(), levels)

    def _restore_calibration(self) -> None:
        """Continue with the file of an earlier run.

        Products that are not subscribed now are kept in the file for a run that subscribes to them again.
        """
        state = self._calibration.load(self._model.digest, simulated=self.mode.is_simulated)
        if state is None:
            return
        try:
            self.scorer.restore_calibrations(state.calibrations)
        except DataError as error:
            self._calibration.replace_damaged(str(error))
            return
        for name, level in state.levels.items():
            product = self._products.get(name)
            if product is None or product.level is None:
                self._other_levels[name] = level
            else:
                product.level.resume(level)

    def _publish(self, event: str, data: dict[str, Any]) -> None:
        product = data.get("product")
        if self.publisher.is_wanted(event, product):
            self.publisher.publish(event, msgspec.json.encode(data), product)

    def health(self) -> dict[str, Any]:
        """Connection, latency, losses and recording, for the dashboard."""
        counts, recorder = self.counts, self.recorder
        return {
            "is_connected": counts.is_connected,
            "reason": counts.reason,
            "sessions": counts.sessions_state(),
            "source": self.source,
            "mode": self.mode,
            "simulated": self.mode.is_simulated,
            "replay": None if self.replay is None else self.replay.progress(),
            "latency_ms": percentiles(counts.recent_latency_ns, MILLISECOND_NS),
            "score_us": percentiles(counts.recent_scoring_ns, 1000),
            "frames": counts.frames,
            "ticks": counts.ticks,
            "malformed": counts.malformed,
            "gaps": sum(counts.gaps.values()),
            "unverifiable": sorted(counts.unverifiable),
            "reconnects": counts.reconnects,
            "refused_products": self._refused_products(),
            "last_received": counts.last_received // MILLISECOND_NS or None,
            "is_recording": recorder is not None and recorder.is_recording,
            "recorder_fault": None if recorder is None else recorder.fault or None,
            "outcomes_fault": None if self.outcomes is None else self.outcomes.fault,
            "disk_free_bytes": None if self.upkeep is None else self.upkeep.free_bytes,
            "started": counts.started // MILLISECOND_NS,
        }

    def state(self) -> SourceState:
        """The source and its products, for ``/health``."""
        replay = None if self.replay is None else ReplayState(**self.replay.progress())
        products = [
            each.view.state(each.episodes.threshold, self._threshold_source(each)) for each in self._products.values()
        ]
        return SourceState(
            name=self.source,
            mode=self.mode,
            simulated=self.mode.is_simulated,
            replay=replay,
            products=products,
            disk_free_bytes=None if self.upkeep is None else self.upkeep.free_bytes,
            refused_products=self._refused_products(),
            sessions=[SessionState(**each) for each in self.counts.sessions_state()],
        )

    def _threshold_source(self, product: _Product) -> ThresholdSource:
        if self._thresholds.find(product.view.product) is not None:
            return "option"
        return "model" if product.level is None else "budget"

    def _refused_products(self) -> list[str]:
        return [] if self.counts.stats is None else list(self.counts.stats().refused)

    def snapshot(self, product: str | None) -> dict[str, Any]:
        """Everything that a page needs to show ``product`` (None: the first) at once.

        Raises:
            UsageError: unknown product.
        """
        name = next(iter(self._products)) if product is None else product
        if name not in self._products:
            raise UsageError(f"unknown product {name!r}; available: {', '.join(self._products)}")
        view, metadata = self._products[name].view, self.scorer.artifact.metadata
        return {
            "source": self.source,
            "mode": self.mode,
            "simulated": self.mode.is_simulated,
            "products": list(self._products),
            "product": name,
            "model": model_summary(self.scorer.artifact, self._model.digest, name)
            | {"limitations": texts(self.limitations(metadata, [name]))},
            "warm_up": msgspec.to_builtins(view.warm_up()),
            "points": view.history(),
            "alerts": self.alerts.entries(),
            "counts": self.alerts.counts(name),
            "spikes": list(view.spikes),
            "markets": self.markets(),
            "explanation": view.explanation.fields(name, self.alerts.horizon_s),
            "health": self.health(),
            "performance": self.counts.performance,
            "snoozes": self._snoozes(),
        }

    def markets(self) -> list[dict[str, Any]]:
        """A row for each product, for the list of markets."""
        now, rows = time.perf_counter_ns(), []
        for name, product in self._products.items():
            is_timed = self._timed_from is not None and product.last is not None
            newest = 0 if product.last is None else product.last.row.timestamp
            rows.append(
                product.view.overview(
                    is_alert=product.episodes.current is not None,
                    age_s=(now - product.row_at) / SECOND_NS if is_timed else 0.0,
                    alerts=self.alerts.opened_since(name, newest - newest % DAY_NS),
                    snoozed_until=self.router.rules.snoozed_until(name),
                )
            )
        return rows

    async def history(self, product: str, query: Mapping[str, str]) -> dict[str, Any]:
        """The bars of a range of a product, and the alerts, spikes and gaps in it.

        Raises:
            LookupError: unknown product.
            UsageError: a value in the query that is not valid.
        """
        if product not in self._products:
            raise LookupError(f"unknown product {product!r}; available: {', '.join(self._products)}")
        view = self._products[product].view
        wanted = HistoryRange.of(query, view.newest_ms() or time.time_ns() // MILLISECOND_NS)
        answer = await read_history(product, wanted, view.bars, tuple(view.spike_rows), self.stored)
        alerts = self.alerts.entries(product, answer.alerts)
        alerts = [each for each in alerts if wanted.overlaps(each["opened"], each["closed"])]
        gaps = gap_spans([*view.gaps, *answer.gaps], product, wanted)
        return answer.fields() | {"alerts": alerts, "gaps": gaps}

    def _snoozes(self) -> list[dict[str, Any]]:
        snoozes: list[dict[str, Any]] = msgspec.to_builtins(self.router.rules.snoozes())
        return snoozes

    def publish_snoozes(self) -> None:
        """Send the present snoozes to the readers of the event stream."""
        self._publish("snooze", {"snoozes": self._snoozes()})
