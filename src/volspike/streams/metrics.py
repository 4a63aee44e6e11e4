"""Every metric of a worker, declared once with its kind, unit and a sentence; one registry per worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric as its reader needs to know it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()


MESSAGES: Final = Declared("stream_messages_total", "counter", "messages", "Messages taken and committed.")
RESULTS: Final = Declared("stream_results_total", "counter", "messages", "Rows or predictions written and committed.")
DEAD: Final = Declared("stream_dead_letters_total", "counter", "messages", "Messages set aside as unreadable.")
RECOVERED: Final = Declared(
    "stream_recovered_messages_total", "counter", "messages", "Messages read once more to rebuild state."
)
ABORTS: Final = Declared("stream_aborts_total", "counter", "transactions", "Transactions taken back and done again.")
COMMIT_SECONDS: Final = Declared(
    "stream_commit_seconds", "histogram", "seconds", "From the last row of a transaction handed over to its commit."
)
LAG: Final = Declared(
    "stream_lag_messages", "gauge", "messages", "Offsets between what is taken and the partition's end.", ("partition",)
)
PARTITIONS: Final = Declared("stream_partitions", "gauge", "partitions", "Partitions that this worker has.")

DECLARED: Final = (MESSAGES, RESULTS, DEAD, RECOVERED, ABORTS, COMMIT_SECONDS, LAG, PARTITIONS)

COMMIT_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class WorkerMetrics:
    """The collectors of one worker."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = self._counter(MESSAGES)
        self.results = self._counter(RESULTS)
        self.dead = self._counter(DEAD)
        self.recovered = self._counter(RECOVERED)
        self.aborts = self._counter(ABORTS)
        self.commit_seconds = Histogram(
            COMMIT_SECONDS.name, COMMIT_SECONDS.meaning, buckets=COMMIT_BUCKETS, registry=self.registry
        )
        self.partitions = Gauge(PARTITIONS.name, PARTITIONS.meaning, registry=self.registry)
        self._lag = Gauge(LAG.name, LAG.meaning, LAG.labels, registry=self.registry)

    def _counter(self, declared: Declared) -> Counter:
        return Counter(declared.name, declared.meaning, registry=self.registry)

    def set_lag(self, lags: dict[int, int]) -> None:
        """The lag of each partition that the worker has; those of others go."""
        self._lag.clear()
        for partition, lag in lags.items():
            self._lag.labels(str(partition)).set(lag)
