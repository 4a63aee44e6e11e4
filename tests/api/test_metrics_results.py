"""Training and drift as Prometheus sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from volspike.api.metrics import RESULT_METRICS as DECLARED
from volspike.market import SECOND_NS
from volspike.monitoring.results import DriftResult, TrainingResult, keep_result

DRIFT = DriftResult(time=7 * SECOND_NS, share=0.75, severity="high", features={"none": 1, "high": 3}, rows=500)
TRAINING = TrainingResult(
    time=9 * SECOND_NS, model="har", outcome="promoted", reason="drift", pr_auc=0.3, brier=0.05, base_rate=0.1
)


def told(client: Any) -> dict[str, float]:
    """The lines of training and drift."""
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith(("drift_", "training_"))]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_results_are_told_as_soon_as_they_are_kept(served: Any, tmp_path: Path) -> None:
    """Nothing is told of what was not done yet; then each scrape tells the newest result, and no undefined figure."""
    client = served(results=tmp_path)
    assert told(client) == {}
    keep_result(DRIFT, tmp_path)
    keep_result(TRAINING, tmp_path)
    assert told(client) == {
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
    assert {line.partition("{")[0] for line in told(client)} == {metric.name for metric in DECLARED}


@pytest.mark.parametrize("name", ["drift.json", "training.json"])
def test_a_damaged_file_hides_itself_alone(served: Any, tmp_path: Path, name: str) -> None:
    """A file that cannot be read is logged, and everything else is told."""
    keep_result(DRIFT, tmp_path)
    keep_result(TRAINING, tmp_path)
    (tmp_path / name).write_bytes(b"{")
    client = served(results=tmp_path)
    with capture_logs() as logged:
        names = {line.partition("_")[0] for line in told(client)}
    assert names == {"drift", "training"} - {name.partition(".")[0]}
    assert [event["event"] for event in logged] == ["result_not_read"]
    assert client.metric("model_loaded") == 1
