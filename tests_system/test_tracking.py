"""``volspike train --mlflow-uri`` beside a real MLflow server, and after that one is gone."""

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

from tests_system.processes import environment, volspike, well

STARTS_WITHIN_S = 400

TRAIN = ("train", "--features", "features.parquet", "--models", "logistic", "--split-method", "time_based")


class MlflowServer:
    """``mlflow server`` on a free port of this machine, with its files in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        words = f"-m mlflow server --host 127.0.0.1 --port {port} --workers 1 --backend-store-uri sqlite:///server.db"
        # a session of its own, so that the workers end with the server
        self._process = subprocess.Popen(  # noqa: S603  our own server
            [sys.executable, *words.split(), "--artifacts-destination", str(folder / "artifacts")],
            cwd=folder,
            env=environment(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            assert self._process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not answer"
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()  # noqa: S310  our own server
            except (urllib.error.URLError, TimeoutError):
                time.sleep(0.2)
            else:
                return

    def ask(self, path: str, **body: Any) -> Any:
        """What the REST API answers."""
        words = urllib.request.Request(  # noqa: S310  our own server
            f"{self.url}/api/2.0/mlflow/{path}",
            json.dumps(body).encode() if body else None,
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(words, timeout=20) as answer:  # noqa: S310  our own server
            return json.load(answer)

    def close(self) -> None:
        """Ends it and its workers."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


@pytest.fixture
def mlflow_server(tmp_path: Path) -> Iterator[MlflowServer]:
    """Ended whatever happens."""
    (tmp_path / "server").mkdir()
    server = MlflowServer(tmp_path / "server")
    try:
        server.wait()
        yield server
    finally:
        server.close()


@pytest.mark.timeout(1200)
def test_a_run_is_tracked_on_a_server_and_here_when_it_is_gone(
    trained: Path, tmp_path: Path, mlflow_server: MlflowServer
) -> None:
    """The server has run, figures and champion, and this folder nothing; without it this folder has the next run."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "features.parquet").symlink_to(trained / "features.parquet")
    named = {"MLFLOW_TRACKING_URI": mlflow_server.url, "MLFLOW_EXPERIMENT_NAME": "from the environment"}
    outcome = well(volspike(place, *TRAIN, timeout=300, **named))
    assert "cannot be used" not in outcome.err
    assert f"tracked in {mlflow_server.url}: run " in outcome.out
    assert "volspike version 1 (challenger and champion)" in outcome.out
    assert not (place / "mlruns").exists()

    found = mlflow_server.ask("experiments/get-by-name?experiment_name=from%20the%20environment")
    runs = mlflow_server.ask("runs/search", experiment_ids=[found["experiment"]["experiment_id"]])["runs"]
    (logistic,) = [run for run in runs if run["info"]["run_name"] == "logistic"]
    told = json.loads((place / "models/artifacts/logistic/metadata.json").read_text())
    metrics = {metric["key"]: metric["value"] for metric in logistic["data"]["metrics"]}
    assert metrics["final/pr_auc"] == pytest.approx(told["metrics"]["model_final"]["pr_auc"])
    assert list((tmp_path / "server" / "artifacts").rglob("model.onnx"))

    mlflow_server.close()
    outcome = well(volspike(place, *TRAIN, "--mlflow-uri", mlflow_server.url, timeout=300))
    assert f"warning: MLflow at {mlflow_server.url} cannot be used (Connection refused)" in outcome.err
    assert "mlflow ui --backend-store-uri sqlite:///mlruns/mlflow.db" in outcome.err
    assert (place / "mlruns" / "mlflow.db").is_file()
