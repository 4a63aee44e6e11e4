"""``volspike serve``: predictions, metrics, settings, missing models, shutdown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests_system.processes import Server
from tests_system.test_commands import BODY

NAMES = list(json.loads(BODY)["features"])
MODEL = ("--model", "models/artifacts/random_forest", "--port", "0")


def test_predictions_are_counted_and_sigterm_stops_cleanly(trained: Path, serve: Callable[..., Server]) -> None:
    """One prediction with the documented body increases the counters by one; SIGTERM stops the server cleanly."""
    server = serve(trained, *MODEL)
    assert server.get("/health/ready").json["status"] == "ready"
    version = server.get("/version").json
    assert (version["model"], version["features"], version["simulated"]) == ("random_forest", NAMES, True)
    assert server.metrics()["model_loaded"] == 1.0

    answer = server.post("/predict", BODY)
    assert answer.status == 200
    assert answer.json["threshold"] == version["threshold"]
    assert answer.json["alert"] == (answer.json["probability"] >= answer.json["threshold"])
    refused = server.post("/predict", BODY.replace("spread_mean_60s", "spread_mean_61s"))
    assert refused.status == 422
    assert b"spread_mean_60s" in refused.body
    assert b"spread_mean_61s" in refused.body

    metrics = server.metrics()
    assert sum(value for name, value in metrics.items() if name.startswith("predictions_total{")) == 1.0
    requests = 'http_requests_total{{endpoint="/predict",method="POST",status="{}"}}'
    assert (metrics[requests.format(200)], metrics[requests.format(422)]) == (1.0, 1.0)
    assert metrics["prediction_latency_seconds_count"] == 1.0

    status, seconds = server.stop()
    assert status == 0
    assert seconds < 5.0
    warnings = [event for event in server.events if event["level"] != "info"]
    assert [event["event"] for event in warnings] == ["model_limitations"]
    assert warnings[0]["limitations"] == version["limitations"]


def test_rows_have_the_probabilities_of_single_requests(trained: Path, serve: Callable[..., Server]) -> None:
    """A hundred rows in one request have the same probabilities as in single requests."""
    server = serve(trained, *MODEL)
    features = json.loads(BODY)["features"]
    rows = [features | {"realized_volatility_60s": 1e-5 * index} for index in range(100)]
    many = server.post("/predict", json.dumps({"rows": rows})).json
    single = [server.post("/predict", json.dumps({"features": row})).json["probability"] for row in rows[::33]]
    assert len(many["probability"]) == 100
    assert many["probability"][::33] == pytest.approx(single, abs=1e-6)


def test_settings_come_from_the_environment(trained: Path, serve: Callable[..., Server]) -> None:
    """MODEL_PATH and API_PORT apply if there is no flag; a flag takes precedence."""
    variables = {"MODEL_PATH": "models/artifacts/baseline", "API_PORT": "0", "LOG_LEVEL": "INFO"}
    assert serve(trained, **variables).get("/version").json["model"] == "baseline"
    flags = ("--model", "models/artifacts/random_forest")
    assert serve(trained, *flags, **variables).get("/version").json["model"] == "random_forest"


@pytest.mark.parametrize("damage", ["missing", "flipped bit"])
def test_missing_or_damaged_model_is_named(
    damage: str, trained: Path, tmp_path: Path, serve: Callable[..., Server]
) -> None:
    """With a missing or damaged model the server is live but not ready, and every error states the reason."""
    folder = tmp_path / "model"
    if damage == "flipped bit":
        folder.mkdir()
        for file in (trained / "models/artifacts/baseline").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        graph = bytearray((folder / "model.onnx").read_bytes())
        graph[len(graph) // 2] ^= 1
        (folder / "model.onnx").write_bytes(graph)
    server = serve(tmp_path, "--port", "0", MODEL_PATH=str(folder))
    reason = "sha256" if damage == "flipped bit" else "volspike train"
    assert server.get("/health/live").status == 200
    for answer in (server.get("/health/ready"), server.post("/predict", BODY)):
        assert answer.status == 503
        assert reason in answer.body.decode()
    assert server.stop()[0] == 0
