"""The metrics and the progress of a Kafka worker; each worker has a registry of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import TopicPartition
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.streams.state import AssignedPartition
from volspike.telemetry import PROBABILITIES, Distribution, MetricSpec

MESSAGES: Final = MetricSpec("stream_messages_total", "counter", "messages", "Messages processed and committed.")
RESULTS: Final = MetricSpec("stream_results_total", "counter", "messages", "Rows or predictions written and committed.")
DEAD: Final = MetricSpec(
    "stream_dead_letters_total", "counter", "messages", "Unreadable messages sent to the dead-letter topic."
)
RECOVERED: Final = MetricSpec(
    "stream_recovered_messages_total", "counter", "messages", "Messages read again to rebuild state."
)
ABORTS: Final = MetricSpec("stream_aborts_total", "counter", "transactions", "Transactions aborted and repeated.")
COMMIT_SECONDS: Final = MetricSpec(
    "stream_commit_seconds",
    "histogram",
    "seconds",
    "Time from the last row of a transaction to its commit.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
LAG: Final = MetricSpec(
    "stream_lag_messages",
    "gauge",
    "messages",
    "Offsets between the last processed message and the end of the partition.",
    ("partition",),
)
PARTITIONS: Final = MetricSpec("stream_partitions", "gauge", "partitions", "Partitions assigned to this worker.")

PROBABILITY: Final = MetricSpec(
    "stream_probability",
    "histogram",
    "probability",
    "Probabilities that a predictor wrote and committed.",
    buckets=PROBABILITIES,
)
UNSCORED: Final = MetricSpec(
    "stream_unscored_rows_total",
    "counter",
    "rows",
    "Rows committed without a probability: not warm, or a value is missing.",
)
EPISODES: Final = MetricSpec(
    "stream_alert_episodes_total", "counter", "episodes", "Alert episodes that opened in a predictor's rows."
)

DECLARED: Final = (
    *(MESSAGES, RESULTS, DEAD, RECOVERED, ABORTS, COMMIT_SECONDS, LAG, PARTITIONS),
    *(PROBABILITY, UNSCORED, EPISODES),
)


class WorkerMetrics:
    """The collectors of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = MESSAGES.counter(self.registry)
        self.results = RESULTS.counter(self.registry)
        self.dead = DEAD.counter(self.registry)
        self.recovered = RECOVERED.counter(self.registry)
        self.aborts = ABORTS.counter(self.registry)
        self.commit_seconds = COMMIT_SECONDS.histogram(self.registry)
        self.partitions = PARTITIONS.gauge(self.registry)
        self._lag = LAG.gauge(self.registry)

    def set_lag(self, lags: dict[int, int]) -> None:
        """Sets the lag of each assigned partition and removes all others."""
        self._lag.clear()
        for partition, lag in lags.items():
            self._lag.labels(str(partition)).set(lag)


class PredictionMetrics(Collector):
    """Counts of a predictor's committed rows, kept as plain numbers for speed: tens of thousands of rows a second."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._probability = Distribution(PROBABILITY)
        self._unscored = self._episodes = 0
        registry.register(self)

    def rows(self, probabilities: Iterable[float | None]) -> None:
        """Counts committed rows."""
        for probability in probabilities:
            if probability is None:
                self._unscored += 1
            else:
                self._probability.observe(probability)

    def episode(self, *, is_open: bool) -> None:
        """Counts an alert episode that was sent, if it opened."""
        self._episodes += is_open

    def collect(self) -> Iterator[Metric]:
        """The current metrics."""
        yield self._probability.family()
        yield UNSCORED.single(self._unscored)
        yield EPISODES.single(self._episodes)


SHOW_EVERY_S: Final = 0.5


@dataclass(slots=True)
class WorkerProgress:
    """The progress of a worker; ``lag`` counts the offsets that wait in its partitions."""

    messages: int = 0
    results: int = 0
    dead: int = 0
    transactions: int = 0
    aborts: int = 0
    recovered: int = 0
    lag: int = 0
    partitions: tuple[int, ...] = ()
    seconds: float = 0.0
    is_settled: bool = False
    """Whether everything processed was committed with snapshots at the end."""

    @property
    def rate(self) -> float:
        """Messages per second since the start."""
        return self.messages / self.seconds if self.seconds > 0 else 0.0


class WorkerTally:
    """Keeps progress and metrics; ``show`` is called with the progress about twice a second."""

    def __init__(
        self,
        show: Callable[[WorkerProgress], None],
        metrics: WorkerMetrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.progress = WorkerProgress()
        self._show = show
        self._metrics = metrics
        self._clock = clock
        self._began = self._shown = clock()

    def begin(self) -> None:
        """Starts the clock."""
        self._began = self._shown = self._clock()

    def count_commit(self, taken: int, results: int, dead: int) -> None:
        """Counts a committed transaction."""
        progress, metrics = self.progress, self._metrics
        progress.messages += taken
        progress.results += results
        progress.dead += dead
        progress.transactions += 1
        metrics.messages.inc(taken)
        metrics.results.inc(results)
        metrics.dead.inc(dead)

    def count_abort(self) -> None:
        """Counts an aborted transaction."""
        self.progress.aborts += 1
        self._metrics.aborts.inc()

    def count_recovered(self, messages: int) -> None:
        """Counts messages that were processed again."""
        self.progress.recovered += messages
        self._metrics.recovered.inc(messages)

    def observe_commit(self, seconds: float) -> None:
        """Records the duration of a commit."""
        self._metrics.commit_seconds.observe(seconds)

    def update(self, assigned: Iterable[AssignedPartition], consumer: Any, topic: str) -> None:
        """Reports the progress if it is due."""
        now = self._clock()
        self.progress.seconds = now - self._began
        if now - self._shown >= SHOW_EVERY_S:
            self._shown = now
            self.report(assigned, consumer, topic)

    def report(self, assigned: Iterable[AssignedPartition], consumer: Any, topic: str) -> None:
        """Reports the progress; the ends of the partitions are those of the last fetches."""
        lags = {}
        for partition in assigned:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition.number), cached=True)
            lags[partition.number] = max(0, high - partition.position)
        self.progress.lag = sum(lags.values())
        self.progress.partitions = tuple(sorted(lags))
        self._metrics.set_lag(lags)
        self._metrics.partitions.set(len(lags))
        self._show(self.progress)
