"""``volspike retrain`` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command_line import MODEL, USAGE, Run, assert_refused


def test_retrain_looks_and_says_what_it_found(market: Path, volspike: Run, tmp_path: Path) -> None:
    """Fifty minutes of a market are too little: it says so, leaves everything as it is, and writes that down."""
    rows = market / "features.parquet"
    done = volspike("retrain", "--if-needed", "--features", rows, "--trigger", "test")
    assert done.status == 0, done.err
    assert "SIMULATED" in done.out
    assert "nothing to do" in done.out
    lines = (tmp_path / "models/artifacts/history.jsonl").read_text().splitlines()
    told = json.loads(lines[-1])
    assert (told["event"], told["trigger"]) == ("checked", "test")
    assert "no challenger waits" in volspike("retrain", "--only-shadow").out


def test_wrong_calls_are_refused(market: Path, volspike: Run, tmp_path: Path) -> None:
    """No recordings, a model that does not exist, and rows that the served model does not understand."""
    assert_refused(volspike("retrain"), USAGE, "no recordings in data/raw")
    assert_refused(volspike("retrain", "--models", "oracle"), USAGE, "no model named oracle")
    made = ("replay", "--raw", market / "tape.ndjson", "--feature-set", "core", "--every", "1s", "--add-labels")
    assert volspike(*made, "--out", tmp_path / "core.parquet").status == 0
    assert_refused(volspike("retrain", "--features", "core.parquet"), MODEL, "expects feature digest", "missing: ")
    assert_refused(volspike("up", "--retrain-at", "0 2 * * 1"), USAGE, "give weekdays by name")
    assert_refused(volspike("up", "--retrain", "--no-record"), USAGE, "needs a recorded market")
