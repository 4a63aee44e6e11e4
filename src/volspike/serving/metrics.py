"""The metrics of the API, and the registry of an application, which whoever else has something to tell joins."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, generate_latest

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
