"""Every declared metric, and the names under which Prometheus knows its samples."""

from __future__ import annotations

from typing import Final

from volspike.api import metrics as api
from volspike.background import BACKGROUND_FAULTS
from volspike.live import metrics as live
from volspike.streams import metrics as streams
from volspike.telemetry import MetricSpec

SERVED: Final = (
    *api.API_METRICS,
    *api.MODEL_METRICS,
    *api.RESULT_METRICS,
    *live.LIVE_METRICS,
    BACKGROUND_FAULTS,
)
"""The metrics of ``volspike up``."""

EVERY: Final = (*SERVED, *streams.DECLARED)


def sample_names(metric: MetricSpec) -> set[str]:
    """A histogram has three kinds of samples, everything else one."""
    if metric.kind != "histogram":
        return {metric.name}
    return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
