"""A look for drift as whoever watches wants to see it: its severity and its counts."""

from __future__ import annotations

from typing import Final, get_args

from volspike.models.results import DriftResult, Severity
from volspike.monitoring.drift import Drift

LEVELS: Final[tuple[Severity, ...]] = get_args(Severity)


def drift_result(drift: Drift, time_ns: int) -> DriftResult:
    """The result made at ``time_ns`` (UTC); ``none`` is a data set, or a feature, that could not be judged."""
    counts = drift.counts()
    severity: Severity = "none" if drift.severity is None else LEVELS[LEVELS.index(drift.severity.value)]
    return DriftResult(
        time=time_ns,
        share=drift.share,
        severity=severity,
        features={level: counts[level] for level in LEVELS},
        rows=drift.current.rows,
    )
