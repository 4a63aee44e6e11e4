"""Every declared metric, and the names under which Prometheus knows its samples."""

from __future__ import annotations

from typing import Final

from volspike.serving import metrics as api
from volspike.serving import metrics_live, metrics_model, metrics_results
from volspike.streams import metrics as streams
from volspike.telemetry import Declared

SERVED: Final = (*api.DECLARED, *metrics_model.DECLARED, *metrics_results.DECLARED, *metrics_live.DECLARED)
"""What ``volspike up`` tells."""

EVERY: Final = (*SERVED, *streams.DECLARED)


def sample_names(metric: Declared) -> set[str]:
    """A histogram has three kinds of samples, everything else one."""
    if metric.kind != "histogram":
        return {metric.name}
    return {f"{metric.name}_{part}" for part in ("bucket", "sum", "count")}
