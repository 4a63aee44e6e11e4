"""The metrics of a worker; one registry per worker.

How far a worker is: told to a screen about twice a second, and to Prometheus.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import TopicPartition
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.streams.state import Held
from volspike.telemetry import PROBABILITIES, Declared, Distribution

MESSAGES: Final = Declared("stream_messages_total", "counter", "messages", "Messages taken and committed.")
RESULTS: Final = Declared("stream_results_total", "counter", "messages", "Rows or predictions written and committed.")
DEAD: Final = Declared("stream_dead_letters_total", "counter", "messages", "Messages set aside as unreadable.")
RECOVERED: Final = Declared(
    "stream_recovered_messages_total", "counter", "messages", "Messages read once more to rebuild state."
)
ABORTS: Final = Declared("stream_aborts_total", "counter", "transactions", "Transactions taken back and done again.")
COMMIT_SECONDS: Final = Declared(
    "stream_commit_seconds",
    "histogram",
    "seconds",
    "From the last row of a transaction handed over to its commit.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0),
)
LAG: Final = Declared(
    "stream_lag_messages", "gauge", "messages", "Offsets between what is taken and the partition's end.", ("partition",)
)
PARTITIONS: Final = Declared("stream_partitions", "gauge", "partitions", "Partitions that this worker has.")

PROBABILITY: Final = Declared(
    "stream_probability",
    "histogram",
    "probability",
    "The probabilities that a predictor wrote and committed.",
    buckets=PROBABILITIES,
)
UNSCORED: Final = Declared(
    "stream_unscored_rows_total",
    "counter",
    "rows",
    "Rows committed without a probability: not warm, or a value is missing.",
)
EPISODES: Final = Declared(
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
        """The lag of each partition that the worker has; those of others go."""
        self._lag.clear()
        for partition, lag in lags.items():
            self._lag.labels(str(partition)).set(lag)


class PredictionMetrics(Collector):
    """What a predictor's committed rows came to, in plain numbers: tens of thousands of rows a second pass here."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._probability = Distribution(PROBABILITY)
        self._unscored = self._episodes = 0
        registry.register(self)

    def rows(self, probabilities: Iterable[float | None]) -> None:
        """Rows that were committed."""
        for probability in probabilities:
            if probability is None:
                self._unscored += 1
            else:
                self._probability.observe(probability)

    def episode(self, *, is_open: bool) -> None:
        """An alert episode opened or closed, and was told."""
        self._episodes += is_open

    def collect(self) -> Iterator[Metric]:
        """The metrics as they stand."""
        yield self._probability.family()
        yield UNSCORED.one(self._unscored)
        yield EPISODES.one(self._episodes)


SHOW_EVERY_S: Final = 0.5


@dataclass(slots=True)
class WorkerProgress:
    """How far a worker is; ``lag`` counts offsets that wait in its partitions."""

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
    """Whether the end was in order: everything that was taken is committed, with snapshots."""

    @property
    def rate(self) -> float:
        """Messages a second since the start."""
        return self.messages / self.seconds if self.seconds > 0 else 0.0


class Tally:
    """Keeps a progress and the metrics; ``show`` is told of the progress now and then."""

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
        """Seconds count from here."""
        self._began = self._shown = self._clock()

    def committed(self, taken: int, results: int, dead: int) -> None:
        """A transaction with so many messages went through."""
        progress, metrics = self.progress, self._metrics
        progress.messages += taken
        progress.results += results
        progress.dead += dead
        progress.transactions += 1
        metrics.messages.inc(taken)
        metrics.results.inc(results)
        metrics.dead.inc(dead)

    def aborted(self) -> None:
        """One was taken back."""
        self.progress.aborts += 1
        self._metrics.aborts.inc()

    def recovered(self, messages: int) -> None:
        """So many were read once more."""
        self.progress.recovered += messages
        self._metrics.recovered.inc(messages)

    def ended(self, seconds: float) -> None:
        """A commit took so long."""
        self._metrics.commit_seconds.observe(seconds)

    def pass_by(self, helds: Iterable[Held], consumer: Any, topic: str) -> None:
        """Tells how it goes where it is time to."""
        now = self._clock()
        self.progress.seconds = now - self._began
        if now - self._shown >= SHOW_EVERY_S:
            self._shown = now
            self.tell(helds, consumer, topic)

    def tell(self, helds: Iterable[Held], consumer: Any, topic: str) -> None:
        """Tells how it goes; the partitions' ends are those that the last fetches told."""
        lags = {}
        for held in helds:
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, held.number), cached=True)
            lags[held.number] = max(0, high - held.position)
        self.progress.lag = sum(lags.values())
        self.progress.partitions = tuple(sorted(lags))
        self._metrics.set_lag(lags)
        self._metrics.partitions.set(len(lags))
        self._show(self.progress)
