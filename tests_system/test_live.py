"""A live market as its user has it: watched, recorded, stopped, and replayed from what was recorded."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tests_system.processes import Server, volspike, well

UP = ("--source", "simulator", "--pair", "BTC-USD", "ETH-USD", "--port", "0")


def events(url: str) -> Iterator[tuple[str, Any]]:
    """What the server sends, event by event."""
    with urllib.request.urlopen(url, timeout=20) as stream:  # noqa: S310  our own server
        name = ""
        for line in stream:
            field, _, value = line.decode().rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                yield name, json.loads(value)


def test_up_shows_scores_and_records_a_market(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """One command gives a page, a stream with probabilities, a tape and a prediction; SIGTERM ends it well."""
    server = serve(tmp_path, *UP, command="up")
    opened = next(event for event in server.events if event["event"] == "source_opened")
    assert opened["simulated"]
    page = server.get("/")
    assert page.status == 200
    assert b"<canvas" in page.body or b"chart" in page.body
    told = list(islice(events(f"{server.url}/stream?product=ETH-USD"), 60))
    name, snapshot = told[0]
    assert (name, snapshot["product"], snapshot["simulated"]) == ("snapshot", "ETH-USD", True)
    assert snapshot["products"] == ["BTC-USD", "ETH-USD"]
    ticks = [data for name, data in told if name == "tick"]
    assert {tick["product"] for tick in ticks} == {"ETH-USD"}
    assert all(0.0 <= tick["probability"] <= 1.0 for tick in ticks if tick["is_warm"])
    assert any(tick["is_warm"] for tick in ticks)
    health = next(data for name, data in reversed(told) if name == "health")
    assert health["is_connected"]
    assert health["is_recording"]
    features = ticks[-1]["features"]
    answer = server.post("/predict", json.dumps({"features": features}))
    assert answer.json["probability"] == ticks[-1]["probability"]

    status, seconds = server.stop()
    assert status == 0
    assert seconds < 8.0
    replayed = volspike(tmp_path, "replay", "--raw", "data/raw", "--profile", "ticker", "--out", "features.parquet")
    assert "SIMULATED" in well(replayed).out
    assert (tmp_path / "data" / "outcomes.sqlite").is_file()


def test_an_open_page_does_not_keep_it_from_stopping(tmp_path: Path, serve: Callable[..., Server]) -> None:
    """With a reader on the stream, SIGTERM ends the server within seconds."""
    server = serve(tmp_path, *UP, "--no-record", command="up")
    stream = events(f"{server.url}/stream")
    assert next(stream)[0] == "snapshot"
    status, seconds = server.stop()
    assert status == 0
    assert seconds < 8.0


def test_ingest_records_for_the_time_that_it_is_given(tmp_path: Path) -> None:
    """A few seconds of a market become a tape and nothing is lost; a second run names the time between the two."""
    for _ in range(2):
        outcome = well(volspike(tmp_path, "ingest", "--source", "simulator", "--minutes", "0.05", "--out", "raw"))
        assert "0 malformed, 0 gaps" in outcome.out
        assert "SIMULATED" in outcome.out
    gaps = json.loads(well(volspike(tmp_path, "gaps", "--tape", "raw", "--json")).out)
    assert [gap["cause"] for gap in gaps["gaps"]] == ["restart"]
    replayed = well(volspike(tmp_path, "replay", "--raw", "raw", "--out", "features.parquet"))
    assert "profile ticker+trade" in replayed.out
