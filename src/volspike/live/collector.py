"""What a feed told so far, counted for whoever listens and does not score.

The metrics of a live pipeline, or of a feed alone, made from what it counted whenever somebody asks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from math import nan
from typing import Any

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.feeds.events import FeedEvent, FeedFault, FeedFrame, FeedState
from volspike.live import metrics as declared
from volspike.live.metrics import LiveCounts, ProductCounts
from volspike.live.pipeline import Health, LivePipeline
from volspike.market import SECOND_NS, Gap
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder
from volspike.telemetry import Declared, Samples


class FeedWatch:
    """Counts as the live pipeline does.

    Args:
        timed_from: the instant (ns UTC) from which ticks tell the wall's time; None where they never do.
    """

    def __init__(self, timed_from: int | None) -> None:
        self.stream = Health(time.time_ns())
        self.counts = LiveCounts()
        self._timed_from = timed_from

    def take(self, event: FeedEvent) -> None:
        """Counts one event."""
        match event:
            case FeedFrame():
                self._take_frame(event)
            case Gap():
                self.counts.gap(event)
            case FeedFault():
                self.stream.malformed += 1
            case FeedState():
                self.stream.is_connected = event.is_connected
                self.stream.connections += event.is_connected

    def _take_frame(self, event: FeedFrame) -> None:
        self.stream.frames += 1
        self.counts.heard_at = time.perf_counter_ns()
        for tick in event.frame.ticks:
            self.counts.of(tick.product_id).ticks += 1
        if event.frame.ticks and self._timed_from is not None:
            told = event.frame.ticks[-1].time
            if told >= self._timed_from:
                self.counts.latency.observe(event.received - told)


class LiveCollector(Collector):
    """Reads one pipeline, in the thread that it runs in. What it does not have, a tape or outcomes, is not told."""

    def __init__(self, pipeline: LivePipeline) -> None:
        self._pipeline = pipeline

    def collect(self) -> Iterator[Metric]:
        """All metrics of the pipeline."""
        pipeline = self._pipeline
        yield from _feed(pipeline.source, pipeline.stream, pipeline.counts, simulated=pipeline.simulated)
        yield from _rows(pipeline.counts)
        yield from _scores(pipeline.counts, pipeline.scorer.artifact.threshold)
        yield from _alerts(pipeline.counts, pipeline.router)
        yield from _performance(pipeline.performance)
        yield from _kept(pipeline.outcomes)
        yield from _taped(pipeline.recorder)

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return (each.family([]) for each in declared.DECLARED)


class FeedCollector(Collector):
    """Reads what is listened to without scoring; it may be asked in another thread."""

    def __init__(self, source: str, *, simulated: bool, watch: FeedWatch, recorder: Recorder | None) -> None:
        self._source, self._simulated, self._watch, self._recorder = source, simulated, watch, recorder

    def collect(self) -> Iterator[Metric]:
        """The metrics of the feed and of the tape."""
        yield from _feed(self._source, self._watch.stream, self._watch.counts, simulated=self._simulated)
        yield from _taped(self._recorder)


def _feed(source: str, stream: Health, counts: LiveCounts, *, simulated: bool) -> Iterator[Metric]:
    yield declared.SOURCE_INFO.family([((source, str(simulated).lower()), 1.0)])
    yield declared.FEED_CONNECTED.one(stream.is_connected)
    yield declared.FEED_SILENCE.one((time.perf_counter_ns() - counts.heard_at) / SECOND_NS)
    yield declared.FEED_FRAMES.one(stream.frames)
    yield declared.FEED_MALFORMED.one(stream.malformed)
    yield declared.FEED_RECONNECTS.one(stream.reconnects)
    yield counts.latency.family()
    yield _by_product(declared.FEED_TICKS, counts, lambda of: of.ticks)
    yield declared.FEED_GAPS.family(((cause.value,), gaps) for cause, gaps in counts.gaps.items())
    lasted: Samples = (((cause.value,), ns / SECOND_NS) for cause, ns in counts.gap_ns.items())
    yield declared.FEED_GAP_SECONDS.family(lasted)
    yield declared.FEED_LOST.one(counts.lost)


def _by_product(metric: Declared, counts: LiveCounts, value: Callable[[ProductCounts], float | None]) -> Metric:
    """A value of each product that has one."""
    told = ((product, value(of)) for product, of in list(counts.products.items()))
    return metric.family(((product,), number) for product, number in told if number is not None)


def _rows(counts: LiveCounts) -> Iterator[Metric]:
    now = time.perf_counter_ns()
    yield _by_product(declared.FEATURE_ROWS, counts, lambda of: of.rows)
    yield _by_product(
        declared.FEATURE_AGE, counts, lambda of: (now - of.row_at) / SECOND_NS if of.newest is not None else None
    )
    yield _by_product(declared.FEATURE_WARM, counts, lambda of: of.newest and float(of.newest.row.is_warm))
    yield _by_product(declared.FEATURE_WHOLE, counts, lambda of: of.newest and float(of.newest.row.is_whole))


def _scores(counts: LiveCounts, threshold: float) -> Iterator[Metric]:
    yield counts.scoring.family()
    yield counts.probability.family()
    yield _by_product(declared.PROBABILITY, counts, lambda of: of.newest and of.newest.probability)
    yield declared.THRESHOLD.one(threshold)


def _alerts(counts: LiveCounts, router: AlertRouter | None) -> Iterator[Metric]:
    yield _by_product(declared.ALERT_EPISODES, counts, lambda of: of.episodes)
    yield _by_product(declared.ALERT_OPEN, counts, lambda of: of.is_alert_open)
    yield _by_product(declared.SPIKE_SECONDS, counts, lambda of: of.spikes)
    tallies = () if router is None else router.tallies
    yield declared.ALERT_MESSAGES.family(
        [
            (("sent",), sum(tally.sent for tally in tallies)),
            (("failed",), sum(tally.failures for tally in tallies)),
            (("given_up",), sum(tally.given_up for tally in tallies)),
            (("let_go",), 0 if router is None else router.let_go),
        ]
    )


def _performance(found: Mapping[str, Any]) -> Iterator[Metric]:
    """The figures from delayed labels; nothing before they are first looked up."""
    for metric, name in (
        (declared.LIVE_JUDGED, "rows"),
        (declared.LIVE_CALLED, "alerts"),
        (declared.LIVE_BASE_RATE, "base_rate"),
        (declared.LIVE_PRECISION, "precision"),
        (declared.LIVE_RECALL, "recall"),
        (declared.LIVE_BRIER, "brier"),
        (declared.LIVE_PR_AUC, "pr_auc"),
    ):
        yield metric.family([((), nan if found[name] is None else found[name])] if found else [])


def _kept(outcomes: OutcomeStore | None) -> Iterator[Metric]:
    yield declared.OUTCOMES_LOST.family([] if outcomes is None else [((), outcomes.lost)])


def _taped(recorder: Recorder | None) -> Iterator[Metric]:
    yield declared.TAPE_RECORDING.family([] if recorder is None else [((), recorder.is_recording)])
    yield declared.TAPE_UNRECORDED.family([] if recorder is None else [((), recorder.unrecorded)])
