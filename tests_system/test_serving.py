"""``volspike serve`` as a client sees it, and as whoever starts and stops it does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests_system.processes import Server
from tests_system.test_way import BODY

NAMES = list(json.loads(BODY)["features"])
MODEL = ("--model", "models/artifacts/random_forest", "--port", "0")


def test_predictions_are_counted_and_sigterm_ends_it_well(trained: Path, serve: Callable[..., Server]) -> None:
    """One prediction, asked for as the example does, moves the counters by one; the server stops when told to."""
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
    assert [event["event"] for event in server.events if event["level"] != "info"] == []


def test_rows_are_answered_as_one_by_one(trained: Path, serve: Callable[..., Server]) -> None:
    """A hundred rows in one request have the probabilities that they have alone."""
    server = serve(trained, *MODEL)
    features = json.loads(BODY)["features"]
    rows = [features | {"realized_volatility_60s": 1e-5 * index} for index in range(100)]
    many = server.post("/predict", json.dumps({"rows": rows})).json
    alone = [server.post("/predict", json.dumps({"features": row})).json["probability"] for row in rows[::33]]
    assert len(many["probability"]) == 100
    assert many["probability"][::33] == pytest.approx(alone, abs=1e-6)


def test_settings_come_from_the_environment(trained: Path, serve: Callable[..., Server]) -> None:
    """What no flag says, MODEL_PATH and API_PORT do; a flag is stronger."""
    variables = {"MODEL_PATH": "models/artifacts/baseline", "API_PORT": "0", "LOG_LEVEL": "INFO"}
    assert serve(trained, **variables).get("/version").json["model"] == "baseline"
    flags = ("--model", "models/artifacts/random_forest")
    assert serve(trained, *flags, **variables).get("/version").json["model"] == "random_forest"


@pytest.mark.parametrize("damage", ["absent", "turned bit"])
def test_without_a_model_it_says_why(damage: str, trained: Path, tmp_path: Path, serve: Callable[..., Server]) -> None:
    """No model, or a damaged one: the server lives, is not ready, and every refusal tells the reason."""
    folder = tmp_path / "model"
    if damage == "turned bit":
        folder.mkdir()
        for file in (trained / "models/artifacts/baseline").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        graph = bytearray((folder / "model.onnx").read_bytes())
        graph[len(graph) // 2] ^= 1
        (folder / "model.onnx").write_bytes(graph)
    server = serve(tmp_path, "--model", folder, "--port", "0")
    reason = "sha256" if damage == "turned bit" else "volspike train"
    assert server.get("/health/live").status == 200
    for answer in (server.get("/health/ready"), server.post("/predict", BODY)):
        assert answer.status == 503
        assert reason in answer.body.decode()
    assert server.stop()[0] == 0
