"""Models are exchanged and servers stopped while real clients ask: no request fails, no answer is of a wrong model."""

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
from tests_system.test_live import UP, events
from tests_system.test_way import BODY
from volspike.api.load_test import Answer, LoadPlan, Measured, Target, load
from volspike.lifecycle.promotion import promote
from volspike.models import (
    BASELINE_MODEL,
    DEFAULT_MODEL,
    METADATA_FILE,
    ONNX_FILE,
    SIMULATED_MODEL,
    TEN_MODEL,
    Artifact,
)

ROW = json.loads(BODY)["features"]
Told = tuple[str, float, float]


def told_by(folder: Path) -> Told:
    """What the model in a folder answers to the row: its name, threshold and probability."""
    artifact = Artifact.load(folder)
    kind = "baseline" if artifact.name == "baseline" else "ml"
    probability = artifact.probability_of([ROW[name] for name in artifact.features])
    return f"{artifact.name} ({kind})", artifact.threshold, probability


class Clients(threading.Thread):
    """Ten clients that ask the same again and again, and remember what they were told."""

    def __init__(self, server: Server, requests: int) -> None:
        super().__init__()
        self.told: Counter[Told] = Counter()
        self.newest: Told | None = None
        self.found = Measured()
        self._target, self._plan = Target.of(server.url), LoadPlan(requests=requests, concurrent=10)

    def run(self) -> None:
        request = self._target.request("POST", "/predict", BODY.encode())
        self.found = asyncio.run(load(self._target, [request], self._plan, self._heard))

    def _heard(self, answer: Answer) -> None:
        if answer.status == 200:
            body = json.loads(answer.body)
            assert body["alert"] == (body["probability"] >= body["threshold"])
            self.newest = (body["model_version"], body["threshold"], body["probability"])
            self.told[self.newest] += 1


def until(reached: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns once it is so."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def swiftly(folder: Path) -> Path:
    """Settings under which the folder is looked at often, and clients may ask as they like."""
    (folder / "settings.toml").write_text("[serving]\nreload_s = 0.05\nrate_limit = 0\n")
    return folder / "settings.toml"


@contextmanager
def asking(server: Server, requests: int) -> Iterator[Clients]:
    """Clients at work, until they have asked enough."""
    clients = Clients(server, requests)
    clients.start()
    yield clients
    clients.join(timeout=120)
    assert not clients.is_alive()


def test_models_are_exchanged_under_load(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """Ten promotions and a damaged model while ten clients ask: every answer is whole, and one model's alone."""
    artifacts = tmp_path / "models" / "artifacts"
    for name, model in (("ten", TEN_MODEL), ("rule", BASELINE_MODEL)):
        shutil.copytree(model, artifacts / name)
    ten, rule = told_by(artifacts / "ten"), told_by(artifacts / "rule")
    promote(artifacts / "ten")
    server = serve(tmp_path, "--port", "0", "--config", swiftly(tmp_path))
    with asking(server, 20_000) as clients:
        until(lambda: clients.newest == ten)
        for _ in range(5):
            for name, told in (("rule", rule), ("ten", ten)):
                promote(artifacts / name)
                until(lambda told=told: clients.newest == told)  # type: ignore[misc]
        (artifacts / "production" / ONNX_FILE).write_bytes(b"damaged")
        until(lambda: server.get("/health").json["model_refused"] is not None)
        assert "sha256" in server.get("/health").json["model_refused"]
        assert clients.newest == ten
    assert dict(clients.found.errors) == {}
    assert set(clients.told) == {ten, rule}
    assert clients.told.total() == 20_000
    metrics = server.metrics()
    assert metrics['model_swaps_total{outcome="swapped"}'] == 10.0
    assert metrics['model_swaps_total{outcome="refused"}'] == 1.0
    assert server.get("/health/ready").status == 200


def test_what_was_asked_before_the_end_is_answered(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """SIGTERM in the midst of ten busy clients: what the server took it answers, and more it does not take."""
    server = serve(tmp_path, "--model", TEN_MODEL, "--port", "0", "--rate-limit", "0")
    with asking(server, 20_000) as clients:
        until(lambda: clients.told.total() > 200)
        os.kill(server.pid, signal.SIGTERM)
    assert len(clients.found.seconds) > 200
    assert set(clients.found.errors) <= {"ConnectionRefusedError"}
    assert server.stop()[0] == 0


def other_threshold(folder: Path, model: Path, threshold: float) -> None:
    """Write the model anew with another threshold."""
    metadata = msgspec.structs.replace(
        Artifact.load(model).metadata, thresholds={"other": threshold}, served_threshold="other"
    )
    Artifact.save(folder, (model / ONNX_FILE).read_bytes(), metadata, {})


def test_a_live_market_goes_on_under_the_new_model(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """What is put into production scores the next tick, windows warm; a model of other features is refused by name."""
    artifacts = tmp_path / "models" / "artifacts"
    other_threshold(artifacts / "other", SIMULATED_MODEL, 0.123)
    server = serve(tmp_path, *UP, "--no-record", "--config", swiftly(tmp_path), command="up")
    stream = events(f"{server.url}/stream?product=BTC-USD")
    assert next(stream)[1]["model"]["threshold"] != 0.123
    next(data for name, data in stream if name == "tick" and data["is_warm"])
    promote(artifacts / "other")
    until(lambda: server.get("/version").json["threshold"] == 0.123)
    told = list(islice(events(f"{server.url}/stream?product=BTC-USD"), 12))
    assert (told[0][0], told[0][1]["model"]["threshold"]) == ("snapshot", 0.123)
    ticks = [data for name, data in told if name == "tick"]
    assert ticks
    assert all(tick["is_warm"] and tick["threshold"] == 0.123 for tick in ticks)

    shutil.copytree(DEFAULT_MODEL, artifacts / "full")
    promote(artifacts / "full")
    until(lambda: server.get("/health").json["model_refused"] is not None)
    assert "feature digest" in server.get("/health").json["model_refused"]
    assert server.get("/version").json["threshold"] == 0.123
    assert (artifacts / "production" / METADATA_FILE).is_file()
    assert server.stop()[0] == 0
