"""``volspike models``: list, promote, rollback."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli.command_line import MODEL, USAGE, Run, assert_refused


def test_models_are_listed_promoted_and_rolled_back(market: Path, volspike: Run, tmp_path: Path) -> None:
    """A user sees what there is, serves one, sees the star move, and goes back to what shipped."""
    shutil.copytree(market / "models", tmp_path / "models/artifacts")
    listed = volspike("models", "list")
    assert listed.status == 0
    assert "logistic" in listed.out
    assert "production *" not in listed.out
    refused = volspike("models", "promote", "logistic")
    assert_refused(refused, USAGE, "best_f1", "never alerts on 396 test rows, 76 of them spikes", "--force")
    promoted = volspike("models", "promote", "logistic", "--force", "--reason", "looks well")
    assert "serving: logistic" in promoted.out, promoted.err
    assert "production *" in volspike("models", "list").out
    assert "looks well" in (tmp_path / "models/artifacts/history.jsonl").read_text()
    back = volspike("models", "rollback", "--mlflow-uri", f"sqlite:///{tmp_path}/mlflow.db")
    assert "serving: the shipped model for the kind of market; no model is promoted" in " ".join(back.out.split())
    assert "the alias `champion` was not moved" in back.err
    assert "production *" not in volspike("models", "list").out
    assert_refused(volspike("models", "rollback"), MODEL, "no model in production")


def test_a_model_without_evidence_needs_force(market: Path, volspike: Run, tmp_path: Path) -> None:
    """Its score is not listed, its limitations are, and it is promoted with ``--force`` only."""
    shutil.copytree(market / "models" / "logistic", tmp_path / "models/artifacts/random")
    file = tmp_path / "models/artifacts/random/metadata.json"
    file.write_text(file.read_text().replace('"time_based"', '"stratified"'))
    listed = volspike("models", "list")
    (training,) = (line.split() for line in listed.out.splitlines() if "stratified" in line)
    assert training[:3] == ["random", "stratified", "best_f1"]
    assert " ".join(training[-6:]) == "NO EVIDENCE, DEGENERATE THRESHOLD, few events"
    (figures,) = (line.split() for line in listed.out.splitlines() if line.endswith("SIMULATED  "))
    assert figures[5:8] == ["–", "–", "–"]
    assert "warning: random: NO EVIDENCE: stratified split" in listed.err
    assert_refused(volspike("models", "promote", "random"), USAGE, "random is not promoted: NO EVIDENCE", "--force")
    assert_refused(volspike("models", "list", "--force"), USAGE, "--force belongs to")
    forced = volspike("models", "promote", "random", "--force")
    assert "serving: logistic" in forced.out
    assert "warning: logistic: NO EVIDENCE" in forced.err


def test_wrong_calls_are_refused(volspike: Run) -> None:
    """A name where none belongs, none where one does, and models that are not there."""
    assert "no model in" in volspike("models", "list").out
    assert_refused(volspike("models", "promote"), USAGE, "takes the name")
    assert_refused(volspike("models", "rollback", "har"), USAGE, "takes the name")
    assert_refused(volspike("models", "promote", "har"), MODEL, "no model 'har'")
    assert_refused(volspike("models", "rollback"), MODEL, "to roll back from")
