"""The metrics of the last training and the last look for drift, read from their files whenever somebody asks.

Whoever trains or looks for drift calls ``keep_result`` of ``volspike.models.results``; no more is needed to be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, get_args

import structlog
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from volspike.errors import UnreadableFile
from volspike.market import SECOND_NS
from volspike.monitoring.results import DriftResult, Outcome, Result, Severity, TrainingResult, last_result
from volspike.telemetry import Declared

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

DECLARED: Final = (
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
        return (declared.family([]) for declared in DECLARED)

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
