"""The metrics of the model that is served: what it is, how old it is, and what it reached before it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.market import SECOND_NS, nanoseconds
from volspike.serving.metrics_results import FIGURES
from volspike.serving.scorer import Scorer
from volspike.telemetry import Declared

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

DECLARED: Final = (MODEL_INFO, MODEL_CREATED, MODEL_DATA_END, MODEL_FIGURE)

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
            yield declared.family([((), nanoseconds(told) / SECOND_NS)] if told else [])
        reached = facts.metrics.get("model", {})
        figures = ((name, reached.get(name)) for name in FIGURES)
        yield MODEL_FIGURE.family(((name,), value) for name, value in figures if value is not None)

    def describe(self) -> Iterator[Metric]:
        """The metrics without their values."""
        return (declared.family([]) for declared in DECLARED)
