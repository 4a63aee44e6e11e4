"""Health, version, metrics, pages, errors, and a server without a model."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from volspike import __version__
from volspike.api import metrics
from volspike.api.app import create_app
from volspike.background import BACKGROUND_FAULTS
from volspike.config import ServingSettings
from volspike.errors import ArtifactMissing

ROW = {"spread_mean_60s": 0.2, "log_return_60s": -1.0, "trade_intensity_60s": 7}


def test_health_with_a_model(client: Any) -> None:
    """With a model the service is healthy, alive and ready."""
    health = client.get("/health").json()
    assert datetime.fromisoformat(health.pop("timestamp")).utcoffset() is not None
    assert health == {
        "status": "healthy",
        "model_loaded": True,
        "model_version": "random_forest (ml)",
        "model_refused": None,
        "kafka_connected": None,
        "background_faults": [],
        "mode": None,
        "simulated": None,
        "source": None,
        "reason": None,
    }
    assert client.get("/health/live").json() == {"status": "alive"}
    ready = client.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"status": "ready", "reason": None})


def test_version_describes_the_model(client: Any) -> None:
    """The version has the code, the model, its digest, its features and its threshold."""
    version = client.get("/version").json()
    for name in ("api_build_date", "model_loaded_at"):
        assert datetime.fromisoformat(version.pop(name)).utcoffset() is not None
    assert version == {
        "version": __version__,
        "model": "random_forest",
        "model_version": "random_forest (ml)",
        "model_digest": "abababababab",
        "model_created": "2025-12-06T00:00:00Z",
        "model_refused": None,
        "model_path": "models/artifacts/fake",
        "feature_digest": "0123456789ab",
        "features": list(ROW),
        "threshold": 0.5,
        "spike": "percentile:90",
        "spike_text": "at least the 90th percentile of the training rows",
        "horizon_s": 60,
        "horizons": [60],
        "simulated": False,
        "threshold_name": "best_f1",
        "split_method": "walk_forward",
        "products": ["BTC-USD"],
        "venues": ["coinbase"],
        "companion_version": None,
        "companion_features": [],
        "companion_limitations": [],
        "limitations": [],
        "mode": None,
    }


def _truncate_model(folder: Path) -> None:
    file = folder / "model.onnx"
    file.write_bytes(file.read_bytes()[:-1])


def _empty_metadata(folder: Path) -> None:
    (folder / "metadata.json").write_text("{}")


def _change_definition(folder: Path) -> None:
    file = folder / "metadata.json"
    metadata = json.loads(file.read_text())
    file.write_text(json.dumps(metadata | {"feature_definition": 99}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (shutil.rmtree, "no metadata.json and no model.onnx"),
        (_truncate_model, "sha256"),
        (_empty_metadata, "metadata.json"),
        (_change_definition, "definition 99"),
    ],
)
def test_an_invalid_model_does_not_stop_the_server(
    artifact: Path, tmp_path: Path, new_client: Any, damage: Callable[[Path], None], reason: str
) -> None:
    """With a missing, damaged or incompatible model the server is alive but not ready, and reports the reason."""
    folder = shutil.copytree(artifact, tmp_path / "model")
    damage(folder)
    with capture_logs() as logged, new_client(create_app(ServingSettings(model=folder))) as client:
        ready = client.get("/health/ready")
        assert ready.status_code == 503
        assert ready.json()["status"] == "not_ready"
        assert reason in ready.json()["reason"]
        refused = client.predict({"features": ROW})
        assert refused.status_code == 503
        assert reason in refused.json()["detail"]
        health = client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert reason in health.json()["reason"]
        assert client.get("/health/live").status_code == 200
        assert client.get("/version").json()["model"] is None
        assert client.metric("model_loaded") == 0
        assert client.get("/").status_code == 200
    assert [event["event"] for event in logged] == ["model_not_loaded"]
    assert reason in logged[0]["reason"]


@pytest.mark.parametrize("error", [PermissionError(13, "not\nallowed"), ValueError("not\nallowed")])
def test_a_model_that_cannot_be_read_has_a_reason(new_client: Any, error: Exception) -> None:
    """An error of the operating system or a decoder is reported on one line."""

    def load(path: Path) -> Any:
        raise error

    with new_client(create_app(ServingSettings(model=Path("m")), load)) as client:
        assert "not allowed" in client.get("/health/ready").json()["reason"]


def test_a_real_artifact_is_served(artifact: Path, new_client: Any) -> None:
    """A real artifact scores the example of the OpenAPI document and is marked as simulated."""
    with capture_logs() as logged, new_client(create_app(ServingSettings(model=artifact))) as client:
        examples = client.get("/openapi.json").json()["paths"]["/predict"]["post"]["requestBody"]["content"]
        one, many = (example["value"] for example in examples["application/json"]["examples"].values())
        answer = client.predict(one).json()
        assert client.predict(many).json()["probability"] == pytest.approx([answer["probability"]] * 2)
    assert answer["model_version"] == "logistic (ml)"
    assert answer["simulated"] is True
    assert answer["threshold"] == 0.4
    assert [event["event"] for event in logged] == ["model_loaded", "model_limitations"]


def test_metrics_are_counted_exactly(client: Any) -> None:
    """Each response is counted once by method, route and status, each row by its prediction."""
    client.predict({"features": ROW})
    client.predict({"rows": [ROW, ROW | {"spread_mean_60s": 0.9}]})
    client.predict({"features": {}})
    client.request("DELETE", "/predict")
    client.request("BREW", "/coffee")
    client.get("/coffee/2")
    assert client.metric('http_requests_total{endpoint="/predict",method="POST",status="200"}') == 2
    assert client.metric('http_requests_total{endpoint="/predict",method="POST",status="422"}') == 1
    assert client.metric('http_requests_total{endpoint="/predict",method="DELETE",status="405"}') == 1
    assert client.metric('http_requests_total{endpoint="other",method="other",status="404"}') == 1
    assert client.metric('http_requests_total{endpoint="other",method="GET",status="404"}') == 1
    assert client.metric('predictions_total{model_version="random_forest (ml)",prediction="0"}') == 2
    assert client.metric('predictions_total{model_version="random_forest (ml)",prediction="1"}') == 1
    assert client.metric("prediction_latency_seconds_count") == 2
    assert client.metric("model_loaded") == 1
    # the nine requests for the metrics above precede this one
    assert client.metric('http_requests_total{endpoint="/metrics",method="GET",status="200"}') == 9


def test_every_metric_is_declared(client: Any) -> None:
    """``/metrics`` exposes exactly the declared metrics, with their kind and meaning."""
    text = client.get("/metrics").text
    exposed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    kinds = {name: kind for name, kind in exposed.items() if not name.endswith("_created")}
    declared = (*metrics.API_METRICS, *metrics.MODEL_METRICS, *metrics.RESULT_METRICS, BACKGROUND_FAULTS)
    assert kinds == {metric.name: metric.kind for metric in declared}
    for metric in declared:
        assert f"# HELP {metric.name} {metric.meaning}" in text


def test_series_are_bounded(client: Any) -> None:
    """The number of series is bounded for any paths and methods that clients send."""

    def series() -> int:
        return sum(line[0] != "#" for line in client.get("/metrics").text.splitlines())

    def send_odd_requests(first: int) -> None:
        for k in range(first, first + 20):
            for path in (f"/{k}", f"/predict/{k}", f"/predict?k={k}", f"/health/{k}"):
                client.get(path)
            client.request(f"BREW{k}", "/predict")
            client.predict({"features": {f"name_{k}": k}})

    series()
    send_odd_requests(0)
    before = series()
    send_odd_requests(20)
    assert series() == before


def test_failures_are_exposed_as_zero_from_the_start(client: Any) -> None:
    """The statuses that alert rules use start at 0, so that a rate includes the first failure."""
    text = client.get("/metrics").text
    for status in ("200", "500", "503"):
        assert f'http_requests_total{{endpoint="/predict",method="POST",status="{status}"}} 0.0' in text


def test_the_served_model_has_metrics(client: Any, served: Any) -> None:
    """Its name, hash, age and defined metrics."""
    lines = [line for line in client.get("/metrics").text.splitlines() if line.startswith("model_")]
    told = {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}
    labels = 'feature_digest="0123456789ab",model="random_forest",simulated="false",version="abababababab"'
    assert told == {
        "model_loaded": 1,
        'model_swaps_total{outcome="swapped"}': 0,
        'model_swaps_total{outcome="refused"}': 0,
        f"model_info{{{labels}}}": 1,
        "model_created_timestamp_seconds": 1764979200,
        "model_data_end_timestamp_seconds": 1764892800,
        'model_figure{figure="pr_auc"}': 0.25,
        'model_figure{figure="brier"}': 0.0625,
    } | {name: value for name, value in told.items() if "_created{" in name}


def test_applications_do_not_share_metrics(served: Any) -> None:
    """Two applications in one process have separate metrics."""
    first, second = served(), served()
    first.predict({"features": ROW})
    assert first.metric("prediction_latency_seconds_count") == 1
    assert second.metric("prediction_latency_seconds_count") == 0


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_a_method_that_is_not_allowed_is_a_json_error(client: Any, method: str) -> None:
    """The response is a 405 with the allowed method and a detail."""
    refused = client.request(method, "/predict")
    assert refused.status_code == 405
    assert refused.headers["allow"] == "POST"
    assert refused.json() == {"detail": f"{method} is not allowed here, use POST; see /docs"}


def test_an_unknown_path_is_a_json_error(client: Any) -> None:
    """The response is a 404 with a detail."""
    refused = client.get("/predict/")
    assert refused.status_code == 404
    assert refused.json() == {"detail": "no endpoint '/predict/'; see /docs"}


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_pages_load_nothing_from_other_hosts(client: Any, path: str) -> None:
    """The pages have no script and no URL of another host, and their policy forbids both."""
    page = client.get(path)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in page.text
    assert "//" not in page.text


def test_without_a_live_pipeline_there_is_a_plain_page(client: Any) -> None:
    """The API alone has no event stream and no dashboard, and its page at ``/`` has no script."""
    assert client.get("/stream").status_code == 404
    assert client.get("/static/dashboard.js").status_code == 404
    assert "<script" not in client.get("/").text


def test_docs_list_every_operation(client: Any) -> None:
    """The page has every path of the OpenAPI document, with an example to copy."""
    page = client.get("/docs").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert f" {path}</code>" in page
    assert "&quot;log_return_300s&quot;: 0.001" in page


def test_front_page_shows_simulated_models_and_the_reason_for_none(artifact: Path, new_client: Any) -> None:
    """The front page marks a simulated model, and escapes the reason for a missing one."""

    def load(path: Path) -> Any:
        raise ArtifactMissing("<b>nothing</b>")

    with new_client(create_app(ServingSettings(model=artifact))) as client:
        assert "SIMULATED" in client.get("/").text
    with new_client(create_app(ServingSettings(), load)) as client:
        assert "none: &lt;b&gt;nothing" in client.get("/").text


def _references(node: Any) -> list[str]:
    if isinstance(node, dict):
        here = [node["$ref"]] if "$ref" in node else []
        return here + [found for child in node.values() for found in _references(child)]
    return [found for child in node for found in _references(child)] if isinstance(node, list) else []


def test_openapi_document_is_complete(client: Any) -> None:
    """Every reference resolves, and every operation describes the content of each response."""
    document = client.get("/openapi.json").json()
    references = _references(document)
    assert references
    for reference in references:
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]
    assert list(document["paths"]["/predict"]["post"]["responses"]) == ["200", "401", "408", "413", "422", "429", "503"]
    for operations in document["paths"].values():
        for operation in operations.values():
            assert all("content" in answer for answer in operation["responses"].values())
            assert operation["parameters"][0]["name"] == "X-Correlation-ID"


def test_answers_have_the_fields_of_their_schemas(client: Any) -> None:
    """Each response has the required fields of its schema, and no fields that the schema lacks."""
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    answers = {
        "Prediction": client.predict({"features": ROW}).json(),
        "Predictions": client.predict({"rows": [ROW]}).json(),
        "Refusal": client.predict({"rows": [{}]}).json(),
        "Problem": client.get("/nowhere").json(),
        "Health": client.get("/health").json(),
        "Readiness": client.get("/health/ready").json(),
        "Version": client.get("/version").json(),
    }
    for name, answer in answers.items():
        assert set(schemas[name]["required"]) <= set(answer) <= set(schemas[name]["properties"]), name
