"""An installation that gets better: a recorded market is learned from, and a running server serves what came of it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from tests_system.processes import Server, volspike, well
from volspike.models import SIMULATED_MODEL

TAPE = "data/raw/ticks_BTCUSD_20260105_000000.ndjson"
RETRAIN = "retrain --if-needed --models har --folds 2 --shadow-hours 0"
FOLLOWED_WITHIN_S = 30


def test_server_follows_what_was_learned_from_its_tape(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """First the shipped model answers, then the one that beat it on rows neither had seen, then the old one again."""
    production = tmp_path / "models/artifacts/production"
    shutil.copytree(SIMULATED_MODEL, production, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    server = serve(tmp_path, "--port", "0")
    assert server.get("/version").json["model"].startswith("logistic")
    shutil.rmtree(production)  # so that it counts as the model that ships, and its market's clock is another one's

    well(volspike(tmp_path, "simulate", "--minutes", "1200", "--seed", "3", "--out", TAPE))
    told = well(volspike(tmp_path, *RETRAIN.split())).out
    assert "SIMULATED" in told
    assert "in service: har" in told
    until_it_serves(server, "har")
    history = [json.loads(line) for line in (tmp_path / "models/artifacts/history.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in history] == ["trained", "promoted"]
    assert history[0]["figures"]["gain_low"] > 0

    assert "production *" in well(volspike(tmp_path, "models", "list")).out
    well(volspike(tmp_path, "models", "rollback", "--reason", "a test"))
    until_it_serves(server, "logistic")


def until_it_serves(server: Server, model: str) -> None:
    """Asks the server until it has taken the model up."""
    end = time.monotonic() + FOLLOWED_WITHIN_S
    while not server.get("/version").json["model"].startswith(model):
        assert time.monotonic() < end, f"{model} was not taken up"
        time.sleep(0.1)
