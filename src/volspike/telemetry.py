"""How a metric is declared: once, with kind, unit and a sentence; collectors and the docs page are made of that.

What happens often is counted in plain numbers and becomes a metric when somebody asks: see ``Distribution`` and
``Declared.family``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Literal, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

OTHER: Final = "other"
"""The label of whatever has none of its own."""

LABELS: Final = {
    "cause": "how a gap is known: sequence, silence, reconnect, restart, overflow",
    "endpoint": "a route of the application, else other",
    "feature_digest": "that of the served model",
    "figure": "precision, recall, brier, pr_auc, base_rate",
    "method": "HTTP's own methods, else other",
    "model": "the served model, or the one trained last",
    "model_version": "the models served since the start",
    "outcome": "promoted, kept, failed (a training); swapped, refused (a model found)",
    "partition": "the partitions that the worker has",
    "prediction": "0 or 1",
    "product": "the products listened to, of a tape the first 64, else other",
    "result": "sent, failed, given_up, let_go",
    "severity": "none, low, medium, high",
    "simulated": "true or false",
    "source": "the one source",
    "status": "HTTP's own status codes",
    "version": "that of the served model: the first 12 digits of its hash",
}
"""Every label that a metric may have, and the bounded set that its values come from."""

PROBABILITIES: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Bounds for probabilities of something rare: most lie near zero."""

Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
"""Label values in the order in which they are declared, and the number that belongs to them."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric as its reader needs to know it; ``buckets`` are the upper bounds of a histogram's, in ``unit``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def counter(self, registry: CollectorRegistry) -> Counter:
        """A counter that counts by itself."""
        return Counter(self.name, self.meaning, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """A gauge that keeps what it is set to."""
        return Gauge(self.name, self.meaning, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """A histogram that counts by itself."""
        return Histogram(self.name, self.meaning, self.labels, buckets=self.buckets, registry=registry)

    def family(self, samples: Samples) -> Metric:
        """A counter or gauge of numbers that were kept elsewhere; without samples it is declared and has no value."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = kind(self.name, self.meaning, labels=self.labels)
        for values, number in samples:
            family.add_metric(values, number)
        return family

    def one(self, number: float) -> Metric:
        """The family of a metric without labels."""
        return self.family([((), number)])


class Distribution:
    """A histogram in plain numbers, of one thread: an observation costs a search among the bounds and two sums.

    Args:
        declared: a histogram; its buckets are the bounds.
        per_unit: how many of what is observed make one of the declared unit: 10^9 for nanoseconds told in seconds.
    """

    __slots__ = ("_bounds", "_counts", "_declared", "_per_unit", "_sum")

    def __init__(self, declared: Declared, per_unit: float = 1.0) -> None:
        self._declared = declared
        self._per_unit = per_unit
        self._bounds = [bound * per_unit for bound in declared.buckets]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """One more value, which is a number."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    def family(self) -> Metric:
        """The histogram as it stands."""
        bounds = [*map(floatToGoString, self._declared.buckets), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
        return HistogramMetricFamily(
            self._declared.name, self._declared.meaning, buckets=buckets, sum_value=self._sum / self._per_unit
        )
