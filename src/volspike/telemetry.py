"""Metric declarations: name, kind, unit and meaning of each metric, declared once.

Collectors and the documentation page are made from them. Frequent events are counted in plain numbers and become
metrics when they are collected: see ``Distribution`` and ``MetricSpec.family``.
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
"""The label value for everything outside the bounded set."""

LABELS: Final = {
    "cause": "how a gap was detected: sequence, silence, reconnect, restart, overflow",
    "endpoint": "a route of the application, or other",
    "feature_digest": "the digest of the served model's features",
    "figure": "precision, recall, brier, pr_auc, base_rate",
    "method": "the standard HTTP methods, or other",
    "model": "the served model, or the model of the last training run",
    "model_version": "the models served since the start",
    "outcome": "promoted, kept, failed (training runs); swapped, refused (new models)",
    "partition": "the partitions assigned to the worker",
    "prediction": "0 or 1",
    "mode": "live, replay, simulated or simulated replay",
    "product": "the subscribed products, or the first 256 of a tape; or other",
    "feed": "the protocols in use: coinbase, binance, …; or tape",
    "reason": "quiet_hours, snoozed",
    "result": "sent, failed, given_up, let_go",
    "severity": "none, low, medium, high",
    "simulated": "true or false",
    "source": "the source of the process",
    "status": "HTTP status codes",
    "task": "alert expiry, alerts, calibration, compaction, health, kafka, markets, model folder, outcomes, "
    "outcomes file, performance, quiet hours, retraining, rows, tape, tape recording, upkeep",
    "version": "the first 12 digits of the SHA-256 of the served model",
}
"""Every label of a metric, and the bounded set of its values."""

PROBABILITIES: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Bucket bounds for the probability of a rare event: most values are near zero."""

Samples: TypeAlias = Iterable[tuple[tuple[str, ...], float]]
"""Label values in the declared order, each with its number."""


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """The declaration of a metric; ``buckets`` are a histogram's upper bounds, in ``unit``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    def counter(self, registry: CollectorRegistry) -> Counter:
        """A counter of the Prometheus client."""
        return Counter(self.name, self.meaning, self.labels, registry=registry)

    def gauge(self, registry: CollectorRegistry) -> Gauge:
        """A gauge of the Prometheus client."""
        return Gauge(self.name, self.meaning, self.labels, registry=registry)

    def histogram(self, registry: CollectorRegistry) -> Histogram:
        """A histogram of the Prometheus client."""
        return Histogram(self.name, self.meaning, self.labels, buckets=self.buckets, registry=registry)

    def family(self, samples: Samples) -> Metric:
        """A counter or gauge with values that were counted elsewhere; without samples it has no value."""
        kind = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = kind(self.name, self.meaning, labels=self.labels)
        for values, number in samples:
            family.add_metric(values, number)
        return family

    def single(self, number: float) -> Metric:
        """The family of a metric without labels."""
        return self.family([((), number)])


class Distribution:
    """A histogram in plain numbers, for one thread: an observation costs a binary search and two additions.

    Args:
        spec: a histogram; its buckets are the bounds.
        per_unit: observed units per declared unit: 10^9 if nanoseconds are observed and seconds exposed.
    """

    __slots__ = ("_bounds", "_counts", "_per_unit", "_spec", "_sum")

    def __init__(self, spec: MetricSpec, per_unit: float = 1.0) -> None:
        self._spec = spec
        self._per_unit = per_unit
        self._bounds = [bound * per_unit for bound in spec.buckets]
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Add a value, which must not be NaN."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """The number of observed values."""
        return sum(self._counts)

    def family(self) -> Metric:
        """The histogram of all values so far."""
        bounds = [*map(floatToGoString, self._spec.buckets), "+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
        return HistogramMetricFamily(
            self._spec.name, self._spec.meaning, buckets=buckets, sum_value=self._sum / self._per_unit
        )
