"""``volspike train`` with a real MLflow server, and after the server has stopped."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests_system.processes import environment, run_volspike, succeeded

STARTS_WITHIN_S = 400

TRAIN = ("train", "--features", "features.parquet", "--models", "logistic", "--split-method", "time_based")


class MlflowServer:
    """``mlflow server`` on a free loopback port, with its files in its own folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        arguments = (
            f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1 --backend-store-uri sqlite:///server.db"
        )
        # a session of its own, so that its workers can be stopped with the server
        self._process = subprocess.Popen(  # noqa: S603  our own server
            [sys.executable, *arguments.split(), "--artifacts-destination", str(folder / "artifacts")],
            cwd=folder,
            env=environment(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Waits until the server responds."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not respond"
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()  # noqa: S310  our own server
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.2)
            else:
                return

    def request(self, path: str, **body: Any) -> Any:
        """The response of the REST API."""
        request = urllib.request.Request(  # noqa: S310  our own server
            f"{self.url}/api/2.0/mlflow/{path}",
            json.dumps(body).encode() if body else None,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310  our own server
            return json.load(answer)

    def close(self) -> None:
        """Stops the server and its workers."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """A running MLflow server, stopped after the test."""
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.mark.timeout(1200)
def test_run_is_tracked_on_the_server_or_locally(trained: Path, tmp_path: Path, mlflow_server: MlflowServer) -> None:
    """A run is tracked on the server and not locally; after the server has stopped, the next run is tracked locally."""
    workspace = tmp_path / "place"
    workspace.mkdir()
    (workspace / "features.parquet").symlink_to(trained / "features.parquet")
    variables = {"MLFLOW_TRACKING_URI": mlflow_server.url, "MLFLOW_EXPERIMENT_NAME": "from the environment"}
    outcome = succeeded(run_volspike(workspace, *TRAIN, timeout=300, **variables))
    assert "cannot be used" not in outcome.err
    assert f"tracked in {mlflow_server.url}: run " in outcome.out
    assert "volspike version 1 (challenger and champion)" in outcome.out
    assert not (workspace / "mlruns").exists()

    found = mlflow_server.request("experiments/get-by-name?experiment_name=from%20the%20environment")
    runs = mlflow_server.request("runs/search", experiment_ids=[found["experiment"]["experiment_id"]])["runs"]
    (logistic,) = [run for run in runs if run["info"]["run_name"] == "logistic"]
    metadata = json.loads((workspace / "models/artifacts/logistic/metadata.json").read_text())
    metrics = {metric["key"]: metric["value"] for metric in logistic["data"]["metrics"]}
    assert metrics["final/pr_auc"] == pytest.approx(metadata["metrics"]["model_final"]["pr_auc"])
    assert list((tmp_path / "server" / "artifacts").rglob("model.onnx"))

    mlflow_server.close()
    outcome = succeeded(run_volspike(workspace, *TRAIN, "--mlflow-uri", mlflow_server.url, timeout=300))
    assert f"warning: MLflow at {mlflow_server.url} cannot be used (Connection refused)" in outcome.err
    assert "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db" in outcome.err
    assert (workspace / "mlruns" / "mlflow.db").is_file()
