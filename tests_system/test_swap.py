"""Model replacement and shutdown under load: no request fails, and no response mixes two models."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import msgspec

from tests_system.processes import Server
from tests_system.test_commands import BODY
from tests_system.test_live import UP, events
from volspike.api.load_test import Answer, LoadMeasurement, LoadPlan, Target, run_load
from volspike.lifecycle.promotion import promote
from volspike.models import (
    BASELINE_MODEL,
    METADATA_FILE,
    ONNX_FILE,
    SIMULATED_MODEL,
    TEN_MODEL,
    Artifact,
)

ROW = json.loads(BODY)["features"]
Prediction = tuple[str, float, float]


def expected_prediction(folder: Path) -> Prediction:
    """Version, threshold and probability that the model in a folder returns for the row."""
    artifact = Artifact.load(folder)
    kind = "baseline" if artifact.name == "baseline" else "ml"
    probability = artifact.probability_of([ROW[name] for name in artifact.features])
    return f"{artifact.name} ({kind})", artifact.threshold, probability


class Clients(threading.Thread):
    """Ten clients that repeat one request and count the predictions they receive."""

    def __init__(self, server: Server, requests: int) -> None:
        super().__init__()
        self.received: Counter[Prediction] = Counter()
        self.newest: Prediction | None = None
        self.measured = LoadMeasurement()
        self._target, self._plan = Target.of(server.url), LoadPlan(requests=requests, concurrent=10)

    def run(self) -> None:
        request = self._target.request("POST", "/predict", BODY.encode())
        self.measured = asyncio.run(run_load(self._target, [request], self._plan, self._count))

    def _count(self, answer: Answer) -> None:
        if answer.status == 200:
            body = json.loads(answer.body)
            assert body["alert"] == (body["probability"] >= body["threshold"])
            self.newest = (body["model_version"], body["threshold"], body["probability"])
            self.received[self.newest] += 1


def wait_until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits until ``condition`` is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write_settings(folder: Path) -> Path:
    """Writes settings with frequent model checks and no rate limit, and returns their path."""
    (folder / "settings.toml").write_text("[serving]\nreload_s = 0.05\nrate_limit = 0\n")
    return folder / "settings.toml"


@contextmanager
def under_load(server: Server, requests: int) -> Iterator[Clients]:
    """Clients that send so many requests in total, beginning with the block."""
    clients = Clients(server, requests)
    clients.start()
    yield clients
    clients.join(timeout=120)
    assert not clients.is_alive()


def test_models_are_replaced_under_load(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """During ten promotions and with a damaged model, every response comes from exactly one of the valid models."""
    artifacts = tmp_path / "models" / "artifacts"
    for name, model in (("ten", TEN_MODEL), ("rule", BASELINE_MODEL)):
        shutil.copytree(model, artifacts / name)
    ten, rule = expected_prediction(artifacts / "ten"), expected_prediction(artifacts / "rule")
    promote(artifacts / "ten")
    server = serve(tmp_path, "--port", "0", "--config", write_settings(tmp_path))
    with under_load(server, 20_000) as clients:
        wait_until(lambda: clients.newest == ten)
        for _ in range(5):
            for name, prediction in (("rule", rule), ("ten", ten)):
                promote(artifacts / name)
                wait_until(lambda prediction=prediction: clients.newest == prediction)  # type: ignore[misc]
        (artifacts / "production" / ONNX_FILE).write_bytes(b"damaged")
        wait_until(lambda: server.get("/health").json["model_refused"] is not None)
        assert "sha256" in server.get("/health").json["model_refused"]
        assert clients.newest == ten
    assert dict(clients.measured.errors) == {}
    assert set(clients.received) == {ten, rule}
    assert clients.received.total() == 20_000
    metrics = server.metrics()
    assert metrics['model_swaps_total{outcome="swapped"}'] == 10.0
    assert metrics['model_swaps_total{outcome="refused"}'] == 1.0
    assert server.get("/health/ready").status == 200


def test_requests_before_shutdown_are_answered(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """After SIGTERM under load the server answers the requests it has accepted, and refuses new connections."""
    server = serve(tmp_path, "--model", TEN_MODEL, "--port", "0", "--rate-limit", "0")
    with under_load(server, 20_000) as clients:
        wait_until(lambda: clients.received.total() > 200)
        os.kill(server.pid, signal.SIGTERM)
    assert len(clients.measured.seconds) > 200
    assert set(clients.measured.errors) <= {"ConnectionRefusedError"}
    assert server.stop()[0] == 0


def copy_with_threshold(folder: Path, model: Path, threshold: float) -> None:
    """Writes a copy of the model with another threshold to ``folder``."""
    metadata = msgspec.structs.replace(
        Artifact.load(model).metadata, thresholds={"other": threshold}, served_threshold="other", adaptation=None
    )
    Artifact.save(folder, (model / ONNX_FILE).read_bytes(), metadata, {})


def test_promoted_model_scores_a_live_market(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """A promoted model scores the next tick and the windows stay warm; a model of other rows is refused."""
    artifacts = tmp_path / "models" / "artifacts"
    copy_with_threshold(artifacts / "other", SIMULATED_MODEL, 0.123)
    server = serve(tmp_path, *UP, "--no-record", "--config", write_settings(tmp_path), command="up")
    stream = events(f"{server.url}/stream?product=BTC-USD")
    assert next(stream)[1]["model"]["threshold"] != 0.123
    next(data for name, data in stream if name == "tick" and data["is_warm"])
    promote(artifacts / "other")
    wait_until(lambda: server.get("/version").json["threshold"] == 0.123)
    stream = events(f"{server.url}/stream?product=BTC-USD")
    name, snapshot = next(stream)
    assert (name, snapshot["model"]["threshold"]) == ("snapshot", 0.123)
    ticks = list(islice((data for name, data in stream if name == "tick"), 8))
    assert all(tick["is_warm"] and tick["threshold"] == 0.123 for tick in ticks)

    shutil.copytree(TEN_MODEL, artifacts / "ten")
    promote(artifacts / "ten")
    wait_until(lambda: server.get("/health").json["model_refused"] is not None)
    assert "rows every tick" in server.get("/health").json["model_refused"]
    assert server.get("/version").json["threshold"] == 0.123
    assert (artifacts / "production" / METADATA_FILE).is_file()
    assert server.stop()[0] == 0
