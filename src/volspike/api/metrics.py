"""Metrics of the API, the served model, and the last training run and drift check: declarations and collection."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, get_args

import structlog
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.errors import UnreadableFile
from volspike.market import SECOND_NS, parse_time
from volspike.models import Artifact
from volspike.monitoring.results import (
    DriftResult,
    Result,
    ResultSeverity,
    TrainingOutcome,
    TrainingResult,
    read_result,
)
from volspike.telemetry import OTHER, MetricSpec

log = structlog.get_logger(__name__)

FIGURES: Final = ("precision", "recall", "brier", "pr_auc", "base_rate")

LATENCY_BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(0.8, 1.0, 2.5),  # 0.8 s is the service level objective of the alert rules
)

HTTP_REQUESTS: Final = MetricSpec(
    "http_requests_total",
    "counter",
    "requests",
    "HTTP requests, by method, route (or other) and status.",
    ("method", "endpoint", "status"),
)
PREDICTION_LATENCY: Final = MetricSpec(
    "prediction_latency_seconds",
    "histogram",
    "seconds",
    "Time from the complete body of a /predict request to its encoded response; scored requests only.",
    buckets=LATENCY_BUCKETS,
)
PREDICTIONS: Final = MetricSpec(
    "predictions_total",
    "counter",
    "rows",
    "Scored rows, by model and prediction (0 or 1).",
    ("model_version", "prediction"),
)
MODEL_LOADED: Final = MetricSpec("model_loaded", "gauge", "boolean", "1 while a model is served, else 0.")
MODEL_SWAPS: Final = MetricSpec(
    "model_swaps_total",
    "counter",
    "models",
    "New models found in the model folder, by outcome: swapped, or refused (the previous model stays).",
    ("outcome",),
)

API_METRICS: Final = (HTTP_REQUESTS, PREDICTION_LATENCY, PREDICTIONS, MODEL_LOADED, MODEL_SWAPS)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SWAP_OUTCOMES: Final = ("swapped", "refused")
INITIAL_STATUSES: Final = ("200", "500", "503")
"""Statuses of ``/predict`` that are exposed as 0 from the start: ``rate()`` misses the first sample of a new series."""


class ApiMetrics:
    """The registry and counters of one application. Label values come from bounded sets only."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.latency = PREDICTION_LATENCY.histogram(self.registry)
        self.model_loaded = MODEL_LOADED.gauge(self.registry)
        self._requests = HTTP_REQUESTS.counter(self.registry)
        for status in INITIAL_STATUSES:
            self._requests.labels("POST", "/predict", status)
        self._predictions = PREDICTIONS.counter(self.registry)
        swaps = MODEL_SWAPS.counter(self.registry)
        self._swaps = {outcome: swaps.labels(outcome) for outcome in SWAP_OUTCOMES}
        self._request_children: dict[tuple[str, str, int], Counter] = {}

    def count_request(self, method: str, endpoint: str, status: int) -> None:
        """Count a response; ``endpoint`` is a route's path or ``other``."""
        key = (method, endpoint, status)
        child = self._request_children.get(key)
        if child is None:
            child = self._requests.labels(method if method in METHODS else OTHER, endpoint, str(status))
            # other methods are not kept, so that the table is bounded as the labels are
            if method in METHODS:
                self._request_children[key] = child
        child.inc()

    def count_swap(self, outcome: str) -> None:
        """Count a new model found in the model folder; ``outcome`` is one of ``SWAP_OUTCOMES``."""
        self._swaps[outcome].inc()

    def prediction_counters(self, model_version: str) -> tuple[Counter, Counter]:
        """The counters of a model's rows predicted 0 and 1; both are exposed from now on."""
        return self._predictions.labels(model_version, "0"), self._predictions.labels(model_version, "1")

    def exposition(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self.registry)


MODEL_INFO: Final = MetricSpec(
    "model_info",
    "gauge",
    "boolean",
    "Always 1; the labels describe the served model.",
    ("model", "version", "feature_digest", "simulated"),
)
MODEL_CREATED: Final = MetricSpec(
    "model_created_timestamp_seconds", "gauge", "seconds since 1970", "When the served model was trained."
)
MODEL_DATA_END: Final = MetricSpec(
    "model_data_end_timestamp_seconds", "gauge", "seconds since 1970", "The end of the served model's training data."
)
MODEL_FIGURE: Final = MetricSpec(
    "model_figure",
    "gauge",
    "share",
    "Metrics of the served model on its test rows, from its training run.",
    ("figure",),
)

MODEL_METRICS: Final = (MODEL_INFO, MODEL_CREATED, MODEL_DATA_END, MODEL_FIGURE)

VERSION_DIGITS: Final = 12


class ModelCollector(Collector):
    """Describes the model that ``served`` returns at each scrape; without a model nothing has a value."""

    def __init__(self, served: Callable[[], Artifact | None]) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """The metrics of the model."""
        artifact = self._served()
        if artifact is None:
            yield from self.describe()
            return
        metadata = artifact.metadata
        version, simulated = metadata.onnx_sha256[:VERSION_DIGITS], str(metadata.simulated).lower()
        yield MODEL_INFO.family([((artifact.name, version, metadata.feature_digest, simulated), 1.0)])
        for spec, time in ((MODEL_CREATED, metadata.created), (MODEL_DATA_END, metadata.data.end)):
            # an unknown time is empty, and has no value
            yield spec.family([((), parse_time(time) / SECOND_NS)] if time else [])
        results = metadata.metrics.get("model", {})
        figures = ((name, results.get(name)) for name in FIGURES)
        yield MODEL_FIGURE.family(((name,), value) for name, value in figures if value is not None)

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return (spec.family([]) for spec in MODEL_METRICS)


DRIFT_CHECKED: Final = MetricSpec(
    "drift_checked_timestamp_seconds", "gauge", "seconds since 1970", "Time of the last drift check."
)
DRIFT_SHARE: Final = MetricSpec(
    "drift_share", "gauge", "share", "Share of the features that drifted, in the last drift check."
)
DRIFT_SEVERITY: Final = MetricSpec(
    "drift_severity", "gauge", "boolean", "1 for the severity of the data set's drift, 0 for the others.", ("severity",)
)
DRIFT_FEATURES: Final = MetricSpec(
    "drift_features", "gauge", "features", "Features, by the severity of their drift.", ("severity",)
)
TRAINED: Final = MetricSpec(
    "training_timestamp_seconds",
    "gauge",
    "seconds since 1970",
    "End of the last training run.",
    ("model",),
)
TRAINING_OUTCOME: Final = MetricSpec(
    "training_outcome",
    "gauge",
    "boolean",
    "1 for the outcome of the last training run, 0 for the others: promoted, kept (not promoted) or failed.",
    ("outcome",),
)
TRAINING_FIGURE: Final = MetricSpec(
    "training_figure",
    "gauge",
    "share",
    "Metrics of the last training run's model on the final block, which can only overrule a choice.",
    ("figure",),
)

RESULT_METRICS: Final = (
    *(DRIFT_CHECKED, DRIFT_SHARE, DRIFT_SEVERITY, DRIFT_FEATURES),
    *(TRAINED, TRAINING_OUTCOME, TRAINING_FIGURE),
)


class ResultsCollector(Collector):
    """Reads the results in ``folder`` at each scrape; a missing result has no value."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """The metrics of the last drift check and the last training run."""
        yield from _drift(self._last(DriftResult))
        yield from _training(self._last(TrainingResult))

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return (spec.family([]) for spec in RESULT_METRICS)

    def _last(self, kind: type[Result]) -> Result | None:
        """None also for a damaged file: it is logged, and the other metrics are still exposed."""
        try:
            return read_result(kind, self._folder)
        except UnreadableFile as error:
            log.warning("result_unreadable", reason=str(error))
            return None


def _drift(drift: DriftResult | None) -> Iterator[Metric]:
    results = [] if drift is None else [drift]
    yield DRIFT_CHECKED.family(((), result.time / SECOND_NS) for result in results)
    yield DRIFT_SHARE.family(((), result.share) for result in results)
    levels = get_args(ResultSeverity)
    yield DRIFT_SEVERITY.family(((level,), float(result.severity == level)) for result in results for level in levels)
    yield DRIFT_FEATURES.family(((level,), result.features.get(level, 0)) for result in results for level in levels)


def _training(training: TrainingResult | None) -> Iterator[Metric]:
    results = [] if training is None else [training]
    yield TRAINED.family(((result.model,), result.time / SECOND_NS) for result in results)
    outcomes = get_args(TrainingOutcome)
    yield TRAINING_OUTCOME.family(((name,), float(result.outcome == name)) for result in results for name in outcomes)
    figures = ((name, getattr(result, name)) for result in results for name in FIGURES)
    yield TRAINING_FIGURE.family(((name,), value) for name, value in figures if value is not None)
