"""The live pipeline: feed events → tape, features, probability, alerts, delayed labels, in one event loop.

A frame is processed by plain function calls, in this order (``LivePipeline.take``):

1. ``FeedCounts.add`` counts it.
2. ``Recorder.frame`` queues its lines for the tape.
3. ``LiveScorer.update`` turns each tick into feature rows, their probabilities, and the outcomes of rows a minute ago.
4. ``ProductView.add_row`` keeps the row for the dashboard.
5. ``LiveProduct.update`` opens or closes an alert, which goes to the dashboard and the ``AlertRouter``. Its threshold
   is the user's (``AlertThresholds``), the model's, or follows the product's own alarm minutes (``AlertLevel``).
6. ``OutcomeStore.predict`` stores the prediction.
7. Outcomes are stored, and shown if they are spikes. They decide the outcomes of alerts (``AlertLog``).

None of these waits for a disk, an alert receiver or a reader of the dashboard: those have bounded queues. Work by the
clock, such as the updates of a ``Dashboard``, is in ``periodic``; an error in it does not end it (``BackgroundTask``).

A replay (``Source.replay``) runs on the time of its tape. Where a session of the tape ends, and at the tape's end, open
alerts close as a silence would close them; after the end the dashboard keeps showing the last state.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from volspike.background import BackgroundTask, Periodic
from volspike.episodes import Episode
from volspike.errors import DataError
from volspike.feeds.events import FeedError, FeedEvent, FeedFault, FeedFrame, FeedState, FeedStats, SessionEnd
from volspike.labels import is_spike
from volspike.live.alert_log import AlertLog
from volspike.live.bars import DAY_S
from volspike.live.calibration_store import CalibrationFile, CalibrationStore
from volspike.live.history import StoredHistory
from volspike.live.metrics import LiveCollector, LiveCounts
from volspike.live.scoring import LiveScorer, Outcome, ScoredRow
from volspike.live.sources import TapeReplay
from volspike.live.stream import Publisher
from volspike.live.view import AlertRule, LiveProduct, ProductView
from volspike.market import SECOND_NS, Gap, Mode, Tick, format_time
from volspike.market.time import MILLISECOND_NS
from volspike.models import Artifact, Metadata
from volspike.models.alert_thresholds import AlertThresholds
from volspike.models.evidence import Limitations, all_limitations, live_markets, texts
from volspike.monitoring.alerts import Alert, AlertRouter
from volspike.monitoring.outcome_database import AlertEntry, OutcomeRecord, PredictionRecord
from volspike.monitoring.outcomes import OutcomeStore
from volspike.monitoring.performance import ServedModel
from volspike.tape.recorder import Recorder
from volspike.tape.upkeep import TapeUpkeep

EXPIRY_EVERY_S: Final = 1.0
PERFORMANCE_EVERY_S: Final = 10.0
SAVE_EVERY_S: Final = 60.0
PERFORMANCE_WINDOW_NS: Final = 24 * 3600 * SECOND_NS
EXPLAINED_DAYS: Final = 14.0
"""How far back stored minutes explain a probability."""
SHOWN_ALERTS: Final = 500
MEMORY_S: Final = 10 * DAY_S
"""Seconds of bars in memory, of all products together (76 MB); older ones come from the tape."""
LEAST_MEMORY_S: Final = 3600

log = structlog.get_logger(__name__)


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
        self.is_timed = timed_from is not None
        self.counts = LiveCounts(timed_from, scorer.artifact.threshold, stats, feeds)
        metadata = scorer.artifact.metadata
        self.model = ServedModel.of(metadata, simulated=mode.is_simulated)
        self.alerts = AlertLog(metadata.horizon_s, mode)
        tape = None if recorder is None else recorder.folder
        self.stored = StoredHistory(tape, outcomes, simulated=mode.is_simulated, horizon_s=metadata.horizon_s)
        self.is_behind = timed_from is not None and timed_from > 0
        """Whether the source still sends a past that is not in real time."""
        self.products: dict[str, LiveProduct] = {}
        self._other_levels: dict[str, tuple[float, int]] = {}
        self._calibration = CalibrationStore(calibration)
        self._tape_fault = ""
        self._tape = BackgroundTask("tape recording")
        self._memory_s = max(LEAST_MEMORY_S, min(DAY_S, MEMORY_S // max(1, len(products))))
        for product in products:
            self._product(product)
        self._restore_calibration()
        self.periodic: list[Periodic] = []
        """The background tasks of the event loop; those of a ``Dashboard`` are added before ``run``."""
        if self.is_timed:
            self.periodic.append(Periodic(BackgroundTask("alert expiry"), self._expire_alerts, EXPIRY_EVERY_S))
        if outcomes is not None:
            self.periodic.append(Periodic(BackgroundTask("performance"), self._evaluate, PERFORMANCE_EVERY_S))
        if self._calibration.is_used:
            self.periodic.append(Periodic(BackgroundTask("calibration"), self._save_calibrations, SAVE_EVERY_S))

    def restore(self) -> None:
        """Continue with the stored alerts, and with the minutes that explain a probability; may take a second."""
        if self.outcomes is None:
            return
        try:
            self.alerts.restore(self.outcomes.alerts(simulated=self.mode.is_simulated, limit=SHOWN_ALERTS))
            for minute in self.outcomes.minutes(self.model, EXPLAINED_DAYS):
                if minute.product in self.products:
                    explanation = self.products[minute.product].view.explanation
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
        return (*(each.task for each in self.periodic), *own, *(task for part in parts if part for task in part.tasks))

    async def run(self, events: AsyncIterable[FeedEvent]) -> None:
        """Process events until there are no more; then end every dashboard stream and close the parts.

        An error of a periodic task does not end the processing of events; an error of that processing ends it all.
        After a replay the last state is shown until this task is cancelled.
        """
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(each.task.repeat(each.step, each.every_s)) for each in self.periodic]
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
        if tick.product_id in self.products:
            self.products[tick.product_id].view.add_tick(tick)
        began = time.perf_counter_ns()
        rows = self.scorer.update(tick)
        ended = time.perf_counter_ns()
        self.counts.add_scoring(ended - began)
        for scored in rows:
            self.counts.add_row(scored, ended)
            self._take_row(scored, tick.received)

    def _take_row(self, scored: ScoredRow, received: int) -> None:
        row, product = scored.row, self._product(scored.row.product_id)
        episode = product.update(scored)
        threshold = self.counts.of(row.product_id).threshold = product.rule.episodes.threshold
        is_in_sample = product.is_in_sample(row.timestamp)
        if is_in_sample and not product.is_in_sample_logged:
            product.is_in_sample_logged = True
            self._log_in_sample(row.product_id, row.timestamp)
        product.view.add_row(scored, received, threshold, is_in_sample=is_in_sample)
        self.alerts.raise_peak(row.product_id, scored.probability)
        if episode is not None:
            self._take_episode(product, episode)
        self._store_prediction(scored, threshold)
        for outcome in scored.outcomes:
            self._take_outcome(product.view, outcome)

    def _take_episode(self, product: LiveProduct, episode: Episode | None) -> None:
        """Send, show and store an alert that the newest row of its product, or its end, has opened or closed."""
        if episode is None or product.last is None:
            return
        self.counts.add_episode(episode)
        is_in_sample = product.is_in_sample(episode.opened if episode.closed is None else episode.closed)
        metadata = self.scorer.artifact.metadata
        alert = Alert.of(
            episode,
            float(product.last.row.values[0]),
            mode=self.mode,
            spike=metadata.spike_definition.describe(),
            is_calibrated=product.last.is_calibrated,
            limitations=texts(self.limitations(metadata, [episode.product])),
            is_in_sample=is_in_sample,
        )
        suppressed = self.router.send(alert)
        self._show_alert(self.alerts.add(episode, is_in_sample=is_in_sample, suppressed=suppressed))

    def _show_alert(self, alert: AlertEntry) -> None:
        self.publish("alert", self.alerts.fields(alert))
        if self.outcomes is not None:
            self.outcomes.alert(alert)

    def _end_session(self) -> None:
        """Close open alerts as a silence after the newest row does."""
        for product in self.products.values():
            self._take_episode(product, product.rule.episodes.end_session())

    def _end_replay(self, replay: TapeReplay) -> None:
        """Close open alerts and report the end."""
        self._end_session()
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

    def _log_in_sample(self, product: str, time_ns: int) -> None:
        data = self.scorer.artifact.metadata.data
        log.warning(
            "in_sample",
            product=product,
            time=format_time(time_ns),
            model=self.model.name,
            data_start=data.start,
            data_end=data.end,
            meaning="the model was trained or evaluated on this time, so its results here are no evidence",
        )

    def _store_prediction(self, scored: ScoredRow, threshold: float) -> None:
        row, probability = scored.row, scored.probability
        if self.outcomes is not None and not isnan(probability):
            is_alert = probability >= threshold
            record = PredictionRecord(
                row.product_id, row.timestamp, probability, threshold, is_alert, self.model, scored.tau
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
            self.publish("spike", view.add_spike(outcome))

    def _take_gap(self, gap: Gap) -> None:
        if self.recorder is not None:
            self.recorder.gap(gap)
        if not gap.verifiable:  # no known loss: windows and labels stay
            log.info("losses_not_verifiable", products=gap.products, detail=gap.detail)
            return
        self.scorer.mark_gap(gap)
        for name in gap.products:
            if name in self.products:
                self.products[name].view.gaps.append(gap)
        seconds = (gap.end - gap.start) / SECOND_NS
        log.warning("gap", cause=gap.cause, products=gap.products, seconds=seconds, lost=gap.lost, detail=gap.detail)

    def _product(self, name: str) -> LiveProduct:
        """A product; created with its first row if it is not subscribed by name, as on a tape."""
        product = self.products.get(name)
        if product is None:
            rule = self._rule(name, self.scorer.artifact)
            product = self.products[name] = LiveProduct(ProductView(name, self.scorer, self._memory_s), rule)
        return product

    def _rule(self, product: str, artifact: Artifact) -> AlertRule:
        return AlertRule.of(product, artifact, self._thresholds, simulated=self.mode.is_simulated)

    def limitations(self, metadata: Metadata, products: Iterable[str] | None = None) -> Limitations:
        """The limitations of a model on this source's market, for these products or for all."""
        markets = live_markets(self.products if products is None else products, simulated=self.mode.is_simulated)
        return all_limitations(
            metadata,
            markets,
            simulated=self.mode.is_simulated,
            profile=self.scorer.profile,
            received=self.products,
        )

    def adopt(self, artifact: Artifact) -> None:
        """Score with another model from the next tick on; call it in the event loop.

        Open alerts continue under the new threshold. Readers of the stream receive a new snapshot.

        Raises:
            SchemaMismatch: the model needs other rows than the engine produces; nothing was changed.
            UsageError: the model's threshold is not valid for alerts; nothing was changed.
        """
        rules = {name: self._rule(name, artifact) for name in self.products}
        self.scorer.check(artifact)
        for name, product in self.products.items():
            product.adopt(rules[name])
        self.scorer.adopt(artifact)
        self.counts.threshold, self.counts.performance = artifact.threshold, {}
        self.model = ServedModel.of(artifact.metadata, simulated=self.mode.is_simulated)
        self.alerts.horizon_s = self.stored.horizon_s = artifact.metadata.horizon_s
        self.publisher.refresh()

    def check_tape(self) -> None:
        """Report the beginning and the end of a fault of the recorder."""
        if self.recorder is not None and self.recorder.fault != self._tape_fault:
            self._tape_fault = self.recorder.fault
            if self._tape_fault:
                self._tape.fail(f"{self._tape_fault}; {self.recorder.unrecorded:,} ticks lost so far")
            else:
                self._tape.succeed()

    async def _expire_alerts(self) -> None:
        """Close the alerts of products whose rows have stopped; a row would close them only when the feed is back."""
        for product in self.products.values():
            self._take_episode(product, product.expire())

    async def _evaluate(self) -> None:
        """Publish the performance of the model on the stored outcomes of the last day."""
        if self.outcomes is None:
            return
        since, model = time.time_ns() - PERFORMANCE_WINDOW_NS, self.model
        performance = await asyncio.to_thread(self.outcomes.performance, since, None, model=model)
        if model is self.model:
            figures = performance.figures()
            figures["alert_rows"] = figures.pop("alerts")
            self.counts.performance = {**figures, "since": since // MILLISECOND_NS}
            self.publish("performance", self.counts.performance)

    async def _save_calibrations(self) -> None:
        await asyncio.to_thread(self._calibration.save, self._calibration_state())

    def _calibration_state(self) -> CalibrationFile:
        levels = {name: each.rule.level.state() for name, each in self.products.items() if each.rule.level is not None}
        levels = self._other_levels | levels
        return CalibrationFile(self.model.digest, self.mode.is_simulated, self.scorer.dump_calibrations(), levels)

    def _restore_calibration(self) -> None:
        """Continue with the file of an earlier run.

        Products that are not subscribed now are kept in the file for a run that subscribes to them again.
        """
        state = self._calibration.load(self.model.digest, simulated=self.mode.is_simulated)
        if state is None:
            return
        try:
            self.scorer.restore_calibrations(state.calibrations)
        except DataError as error:
            self._calibration.replace_damaged(str(error))
            return
        for name, level in state.levels.items():
            product = self.products.get(name)
            if product is None or product.rule.level is None:
                self._other_levels[name] = level
            else:
                product.rule.level.resume(level)

    def publish(self, event: str, data: dict[str, Any]) -> None:
        """Send an event to the readers of the stream that receive such events."""
        product = data.get("product")
        if self.publisher.is_wanted(event, product):
            self.publisher.publish(event, msgspec.json.encode(data), product)
