"""How far a worker is: told to a screen about twice a second, and to Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import TopicPartition

from volspike.streams.metrics import WorkerMetrics
from volspike.streams.recovery import Held

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
