"""What a load test found, as the file that is kept of it."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np

from volspike.serving.load import LoadPlan, Measured


class LatencyMs(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of the requests that were answered well; null where none was."""

    min: float | None
    mean: float | None
    median: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    max: float | None


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """A load test. ``latency_ms`` is from when a request was sent, or, in an open loop, from when it was due."""

    url: str
    timestamp: str
    model_version: str
    model_digest: str
    mode: Literal["closed", "open"]
    concurrent: int
    rate: float | None
    rows_per_request: int
    total_requests: int
    successful_requests: int
    failed_requests: int
    success_rate: float
    errors: dict[str, int]
    total_time_seconds: float
    requests_per_second: float
    latency_ms: LatencyMs
    latest_start_ms: float
    client_cpu_share: float


def reported(measured: Measured, plan: LoadPlan, **facts: object) -> LoadReport:
    """The report; ``facts`` are its fields that neither the plan nor the measurement knows."""
    successful = len(measured.seconds)
    failed = measured.errors.total()
    told = {
        "mode": "closed" if plan.rate is None else "open",
        "concurrent": plan.concurrent,
        "rate": plan.rate,
        "total_requests": successful + failed,
        "successful_requests": successful,
        "failed_requests": failed,
        "success_rate": successful / (successful + failed),
        "errors": dict(measured.errors),
        "total_time_seconds": round(measured.wall_s, 6),
        "requests_per_second": round(successful / measured.wall_s, 2),
        "latency_ms": _latency(measured),
        "latest_start_ms": round(1e3 * measured.late_s, 4),
        "client_cpu_share": round(measured.client_cpu_s / measured.wall_s, 4),
        **facts,
    }
    return msgspec.convert(told, LoadReport, from_attributes=True)


def _latency(measured: Measured) -> LatencyMs:
    if not measured.seconds:
        return LatencyMs(min=None, mean=None, median=None, p50=None, p95=None, p99=None, max=None)
    ms = 1e3 * np.frombuffer(measured.seconds)
    middle, high, highest = (round(float(value), 4) for value in np.percentile(ms, [50, 95, 99]))
    return LatencyMs(
        min=round(float(ms.min()), 4),
        mean=round(float(ms.mean()), 4),
        median=middle,
        p50=middle,
        p95=high,
        p99=highest,
        max=round(float(ms.max()), 4),
    )
