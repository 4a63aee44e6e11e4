"""``volspike report``: a PDF of what trained models do on rows that they have not seen, and their cards."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused, untouched
from volspike.cli.screen import SIMULATED


@pytest.fixture
def models(market: Path, tmp_path: Path) -> Path:
    """The test's own copy of the trained models."""
    return Path(shutil.copytree(market / "models", tmp_path / "models"))


def test_a_report_and_cards_are_written(features: Path, models: Path, tmp_path: Path, volspike: Run) -> None:
    """The PDF and every card are listed, with the summary and each model's verdict."""
    outcome = volspike("report", "--features", features.name, "--artifacts", "models", "--cards")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(f"{SIMULATED}\n")
    assert (tmp_path / "reports/model_eval.pdf").read_bytes().startswith(b"%PDF-")
    for told in ("→ reports/model_eval.pdf", "→ models/logistic/card.md", "→ models/baseline/card.md", "PR-AUC"):
        assert told in outcome.out
    assert "logistic: too few events for a conclusion" in outcome.out
    assert (models / "logistic" / "card.md").read_text().startswith("# Model card: logistic\n")


def test_a_stratified_model_is_reported_without_evidence(
    features: Path, models: Path, tmp_path: Path, volspike: Run
) -> None:
    """The earlier system's workflow ends with a PDF and a card, both under the banner, and no verdict of skill."""
    options = ("--models", "random_forest", "--split-method", "stratified", "--search", "0", "--artifacts", "drawn")
    trained = volspike("train", "--features", features.name, *options)
    assert trained.status == 0, trained.err
    assert "Test rows of a stratified split: NO EVIDENCE of skill" in trained.out
    outcome = volspike("report", "--features", features.name, "--artifacts", "drawn", "--cards")
    assert outcome.status == 0, outcome.err
    banner = "NO EVIDENCE: the figures of "
    assert outcome.out.startswith(f"{SIMULATED}\n{banner}")
    assert "better than" not in outcome.out
    assert (tmp_path / "reports/model_eval.pdf").read_bytes().startswith(b"%PDF-")
    assert banner in (tmp_path / "drawn/random_forest/card.md").read_text()[:300]


def test_the_ending_selects_the_kind(features: Path, models: Path, tmp_path: Path, volspike: Run) -> None:
    """``--output`` writes a page or a PDF, and both if it is repeated."""
    outcome = volspike(
        *("report", "--features", features.name, "--artifacts", "models/logistic"),
        *("--output", "new/r.html", "--output", "new/r.pdf"),
    )
    assert outcome.status == 0, outcome.err
    assert outcome.out.endswith("→ new/r.html\n→ new/r.pdf\n")
    assert (tmp_path / "new/r.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "new/r.pdf").read_bytes().startswith(b"%PDF-")


def test_cards_alone_need_no_features(models: Path, tmp_path: Path, volspike: Run) -> None:
    """Cards are made from metadata; no PDF is written."""
    outcome = volspike("report", "--artifacts", "models/logistic", "--cards")
    assert (outcome.status, outcome.out) == (0, "→ models/logistic/card.md\n")
    assert not (tmp_path / "reports").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("", USAGE, "--features"),
        ("--features absent.parquet --artifacts models", DATA, "absent.parquet"),
        ("--features features.parquet --artifacts nowhere", MODEL, "volspike train"),
        ("--cards --artifacts nowhere", MODEL, "volspike train"),
        ("--features other.parquet --artifacts models", MODEL, "expects feature digest"),
        ("--features features.parquet --artifacts models --output models", USAGE, "it is a folder"),
        ("--features features.parquet --artifacts models --output r.docx", USAGE, "ends in .pdf or .html"),
    ],
)
def test_what_cannot_be_reported(
    arguments: str, status: int, told: str, features: Path, models: Path, tmp_path: Path, volspike: Run, market: Path
) -> None:
    """A refusal is one line with the right status, and leaves everything as it was."""
    if "other" in arguments:
        made = volspike(
            "replay", "--raw", market / "tape.ndjson", "--out", "other.parquet", "--every", "1s", "--add-labels",
            "--windows", "30", "60",
        )  # fmt: skip
        assert made.status == 0, made.err
    with untouched(tmp_path):
        assert_refused(volspike("report", *arguments.split()), status, told)
