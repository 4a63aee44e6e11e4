"""The metrics of the API, and the registry of an application, which whoever else has something to tell joins.

The metrics of the model that is served: what it is, how old it is, and what it reached before it was.

The metrics of the last training and the last look for drift, read from their files whenever somebody asks.

Whoever trains or looks for drift calls ``keep_result`` of ``volspike.models.results``; no more is needed to be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, get_args

import structlog
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.api.served_model import Scorer
from volspike.errors import UnreadableFile
from volspike.market import SECOND_NS, parse_time
from volspike.monitoring.results import DriftResult, Outcome, Result, Severity, TrainingResult, last_result
from volspike.telemetry import OTHER, Declared

LATENCY_BUCKETS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(0.8, 1.0, 2.5),  # 0.8 s is the service level that alerts are set on
)

HTTP_REQUESTS: Final = Declared(
    "http_requests_total",
    "counter",
    "requests",
    "Requests answered, by method, route (or other) and status.",
    ("method", "endpoint", "status"),
)
PREDICTION_LATENCY: Final = Declared(
    "prediction_latency_seconds",
    "histogram",
    "seconds",
    "Time from the whole body of a /predict request to its encoded answer, one observation per request scored.",
    buckets=LATENCY_BUCKETS,
)
PREDICTIONS: Final = Declared(
    "predictions_total",
    "counter",
    "rows",
    "Rows scored, by model and by what was predicted (0 or 1).",
    ("model_version", "prediction"),
)
MODEL_LOADED: Final = Declared("model_loaded", "gauge", "boolean", "1 while a model is served, else 0.")
MODEL_SWAPS: Final = Declared(
    "model_swaps_total",
    "counter",
    "models",
    "Models found in the served folder after the start, by outcome: swapped, or refused and the old one kept.",
    ("outcome",),
)

DECLARED: Final = (HTTP_REQUESTS, PREDICTION_LATENCY, PREDICTIONS, MODEL_LOADED, MODEL_SWAPS)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SWAP_OUTCOMES: Final = ("swapped", "refused")
FORESEEN: Final = ("200", "500", "503")
"""Answers of ``/predict`` that are told from the start as 0: a rate does not see the first of a series that is new."""


class Metrics:
    """The collectors of one application. Labels come from bounded sets only."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.latency = PREDICTION_LATENCY.histogram(self.registry)
        self.model_loaded = MODEL_LOADED.gauge(self.registry)
        self._requests = HTTP_REQUESTS.counter(self.registry)
        for status in FORESEEN:
            self._requests.labels("POST", "/predict", status)
        self._predictions = PREDICTIONS.counter(self.registry)
        swaps = MODEL_SWAPS.counter(self.registry)
        self._swaps = {outcome: swaps.labels(outcome) for outcome in SWAP_OUTCOMES}
        self._request_children: dict[tuple[str, str, int], Counter] = {}

    def count_request(self, method: str, endpoint: str, status: int) -> None:
        """One more request answered; ``endpoint`` is a route's template or ``other``."""
        key = (method, endpoint, status)
        child = self._request_children.get(key)
        if child is None:
            child = self._requests.labels(method if method in METHODS else OTHER, endpoint, str(status))
            # unusual methods are looked up each time, so that the table is as bounded as the labels
            if method in METHODS:
                self._request_children[key] = child
        child.inc()

    def count_swap(self, outcome: str) -> None:
        """One more model found in the served folder; ``outcome`` is one of ``SWAP_OUTCOMES``."""
        self._swaps[outcome].inc()

    def prediction_counters(self, model_version: str) -> tuple[Counter, Counter]:
        """The counters of one model's rows predicted 0 and predicted 1; both are exposed from now on."""
        return self._predictions.labels(model_version, "0"), self._predictions.labels(model_version, "1")

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


MODEL_INFO: Final = Declared(
    "model_info",
    "gauge",
    "boolean",
    "1, with what the served model is; version is the beginning of its hash.",
    ("model", "version", "feature_digest", "simulated"),
)
MODEL_CREATED: Final = Declared(
    "model_created_timestamp_seconds", "gauge", "seconds since 1970", "When the served model was trained."
)
MODEL_DATA_END: Final = Declared(
    "model_data_end_timestamp_seconds", "gauge", "seconds since 1970", "The newest instant of the data it learned from."
)
MODEL_FIGURE: Final = Declared(
    "model_figure",
    "gauge",
    "share",
    "What the served model reached on rows that it had not learned from, before it was served.",
    ("figure",),
)

MODEL_METRICS: Final = (MODEL_INFO, MODEL_CREATED, MODEL_DATA_END, MODEL_FIGURE)

VERSION_DIGITS: Final = 12


class ModelCollector(Collector):
    """Asks ``served`` for the model of the moment at each scrape; while there is none nothing has a value."""

    def __init__(self, served: Callable[[], Scorer | None]) -> None:
        self._served = served

    def collect(self) -> Iterator[Metric]:
        """What is known of the model."""
        scorer = self._served()
        if scorer is None:
            yield from self.describe()
            return
        facts = scorer.metadata
        version, simulated = facts.onnx_sha256[:VERSION_DIGITS], str(facts.simulated).lower()
        yield MODEL_INFO.family([((scorer.name, version, facts.feature_digest, simulated), 1.0)])
        for declared, told in ((MODEL_CREATED, facts.created), (MODEL_DATA_END, facts.data.end)):
            # an instant that is not told is empty, and has no value
            yield declared.family([((), parse_time(told) / SECOND_NS)] if told else [])
        reached = facts.metrics.get("model", {})
        figures = ((name, reached.get(name)) for name in FIGURES)
        yield MODEL_FIGURE.family(((name,), value) for name, value in figures if value is not None)

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return (declared.family([]) for declared in MODEL_METRICS)


DRIFT_CHECKED: Final = Declared(
    "drift_checked_timestamp_seconds", "gauge", "seconds since 1970", "When drift was last looked for."
)
DRIFT_SHARE: Final = Declared(
    "drift_share", "gauge", "share", "Which part of the features had drifted when it was last looked for."
)
DRIFT_SEVERITY: Final = Declared(
    "drift_severity", "gauge", "boolean", "1 for how badly the data as a whole had drifted, else 0.", ("severity",)
)
DRIFT_FEATURES: Final = Declared(
    "drift_features", "gauge", "features", "Features looked at, by how badly each had drifted.", ("severity",)
)
TRAINED: Final = Declared(
    "training_timestamp_seconds", "gauge", "seconds since 1970", "When the last training run ended.", ("model",)
)
TRAINING_OUTCOME: Final = Declared(
    "training_outcome",
    "gauge",
    "boolean",
    "1 for what became of the last training run, else 0: served, kept beside the served one, or failed.",
    ("outcome",),
)
TRAINING_FIGURE: Final = Declared(
    "training_figure",
    "gauge",
    "share",
    "What the last training run's model reached on rows that no choice looked at.",
    ("figure",),
)

RESULT_METRICS: Final = (
    DRIFT_CHECKED,
    DRIFT_SHARE,
    DRIFT_SEVERITY,
    DRIFT_FEATURES,
    TRAINED,
    TRAINING_OUTCOME,
    TRAINING_FIGURE,
)

FIGURES: Final = ("precision", "recall", "brier", "pr_auc", "base_rate")

log = structlog.get_logger(__name__)


class ResultsCollector(Collector):
    """Reads ``folder`` at each scrape; what was not done yet has no value."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def collect(self) -> Iterator[Metric]:
        """The metrics of both results."""
        yield from _drift(self._last(DriftResult))
        yield from _training(self._last(TrainingResult))

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return (declared.family([]) for declared in RESULT_METRICS)

    def _last(self, kind: type[Result]) -> Result | None:
        """None as well where the file is damaged: the log says so, and the other metrics are told."""
        try:
            return last_result(kind, self._folder)
        except UnreadableFile as error:
            log.warning("result_not_read", reason=str(error))
            return None


def _drift(drift: DriftResult | None) -> Iterator[Metric]:
    found = [] if drift is None else [drift]
    yield DRIFT_CHECKED.family(((), one.time / SECOND_NS) for one in found)
    yield DRIFT_SHARE.family(((), one.share) for one in found)
    severities = get_args(Severity)
    yield DRIFT_SEVERITY.family(((level,), float(one.severity == level)) for one in found for level in severities)
    yield DRIFT_FEATURES.family(((level,), one.features.get(level, 0)) for one in found for level in severities)


def _training(training: TrainingResult | None) -> Iterator[Metric]:
    found = [] if training is None else [training]
    yield TRAINED.family(((one.model,), one.time / SECOND_NS) for one in found)
    yield TRAINING_OUTCOME.family(((name,), float(one.outcome == name)) for one in found for name in get_args(Outcome))
    figures = ((name, getattr(one, name)) for one in found for name in FIGURES)
    yield TRAINING_FIGURE.family(((name,), value) for name, value in figures if value is not None)
