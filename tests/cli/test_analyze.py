"""``volspike analyze``: four files, and names that ``volspike train`` takes as they are."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused, untouched
from volspike.cli.screen import SIMULATED
from volspike.models import Artifact

FILES = {"feature_importance.png", "feature_importance.csv", "correlation_heatmap.png", "recommended_features.txt"}


def test_features_are_analyzed_and_can_be_trained_on(features: Path, tmp_path: Path, volspike: Run) -> None:
    """The files are in their place, and the recommended names can be passed to ``--columns``."""
    outcome = volspike("analyze", "--features", features.name, "--model", "logistic", "--repeats", "2")
    assert outcome.status == 0, outcome.err
    assert outcome.out.startswith(f"{SIMULATED}\n")
    folder = tmp_path / "reports" / "feature_analysis"
    assert {file.name for file in folder.iterdir()} == FILES
    names = (folder / "recommended_features.txt").read_text().split()
    assert f"recommended: {', '.join(names)}" in outcome.out
    arguments = ["--models", "logistic", "--split-method", "time_based", "--search", "0", "--artifacts", "models"]
    trained = volspike("train", "--features", features.name, "--columns", *names, *arguments)
    assert trained.status == 0, trained.err
    assert Artifact.load(tmp_path / "models" / "logistic").features == tuple(names)


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("--features nowhere.parquet", DATA, ["nowhere.parquet: no such file"]),
        ("--features few.parquet", DATA, ["499 labelled rows", "record for longer"]),
        ("--features features.parquet --model lgbm", USAGE, ["--model one of", "'lgbm'"]),
        ("--features features.parquet --repeats 0", USAGE, ["'--repeats'", "volspike analyze --help"]),
        ("--features features.parquet --columns volume", MODEL, ["missing: volume"]),
        ("--features features.parquet --output features.parquet --model logistic", USAGE, ["name a folder"]),
    ],
)
def test_what_cannot_be_analyzed_is_refused(
    arguments: str, status: int, told: list[str], features: Path, tmp_path: Path, volspike: Run
) -> None:
    """One line that says what is wrong, the exit status, and no file."""
    pq.write_table(pq.read_table(features).slice(330, 499), tmp_path / "few.parquet")
    with untouched(tmp_path):
        outcome = volspike("analyze", *arguments.split())
    assert_refused(outcome, status, *told)
