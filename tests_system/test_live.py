"""``volspike up`` and ``volspike ingest`` with the simulated exchange: dashboard, stream, recording, shutdown."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from tests_system.processes import Server, run_volspike, succeeded

UP = ("--source", "simulator", "--pair", "BTC-USD", "ETH-USD", "--port", "0")


def events(url: str) -> Iterator[tuple[str, Any]]:
    """The server-sent events of a URL, as (name, data)."""
    with urllib.request.urlopen(url, timeout=20) as stream:  # noqa: S310  our own server
        name = ""
        for line in stream:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def test_up_shows_scores_and_records_a_market(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """One command serves a page, a stream with probabilities and predictions, and records; SIGTERM stops it cleanly."""
    server = serve(tmp_path, *UP, command="up")
    opened = next(event for event in server.events if event["event"] == "source_opened")
    assert opened["simulated"]
    page = server.get("/")
    assert page.status == 200
    assert b"<canvas" in page.body or b"chart" in page.body
    received = list(islice(events(f"{server.url}/stream?product=ETH-USD"), 60))
    name, snapshot = received[0]
    assert (name, snapshot["product"], snapshot["simulated"]) == ("snapshot", "ETH-USD", True)
    assert snapshot["products"] == ["BTC-USD", "ETH-USD"]
    ticks = [data for name, data in received if name == "tick"]
    assert {tick["product"] for tick in ticks} == {"ETH-USD"}
    assert all(0.0 <= tick["probability"] <= 1.0 for tick in ticks if tick["is_warm"])
    assert any(tick["is_warm"] for tick in ticks)
    health = next(data for name, data in reversed(received) if name == "health")
    assert health["is_connected"]
    assert health["is_recording"]
    features = ticks[-1]["features"]
    answer = server.post("/predict", json.dumps({"features": features}))
    assert answer.status == 200, answer.json
    # features alone name no product, so its outcomes do not calibrate the probability
    assert answer.json["probability"] == pytest.approx(ticks[-1]["probability"], rel=0.2)

    status, seconds = server.stop()
    assert status == 0
    assert seconds < 8.0
    replayed = run_volspike(tmp_path, "replay", "--raw", "data/raw", "--profile", "ticker", "--out", "features.parquet")
    assert "SIMULATED" in succeeded(replayed).out
    assert (tmp_path / "data" / "outcomes.sqlite").is_file()


def test_open_stream_does_not_delay_shutdown(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """With a client on the stream, SIGTERM stops the server within seconds."""
    server = serve(tmp_path, *UP, "--no-record", command="up")
    stream = events(f"{server.url}/stream")
    assert next(stream)[0] == "snapshot"
    status, seconds = server.stop()
    assert status == 0
    assert seconds < 8.0


def test_ingest_records_for_the_given_time(tmp_path: Path) -> None:
    """A few seconds are recorded without a loss; a second run adds the time between the runs to the gap ledger."""
    for _ in range(2):
        outcome = succeeded(
            run_volspike(tmp_path, "ingest", "--source", "simulator", "--minutes", "0.05", "--out", "raw")
        )
        assert "0 malformed, 0 gaps" in outcome.out
        assert "SIMULATED" in outcome.out
    gaps = json.loads(succeeded(run_volspike(tmp_path, "gaps", "--tape", "raw", "--json")).out)
    assert [gap["cause"] for gap in gaps["gaps"]] == ["restart"]
    replayed = succeeded(run_volspike(tmp_path, "replay", "--raw", "raw", "--out", "features.parquet"))
    assert "profile ticker+trade" in replayed.out
