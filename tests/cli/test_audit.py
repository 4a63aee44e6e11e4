"""``volspike audit``: a table of scores, a sentence for each protocol, and the figures as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused, untouched
from volspike.cli.screen import SIMULATED


def test_an_audit_is_told_and_written(features: Path, tmp_path: Path, volspike: Run) -> None:
    """Four data sets under two protocols; what is on the screen is what is in the file."""
    outcome = volspike("audit", "--features", features.name, "--model", "logistic", "--output", "reports/audit.json")
    assert outcome.status == 0
    assert outcome.out.startswith(f"{SIMULATED}\n")
    told = json.loads((tmp_path / "reports/audit.json").read_text())
    pairs = [(score["data"], score["protocol"]) for score in told["scores"]]
    worlds = ("yours", "turned", "shuffled", "null market")
    assert pairs == [(data, protocol) for data in worlds for protocol in ("stratified", "walk_forward")]
    assert told["simulated"] is True
    for score in told["scores"]:
        assert score["pr_auc"] is None or f"{score['pr_auc']:.3f}" in outcome.out
    for sentence in told["sentences"]:
        assert sentence in outcome.out
    assert "figures → reports/audit.json" in outcome.out


def test_the_same_seed_gives_the_same_audit(features: Path, tmp_path: Path, volspike: Run) -> None:
    """Two runs write the same bytes."""
    written = []
    for _ in range(2):
        arguments = ["--model", "persistence", "--rows", "2000", "--output", "audit.json"]
        assert volspike("audit", "--features", features.name, *arguments).status == 0
        written.append((tmp_path / "audit.json").read_bytes())
    assert written[0] == written[1]
    assert json.loads(written[0])["every_nth_second"] == 2


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("--features nowhere.parquet", DATA, ["nowhere.parquet: no such file"]),
        ("--features bare.parquet", DATA, ["bare.parquet: has no labels", "volspike label"]),
        ("--features few.parquet", DATA, ["499 labelled rows", "record for longer"]),
        ("--features features.parquet --model lgbm", USAGE, ["no model named lgbm", "random_forest"]),
        ("--features features.parquet --model all", USAGE, ["one model"]),
        ("--features features.parquet --rows 10", USAGE, ["--rows must be at least 2000, was 10"]),
        ("--features features.parquet --columns volume", MODEL, ["missing: volume"]),
        ("--features features.parquet --seed -1", USAGE, ["'--seed'", "volspike audit --help"]),
    ],
)
def test_what_cannot_be_audited_is_refused(
    arguments: str, status: int, told: list[str], features: Path, tmp_path: Path, volspike: Run
) -> None:
    """One line that says what is wrong, the exit status, and no file."""
    table = pq.read_table(features)
    pq.write_table(table.drop_columns(["future_volatility", "volatility_spike"]), tmp_path / "bare.parquet")
    pq.write_table(table.slice(330, 499), tmp_path / "few.parquet")
    with untouched(tmp_path):
        outcome = volspike("audit", "--output", "audit.json", *arguments.split())
    assert_refused(outcome, status, *told)
