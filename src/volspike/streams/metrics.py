"""The metrics of a worker; one registry per worker."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry

from volspike.telemetry import Declared

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

DECLARED: Final = (MESSAGES, RESULTS, DEAD, RECOVERED, ABORTS, COMMIT_SECONDS, LAG, PARTITIONS)


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
