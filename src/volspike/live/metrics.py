"""The metrics of the live pipeline, declared; ``live_collector`` makes them of what it counted.

What a live pipeline counts of its own doings: plain numbers, a fraction of a microsecond each.
"""

from __future__ import annotations

import time
from typing import Final

from volspike.episodes import Episode
from volspike.live.scoring import ScoredRow
from volspike.market import SECOND_NS, Cause, Gap
from volspike.telemetry import OTHER, PROBABILITIES, Declared, Distribution

FEED_CONNECTED: Final = Declared("feed_connected", "gauge", "boolean", "1 while the exchange is connected, else 0.")
FEED_SILENCE: Final = Declared(
    "feed_silence_seconds", "gauge", "seconds", "Time since the last frame of the exchange, heartbeats included."
)
FEED_FRAMES: Final = Declared("feed_frames_total", "counter", "frames", "Frames taken from the exchange.")
FEED_MALFORMED: Final = Declared("feed_malformed_total", "counter", "frames", "Frames that could not be read.")
FEED_TICKS: Final = Declared("feed_ticks_total", "counter", "ticks", "Ticks taken, by product.", ("product",))
FEED_LATENCY: Final = Declared(
    "feed_latency_seconds",
    "histogram",
    "seconds",
    "From the exchange's clock at a frame's last tick to ours; where the source tells the wall's time.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
FEED_GAPS: Final = Declared(
    "feed_gaps_total", "counter", "gaps", "Stretches of time in which something was lost, by cause.", ("cause",)
)
FEED_GAP_SECONDS: Final = Declared(
    "feed_gap_seconds_total", "counter", "seconds", "How long those lasted together, by cause.", ("cause",)
)
FEED_LOST: Final = Declared(
    "feed_lost_messages_total", "counter", "messages", "Messages lost, as far as the exchange's own numbers tell."
)
FEED_RECONNECTS: Final = Declared(
    "feed_reconnects_total", "counter", "connections", "Connections made after the first one."
)
SOURCE_INFO: Final = Declared(
    "live_source_info",
    "gauge",
    "boolean",
    "1, with the source's name and whether it is simulated.",
    ("source", "simulated"),
)
FEATURE_ROWS: Final = Declared("feature_rows_total", "counter", "rows", "Feature rows made, by product.", ("product",))
FEATURE_AGE: Final = Declared(
    "feature_age_seconds", "gauge", "seconds", "Time since a product's newest feature row was made.", ("product",)
)
FEATURE_WARM: Final = Declared(
    "feature_warm",
    "gauge",
    "boolean",
    "1 while the windows of a product's newest row reach back far enough.",
    ("product",),
)
FEATURE_WHOLE: Final = Declared(
    "feature_whole",
    "gauge",
    "boolean",
    "1 while nothing is lost in the windows of a product's newest row.",
    ("product",),
)
SCORE_LATENCY: Final = Declared(
    "score_latency_seconds",
    "histogram",
    "seconds",
    "From a tick at hand to its rows and their probabilities.",
    buckets=(0.000005, 0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25),
)
SCORE_PROBABILITY: Final = Declared(
    "score_probability",
    "histogram",
    "probability",
    "The probabilities of all rows scored.",
    buckets=PROBABILITIES,
)
PROBABILITY: Final = Declared(
    "spike_probability",
    "gauge",
    "probability",
    "The newest row's probability; NaN while it is not known.",
    ("product",),
)
THRESHOLD: Final = Declared("spike_threshold", "gauge", "probability", "The probability from which an alert is called.")
ALERT_EPISODES: Final = Declared(
    "alert_episodes_total", "counter", "episodes", "Alert episodes that opened, by product.", ("product",)
)
ALERT_OPEN: Final = Declared(
    "alert_open", "gauge", "boolean", "1 while an alert episode of the product is open, else 0.", ("product",)
)
ALERT_MESSAGES: Final = Declared(
    "alert_messages_total",
    "counter",
    "messages",
    "What became of alerts on their way to receivers: sent, an attempt failed, given up, or let go unsent.",
    ("result",),
)
SPIKE_SECONDS: Final = Declared(
    "spike_seconds_total", "counter", "seconds", "Seconds whose next minute turned out to be a spike.", ("product",)
)
LIVE_JUDGED: Final = Declared(
    "live_judged_rows", "gauge", "rows", "Predictions of the last 24 hours whose minute is over."
)
LIVE_CALLED: Final = Declared("live_called_rows", "gauge", "rows", "Those of them that were called a spike.")
LIVE_BASE_RATE: Final = Declared(
    "live_base_rate", "gauge", "share", "Which part of them turned out to be a spike; NaN without any."
)
LIVE_PRECISION: Final = Declared(
    "live_precision", "gauge", "share", "Which part of those called was a spike; NaN while none was called."
)
LIVE_RECALL: Final = Declared(
    "live_recall", "gauge", "share", "Which part of the spikes was called; NaN while there was none."
)
LIVE_BRIER: Final = Declared(
    "live_brier", "gauge", "squared probability", "Mean squared error of their probabilities; NaN without any."
)
LIVE_PR_AUC: Final = Declared(
    "live_pr_auc", "gauge", "share", "Area under their precision-recall curve; NaN while there was no spike."
)
OUTCOMES_LOST: Final = Declared(
    "outcomes_lost_total", "counter", "rows", "Predictions and outcomes that could not be kept."
)
TAPE_UNRECORDED: Final = Declared(
    "tape_unrecorded_ticks_total", "counter", "ticks", "Ticks that are on no tape because it could not be written."
)
TAPE_RECORDING: Final = Declared(
    "tape_recording", "gauge", "boolean", "1 while the tape is written, 0 where it should be and cannot."
)

DECLARED: Final = (
    *(FEED_CONNECTED, FEED_SILENCE, FEED_FRAMES, FEED_MALFORMED, FEED_TICKS, FEED_LATENCY),
    *(FEED_GAPS, FEED_GAP_SECONDS, FEED_LOST, FEED_RECONNECTS, SOURCE_INFO),
    *(FEATURE_ROWS, FEATURE_AGE, FEATURE_WARM, FEATURE_WHOLE),
    *(SCORE_LATENCY, SCORE_PROBABILITY, PROBABILITY, THRESHOLD),
    *(ALERT_EPISODES, ALERT_OPEN, ALERT_MESSAGES, SPIKE_SECONDS),
    *(LIVE_JUDGED, LIVE_CALLED, LIVE_BASE_RATE, LIVE_PRECISION, LIVE_RECALL, LIVE_BRIER, LIVE_PR_AUC),
    *(OUTCOMES_LOST, TAPE_RECORDING, TAPE_UNRECORDED),
)


MOST_PRODUCTS: Final = 64
"""How many products are counted apart; a tape may hold any number."""


class ProductCounts:
    """One product's counts; ``row_at`` is when its newest row was made, by the clock of ``time.perf_counter_ns``."""

    __slots__ = ("episodes", "is_alert_open", "newest", "row_at", "rows", "spikes", "ticks")

    def __init__(self) -> None:
        self.ticks = 0
        self.rows = 0
        self.newest: ScoredRow | None = None
        self.row_at = 0
        self.episodes = 0
        self.is_alert_open = False
        self.spikes = 0


class LiveCounts:
    """The counts of one pipeline since its start; products beyond the first ``MOST_PRODUCTS`` are one, ``other``."""

    def __init__(self) -> None:
        self.products: dict[str, ProductCounts] = {}
        self.latency = Distribution(FEED_LATENCY, per_unit=SECOND_NS)
        self.scoring = Distribution(SCORE_LATENCY, per_unit=SECOND_NS)
        self.probability = Distribution(SCORE_PROBABILITY)
        self.gaps = dict.fromkeys(Cause, 0)
        self.gap_ns = dict.fromkeys(Cause, 0)
        self.lost = 0
        self.heard_at = time.perf_counter_ns()
        """When the last frame was taken, by the clock of ``time.perf_counter_ns``; at first, the start."""

    def of(self, product: str) -> ProductCounts:
        """The counts of a product."""
        counts = self.products.get(product)
        if counts is None:
            label = product if len(self.products) < MOST_PRODUCTS else OTHER
            counts = self.products.setdefault(label, ProductCounts())
        return counts

    def row(self, scored: ScoredRow, at: int) -> None:
        """One more row, made at ``at``."""
        counts = self.of(scored.row.product_id)
        counts.rows += 1
        counts.newest, counts.row_at = scored, at
        if scored.probability == scored.probability:
            self.probability.observe(scored.probability)

    def episode(self, episode: Episode) -> None:
        """An alert episode opened or closed."""
        counts = self.of(episode.product)
        counts.episodes += episode.is_open
        counts.is_alert_open = episode.is_open

    def gap(self, gap: Gap) -> None:
        """Something was lost."""
        self.gaps[gap.cause] += 1
        self.gap_ns[gap.cause] += gap.end - gap.start
        self.lost += max(0, gap.lost)
