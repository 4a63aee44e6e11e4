"""Metrics of the last training run and drift check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from volspike.api.metrics import RESULT_METRICS as DECLARED
from volspike.market import SECOND_NS
from volspike.monitoring.results import DriftResult, TrainingResult, write_result

DRIFT = DriftResult(time=7 * SECOND_NS, share=0.75, severity="high", features={"none": 1, "high": 3}, rows=500)
TRAINING = TrainingResult(
    time=9 * SECOND_NS, model="har", outcome="promoted", reason="drift", pr_auc=0.3, brier=0.05, base_rate=0.1
)


def samples(client: Any) -> dict[str, float]:
    """The samples of training and drift."""
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(("drift_", "training_"))]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_results_are_exposed_as_soon_as_they_are_written(served: Any, tmp_path: Path) -> None:
    """A missing result has no samples; then each scrape has the last result, without undefined metrics."""
    client = served(results=tmp_path)
    assert samples(client) == {}
    write_result(DRIFT, tmp_path)
    write_result(TRAINING, tmp_path)
    assert samples(client) == {
        "drift_checked_timestamp_seconds": 7,
        "drift_share": 0.75,
        'drift_severity{severity="none"}': 0,
        'drift_severity{severity="low"}': 0,
        'drift_severity{severity="medium"}': 0,
        'drift_severity{severity="high"}': 1,
        'drift_features{severity="none"}': 1,
        'drift_features{severity="low"}': 0,
        'drift_features{severity="medium"}': 0,
        'drift_features{severity="high"}': 3,
        'training_timestamp_seconds{model="har"}': 9,
        'training_outcome{outcome="promoted"}': 1,
        'training_outcome{outcome="kept"}': 0,
        'training_outcome{outcome="failed"}': 0,
        'training_figure{figure="brier"}': 0.05,
        'training_figure{figure="pr_auc"}': 0.3,
        'training_figure{figure="base_rate"}': 0.1,
    }
    assert {line.partition("{")[0] for line in samples(client)} == {metric.name for metric in DECLARED}


@pytest.mark.parametrize("name", ["drift.json", "training.json"])
def test_a_damaged_file_affects_only_its_own_metrics(served: Any, tmp_path: Path, name: str) -> None:
    """An unreadable file is logged, and all other metrics are exposed."""
    write_result(DRIFT, tmp_path)
    write_result(TRAINING, tmp_path)
    (tmp_path / name).write_bytes(b"{")
    client = served(results=tmp_path)
    with capture_logs() as logged:
        names = {line.partition("_")[0] for line in samples(client)}
    assert names == {"drift", "training"} - {name.partition(".")[0]}
    assert [event["event"] for event in logged] == ["result_unreadable"]
    assert client.metric("model_loaded") == 1
