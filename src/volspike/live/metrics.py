"""Metrics of the live pipeline and of a feed: declarations, counters and collection.

Events are counted in plain numbers, a fraction of a microsecond each; collectors turn them into metrics at each scrape.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from math import nan
from typing import Any, Final

import numpy as np
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.episodes import Episode
from volspike.feeds.events import FeedEvent, FeedFault, FeedFrame, FeedState, FeedStats
from volspike.live.scoring import ScoredRow
from volspike.market import SECOND_NS, Cause, Gap, Mode
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder
from volspike.tape.upkeep import TapeUpkeep
from volspike.telemetry import OTHER, PROBABILITIES, Distribution, MetricSpec, Samples

FEED_CONNECTED: Final = MetricSpec(
    "feed_connected", "gauge", "boolean", "1 while every exchange in use is connected, else 0."
)
FEED_SILENCE: Final = MetricSpec(
    "feed_silence_seconds",
    "gauge",
    "seconds",
    "Time since the last frame of the exchange, heartbeats included; of several, the longest.",
)
SESSION_CONNECTED: Final = MetricSpec(
    "feed_session_connected", "gauge", "boolean", "1 while the exchange is connected, else 0, by protocol.", ("feed",)
)
SESSION_SILENCE: Final = MetricSpec(
    "feed_session_silence_seconds",
    "gauge",
    "seconds",
    "Time since the last frame of the exchange, heartbeats included, by protocol.",
    ("feed",),
)
FEED_FRAMES: Final = MetricSpec("feed_frames_total", "counter", "frames", "Frames received from the exchange.")
FEED_MALFORMED: Final = MetricSpec(
    "feed_malformed_total", "counter", "frames", "Frames that could not be parsed, or not completely."
)
FEED_TICKS: Final = MetricSpec("feed_ticks_total", "counter", "ticks", "Ticks received, by product.", ("product",))
FEED_LATENCY: Final = MetricSpec(
    "feed_latency_seconds",
    "histogram",
    "seconds",
    "From the exchange's time of a frame's last tick to its receipt; for sources in real time.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
FEED_GAPS: Final = MetricSpec("feed_gaps_total", "counter", "gaps", "Gaps in the data, by cause.", ("cause",))
FEED_GAP_SECONDS: Final = MetricSpec(
    "feed_gap_seconds_total", "counter", "seconds", "Total length of the gaps, by cause.", ("cause",)
)
FEED_LOST: Final = MetricSpec(
    "feed_lost_messages_total", "counter", "messages", "Lost messages, in the gaps whose number is known."
)
FEED_REPEATED: Final = MetricSpec(
    "feed_repeated_total", "counter", "messages", "Messages whose sequence number came before: duplicate or late."
)
FEED_UNREQUESTED: Final = MetricSpec(
    "feed_unrequested_ticks_total", "counter", "ticks", "Rejected ticks of products that were not requested."
)
FEED_IGNORED: Final = MetricSpec(
    "feed_ignored_frames_total", "counter", "frames", "Frames of a channel or type that is unknown or not used."
)
FEED_REFUSED: Final = MetricSpec(
    "feed_refused", "gauge", "boolean", "1 while the exchange refuses the product, 0 otherwise.", ("product",)
)
FEED_RECONNECTS: Final = MetricSpec("feed_reconnects_total", "counter", "connections", "Connections after the first.")
SOURCE_INFO: Final = MetricSpec(
    "live_source_info",
    "gauge",
    "boolean",
    "Always 1; the labels are the source's name, whether it is simulated, and its mode: live, replay, simulated or "
    "simulated replay.",
    ("source", "simulated", "mode"),
)
FEATURE_ROWS: Final = MetricSpec("feature_rows_total", "counter", "rows", "Feature rows, by product.", ("product",))
FEATURE_AGE: Final = MetricSpec(
    "feature_age_seconds", "gauge", "seconds", "Age of a product's newest feature row.", ("product",)
)
FEATURE_WARM: Final = MetricSpec(
    "feature_warm",
    "gauge",
    "boolean",
    "1 if all windows of a product's newest row are full, else 0.",
    ("product",),
)
FEATURE_WHOLE: Final = MetricSpec(
    "feature_whole",
    "gauge",
    "boolean",
    "1 if no known data loss lies in the windows of a product's newest row, else 0.",
    ("product",),
)
SCORE_LATENCY: Final = MetricSpec(
    "score_latency_seconds",
    "histogram",
    "seconds",
    "From a decoded tick to the probabilities of its rows.",
    buckets=(0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25),
)
SCORE_PROBABILITY: Final = MetricSpec(
    "score_probability",
    "histogram",
    "probability",
    "Spike probabilities of all scored rows.",
    buckets=PROBABILITIES,
)
PROBABILITY: Final = MetricSpec(
    "spike_probability",
    "gauge",
    "probability",
    "Spike probability of the newest row; NaN if unknown.",
    ("product",),
)
THRESHOLD: Final = MetricSpec("spike_threshold", "gauge", "probability", "The alert threshold of the served model.")
ALERT_THRESHOLD: Final = MetricSpec(
    "alert_threshold",
    "gauge",
    "probability",
    "The alert threshold of a product's newest row: that of the model, of its budget, or of --alert-threshold.",
    ("product",),
)
ALERT_EPISODES: Final = MetricSpec(
    "alert_episodes_total", "counter", "episodes", "Opened alerts, by product.", ("product",)
)
ALERT_OPEN: Final = MetricSpec(
    "alert_open", "gauge", "boolean", "1 while an alert of the product is open, else 0.", ("product",)
)
ALERT_MESSAGES: Final = MetricSpec(
    "alert_messages_total",
    "counter",
    "messages",
    "Alert messages to receivers: sent, failed (attempts), given_up (after all attempts), let_go (queue full).",
    ("result",),
)
ALERT_SUPPRESSED: Final = MetricSpec(
    "alert_suppressed_total", "counter", "alerts", "Opened alerts that were not sent, by reason.", ("reason",)
)
SPIKE_SECONDS: Final = MetricSpec(
    "spike_seconds_total", "counter", "seconds", "Seconds whose following minute was a spike.", ("product",)
)
LIVE_ROWS: Final = MetricSpec(
    "live_judged_rows", "gauge", "rows", "Predictions of the last 24 hours with a known outcome."
)
LIVE_ALERTS: Final = MetricSpec("live_called_rows", "gauge", "rows", "Predicted spikes among them.")
LIVE_BASE_RATE: Final = MetricSpec("live_base_rate", "gauge", "share", "Share of spikes among them; NaN without rows.")
LIVE_PRECISION: Final = MetricSpec(
    "live_precision", "gauge", "share", "Share of the predicted spikes that were spikes; NaN if none was predicted."
)
LIVE_RECALL: Final = MetricSpec(
    "live_recall", "gauge", "share", "Share of the spikes that were predicted; NaN without spikes."
)
LIVE_BRIER: Final = MetricSpec(
    "live_brier", "gauge", "squared probability", "Mean squared error of their probabilities; NaN without rows."
)
LIVE_PR_AUC: Final = MetricSpec(
    "live_pr_auc", "gauge", "share", "Area under their precision-recall curve; NaN without spikes."
)
OUTCOMES_LOST: Final = MetricSpec(
    "outcomes_lost_total", "counter", "rows", "Predictions and outcomes that could not be stored."
)
TAPE_UNRECORDED: Final = MetricSpec(
    "tape_unrecorded_ticks_total", "counter", "ticks", "Ticks that could not be written to the tape."
)
TAPE_WAITING: Final = MetricSpec(
    "tape_waiting_ticks", "gauge", "ticks", "Ticks that wait to be written to the tape; a slow disk raises it."
)
TAPE_HOURS: Final = MetricSpec(
    "tape_compacted_hours_total", "counter", "hours", "Recorded hours of a product that became Parquet."
)
TAPE_DELETED: Final = MetricSpec(
    "tape_deleted_files_total", "counter", "files", "Tapes deleted because they were older than --keep-days."
)
DISK_FREE: Final = MetricSpec("disk_free_bytes", "gauge", "bytes", "Free space on the disk of the tape.")
TAPE_RECORDING: Final = MetricSpec("tape_recording", "gauge", "boolean", "1 while the tape can be written, else 0.")

LIVE_METRICS: Final = (
    *(FEED_CONNECTED, FEED_SILENCE, SESSION_CONNECTED, SESSION_SILENCE),
    *(FEED_FRAMES, FEED_MALFORMED, FEED_TICKS, FEED_LATENCY),
    *(
        FEED_GAPS,
        FEED_GAP_SECONDS,
        FEED_LOST,
        FEED_REPEATED,
        FEED_UNREQUESTED,
        FEED_IGNORED,
        FEED_REFUSED,
        FEED_RECONNECTS,
    ),
    SOURCE_INFO,
    *(FEATURE_ROWS, FEATURE_AGE, FEATURE_WARM, FEATURE_WHOLE),
    *(SCORE_LATENCY, SCORE_PROBABILITY, PROBABILITY, THRESHOLD, ALERT_THRESHOLD),
    *(ALERT_EPISODES, ALERT_OPEN, ALERT_MESSAGES, ALERT_SUPPRESSED, SPIKE_SECONDS),
    *(LIVE_ROWS, LIVE_ALERTS, LIVE_BASE_RATE, LIVE_PRECISION, LIVE_RECALL, LIVE_BRIER, LIVE_PR_AUC),
    *(OUTCOMES_LOST, TAPE_RECORDING, TAPE_UNRECORDED, TAPE_WAITING, TAPE_HOURS, TAPE_DELETED, DISK_FREE),
)

MAX_PRODUCTS: Final = 256
"""How many products have metrics of their own; a tape may hold any number."""

IN_REAL_TIME_NS: Final = SECOND_NS
"""A source that sends past ticks at first is in real time from the first frame that is less late than this."""

RECENT_FRAMES: Final = 2048
"""How many recent latencies are kept for percentiles."""


class ProductCounts:
    """One product's counts; ``row_at`` is the time of its newest row on the clock of ``time.perf_counter_ns``."""

    __slots__ = ("episodes", "is_alert_open", "newest", "row_at", "rows", "spikes", "threshold", "ticks")

    def __init__(self) -> None:
        self.ticks = 0
        self.rows = 0
        self.newest: ScoredRow | None = None
        self.row_at = 0
        self.episodes = 0
        self.is_alert_open = False
        self.threshold: float | None = None
        self.spikes = 0


class SessionCounts:
    """The state of one session; ``heard_at`` is the time of its last frame, or else of the start.

    That time is on the clock of ``time.perf_counter_ns``. ``reason`` is that of the last change of the connection.
    """

    __slots__ = ("connections", "heard_at", "is_connected", "reason")

    def __init__(self) -> None:
        self.is_connected = False
        self.reason = "connecting"
        self.connections = 0
        self.heard_at = time.perf_counter_ns()


class FeedCounts:
    """Counts of a feed since its start; products beyond the first ``MAX_PRODUCTS`` are counted together as ``other``.

    Args:
        timed_from: time (ns UTC) from which ticks are in real time, so that latency is defined; None for never.
        stats: the statistics of the sessions, which count what makes no event; None for a source without a session.
        feeds: the protocols of the sessions, whose names are in their events; empty if they are not known.
    """

    def __init__(
        self,
        timed_from: int | None = 0,
        stats: Callable[[], FeedStats] | None = None,
        feeds: Sequence[str] = (),
    ) -> None:
        self.stats = stats
        self.started = time.time_ns()
        self._begun = time.perf_counter_ns()
        self.sessions = {feed: SessionCounts() for feed in feeds}
        self.frames = self.ticks = self.malformed = self.lost = 0
        self.last_received = 0
        self.gaps = dict.fromkeys(Cause, 0)
        self.gap_ns = dict.fromkeys(Cause, 0)
        self.unverifiable: set[str] = set()
        """Products on whose feed no loss can be noticed."""
        self.latency = Distribution(FEED_LATENCY, per_unit=SECOND_NS)
        self.is_in_real_time = timed_from == 0
        """Whether a source that sends past ticks at first has sent them; their age is no latency."""
        self.recent_latency_ns: deque[int] = deque(maxlen=RECENT_FRAMES)
        self.products: dict[str, ProductCounts] = {}
        self._timed_from = timed_from

    @property
    def is_connected(self) -> bool:
        """Whether every session is connected."""
        return bool(self.sessions) and all(session.is_connected for session in self.sessions.values())

    @property
    def reason(self) -> str:
        """The reasons why sessions are not connected, or that of the last change if all are."""
        missing = {feed: session for feed, session in self.sessions.items() if not session.is_connected}
        if len(self.sessions) > 1 and missing:
            return "; ".join(f"{feed}: {session.reason}" for feed, session in missing.items())
        return next((session.reason for session in self.sessions.values()), "connecting")

    @property
    def connections(self) -> int:
        """Connections of all sessions."""
        return sum(session.connections for session in self.sessions.values())

    @property
    def reconnects(self) -> int:
        """Connections after the first of each session."""
        return sum(max(0, session.connections - 1) for session in self.sessions.values())

    @property
    def silence_s(self) -> float:
        """Seconds since the last frame of the session that is silent longest."""
        heard = min((session.heard_at for session in self.sessions.values()), default=self._begun)
        return (time.perf_counter_ns() - heard) / SECOND_NS

    def session(self, feed: str) -> SessionCounts:
        """The counts of the session with this protocol."""
        counts = self.sessions.get(feed)
        if counts is None:
            counts = self.sessions[feed] = SessionCounts()
        return counts

    def sessions_state(self) -> list[dict[str, Any]]:
        """The state of each session for the dashboard and ``/health``; ``silence_s`` is since its last frame."""
        now = time.perf_counter_ns()
        return [
            {
                "feed": feed,
                "is_connected": session.is_connected,
                "reason": session.reason,
                "silence_s": round((now - session.heard_at) / SECOND_NS, 3),
            }
            for feed, session in self.sessions.items()
        ]

    def add(self, event: FeedEvent) -> None:
        """Count one event."""
        match event:
            case FeedFrame():
                self._add_frame(event)
            case Gap():
                self._add_gap(event)
            case FeedFault():
                self.malformed += 1
            case FeedState():
                session = self.session(event.feed)
                session.is_connected, session.reason = event.is_connected, event.reason
                session.connections += event.is_connected

    def _add_gap(self, gap: Gap) -> None:
        if not gap.verifiable:
            self.unverifiable.update(gap.products)
            return
        self.gaps[gap.cause] += 1
        self.gap_ns[gap.cause] += gap.end - gap.start
        self.lost += max(0, gap.lost)

    def _add_frame(self, event: FeedFrame) -> None:
        self.frames += 1
        self.last_received = event.received
        self.session(event.feed).heard_at = time.perf_counter_ns()
        ticks = event.frame.ticks
        if not ticks:
            return
        self.ticks += len(ticks)
        for tick in ticks:
            self.of(tick.product_id).ticks += 1
        sent = ticks[-1].time
        if self._timed_from is None or sent < self._timed_from:
            return
        late = event.received - sent
        self.is_in_real_time = self.is_in_real_time or late < IN_REAL_TIME_NS
        if self.is_in_real_time:
            self.recent_latency_ns.append(late)
            self.latency.observe(late)

    def of(self, product: str) -> ProductCounts:
        """The counts of a product."""
        counts = self.products.get(product)
        if counts is None:
            label = product if len(self.products) < MAX_PRODUCTS else OTHER
            counts = self.products.setdefault(label, ProductCounts())
        return counts


class LiveCounts(FeedCounts):
    """Counts of a live pipeline: its feed, rows, scores, alerts and spikes.

    ``threshold`` is the served model's; ``performance`` holds its metrics from delayed labels, empty until the first.
    """

    def __init__(
        self,
        timed_from: int | None,
        threshold: float,
        stats: Callable[[], FeedStats] | None = None,
        feeds: Sequence[str] = (),
    ) -> None:
        super().__init__(timed_from, stats, feeds)
        self.threshold = threshold
        self.performance: dict[str, Any] = {}
        self.scoring = Distribution(SCORE_LATENCY, per_unit=SECOND_NS)
        self.recent_scoring_ns: deque[int] = deque(maxlen=RECENT_FRAMES)
        self.probability = Distribution(SCORE_PROBABILITY)

    def add_scoring(self, elapsed_ns: int) -> None:
        """Count the time that scoring a tick took."""
        self.recent_scoring_ns.append(elapsed_ns)
        self.scoring.observe(elapsed_ns)

    def add_row(self, scored: ScoredRow, at: int) -> None:
        """Count a row; ``at`` is the time on the clock of ``time.perf_counter_ns``."""
        counts = self.of(scored.row.product_id)
        counts.rows += 1
        counts.newest, counts.row_at = scored, at
        if scored.probability == scored.probability:
            self.probability.observe(scored.probability)

    def add_episode(self, episode: Episode) -> None:
        """Count an alert that opened or closed."""
        counts = self.of(episode.product)
        counts.episodes += episode.is_open
        counts.is_alert_open = episode.is_open


class FeedCollector(Collector):
    """Metrics of a feed and its tape; may be collected in another thread."""

    def __init__(
        self,
        source: str,
        *,
        mode: Mode,
        counts: FeedCounts,
        recorder: Recorder | None = None,
        upkeep: TapeUpkeep | None = None,
    ) -> None:
        self._source, self._mode, self._feed = source, mode, counts
        self._recorder, self._upkeep = recorder, upkeep

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        counts = self._feed
        yield SOURCE_INFO.family([((self._source, str(self._mode.is_simulated).lower(), self._mode), 1.0)])
        yield FEED_CONNECTED.single(counts.is_connected)
        sessions = counts.sessions_state()
        yield FEED_SILENCE.single(counts.silence_s)
        yield SESSION_CONNECTED.family(((session["feed"],), session["is_connected"]) for session in sessions)
        yield SESSION_SILENCE.family(((session["feed"],), session["silence_s"]) for session in sessions)
        yield FEED_FRAMES.single(counts.frames)
        yield FEED_MALFORMED.single(counts.malformed)
        yield FEED_RECONNECTS.single(counts.reconnects)
        yield counts.latency.family()
        yield _by_product(FEED_TICKS, counts, lambda of: of.ticks)
        yield FEED_GAPS.family(((cause.value,), gaps) for cause, gaps in counts.gaps.items())
        seconds: Samples = (((cause.value,), ns / SECOND_NS) for cause, ns in counts.gap_ns.items())
        yield FEED_GAP_SECONDS.family(seconds)
        yield FEED_LOST.single(counts.lost)
        stats = None if counts.stats is None else counts.stats()
        yield FEED_REPEATED.family([] if stats is None else [((), stats.repeated)])
        yield FEED_UNREQUESTED.family([] if stats is None else [((), stats.unrequested)])
        yield FEED_IGNORED.family([] if stats is None else [((), stats.ignored.total())])
        refused = () if stats is None else stats.refused
        products = dict.fromkeys((*list(counts.products), *refused))
        yield FEED_REFUSED.family(((product,), product in refused) for product in products)
        recorder = self._recorder
        yield TAPE_RECORDING.family([] if recorder is None else [((), recorder.is_recording)])
        yield TAPE_UNRECORDED.family([] if recorder is None else [((), recorder.unrecorded)])
        yield TAPE_WAITING.family([] if recorder is None else [((), recorder.waiting)])
        upkeep = self._upkeep
        yield TAPE_HOURS.family([] if upkeep is None else [((), upkeep.hours)])
        yield TAPE_DELETED.family([] if upkeep is None else [((), upkeep.deleted)])
        free = None if upkeep is None else upkeep.free_bytes
        yield DISK_FREE.family([] if free is None else [((), free)])


class LiveCollector(FeedCollector):
    """Metrics of a live pipeline; collect it in the pipeline's thread. Absent parts have no values."""

    def __init__(
        self,
        source: str,
        *,
        mode: Mode,
        counts: LiveCounts,
        recorder: Recorder | None = None,
        upkeep: TapeUpkeep | None = None,
        router: AlertRouter | None = None,
        outcomes: OutcomeStore | None = None,
    ) -> None:
        super().__init__(source, mode=mode, counts=counts, recorder=recorder, upkeep=upkeep)
        self._counts, self._router, self._outcomes = counts, router, outcomes

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        yield from super().collect()
        yield from _row_metrics(self._counts)
        yield from _alert_metrics(self._counts, self._router)
        yield from _performance_metrics(self._counts.performance)
        yield OUTCOMES_LOST.family([] if self._outcomes is None else [((), self._outcomes.lost)])

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return (spec.family([]) for spec in LIVE_METRICS)


def _by_product(spec: MetricSpec, counts: FeedCounts, value: Callable[[ProductCounts], float | None]) -> Metric:
    """A value of each product that has one."""
    values = ((product, value(of)) for product, of in list(counts.products.items()))
    return spec.family(((product,), number) for product, number in values if number is not None)


def _row_metrics(counts: LiveCounts) -> Iterator[Metric]:
    now = time.perf_counter_ns()
    yield _by_product(FEATURE_ROWS, counts, lambda of: of.rows)
    yield _by_product(FEATURE_AGE, counts, lambda of: (now - of.row_at) / SECOND_NS if of.newest is not None else None)
    yield _by_product(FEATURE_WARM, counts, lambda of: of.newest and float(of.newest.row.is_warm))
    yield _by_product(FEATURE_WHOLE, counts, lambda of: of.newest and float(of.newest.row.is_whole))
    yield counts.scoring.family()
    yield counts.probability.family()
    yield _by_product(PROBABILITY, counts, lambda of: of.newest and of.newest.probability)
    yield THRESHOLD.single(counts.threshold)
    yield _by_product(ALERT_THRESHOLD, counts, lambda of: of.threshold)


def _alert_metrics(counts: LiveCounts, router: AlertRouter | None) -> Iterator[Metric]:
    yield _by_product(ALERT_EPISODES, counts, lambda of: of.episodes)
    yield _by_product(ALERT_OPEN, counts, lambda of: of.is_alert_open)
    yield _by_product(SPIKE_SECONDS, counts, lambda of: of.spikes)
    suppressed = {} if router is None else router.rules.suppressed
    yield ALERT_SUPPRESSED.family(((reason.value,), number) for reason, number in suppressed.items())
    deliveries = () if router is None else router.deliveries
    yield ALERT_MESSAGES.family(
        [
            (("sent",), sum(each.sent for each in deliveries)),
            (("failed",), sum(each.failures for each in deliveries)),
            (("given_up",), sum(each.given_up for each in deliveries)),
            (("let_go",), 0 if router is None else router.dropped),
        ]
    )


def _performance_metrics(figures: dict[str, Any]) -> Iterator[Metric]:
    """The metrics from delayed labels; without values until they are first computed."""
    for spec, name in (
        (LIVE_ROWS, "rows"),
        (LIVE_ALERTS, "alert_rows"),
        (LIVE_BASE_RATE, "base_rate"),
        (LIVE_PRECISION, "precision"),
        (LIVE_RECALL, "recall"),
        (LIVE_BRIER, "brier"),
        (LIVE_PR_AUC, "pr_auc"),
    ):
        yield spec.family([((), nan if figures[name] is None else figures[name])] if figures else [])


def percentiles(values: deque[int], unit: int) -> dict[str, float | None]:
    """Median and 99th percentile in ``unit`` ns; null without values."""
    if not values:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(np.fromiter(values, np.int64), [50, 99]) / unit
    return {"p50": float(p50), "p99": float(p99)}
