"""Retraining on recorded data while a server runs: it serves the promoted model, and the old one after a rollback."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests_system.processes import Server, run_volspike, succeeded
from volspike.models import METADATA_FILE, TEN_MODEL

TAPE = "data/raw/ticks_BTCUSD_20260105_000000.ndjson"
RETRAIN = "retrain --models har --folds 2 --shadow-hours 0"
TIMEOUT_S = 30


def test_server_serves_the_retrained_model(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """The server serves the model in production, then one that is better on held-out rows, then the old one again."""
    production = tmp_path / "models/artifacts/production"
    shutil.copytree(TEN_MODEL, production)
    facts = (production / METADATA_FILE).read_text()
    (production / METADATA_FILE).write_text(facts.replace('"simulated": false', '"simulated": true'))
    server = serve(tmp_path, "--port", "0")
    assert server.get("/version").json["model"].startswith("logistic")

    succeeded(run_volspike(tmp_path, "simulate", "--minutes", "1200", "--seed", "3", "--out", TAPE))
    output = succeeded(run_volspike(tmp_path, *RETRAIN.split())).out
    assert "SIMULATED" in output
    assert "promoted: har" in output
    wait_until_served(server, "har")
    history = [json.loads(line) for line in (tmp_path / "models/artifacts/history.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in history] == ["trained", "promoted"]
    assert history[0]["figures"]["gain_low"] > 0

    assert "production *" in succeeded(run_volspike(tmp_path, "models", "list")).out
    succeeded(run_volspike(tmp_path, "models", "rollback", "--reason", "a test"))
    wait_until_served(server, "logistic")


def wait_until_served(server: Server, model: str) -> None:
    """Waits until the server reports the model."""
    end = time.monotonic() + TIMEOUT_S
    while not server.get("/version").json["model"].startswith(model):
        assert time.monotonic() < end, f"the server does not serve {model}"
        time.sleep(0.1)
