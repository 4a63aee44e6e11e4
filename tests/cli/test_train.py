"""``volspike train``: artifacts, and metrics compared with the best baseline."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused, untouched
from volspike.cli.screen import SIMULATED
from volspike.models import DETECTORS, TEN_FEATURES, Artifact

QUICK = ["--split-method", "time_based", "--search", "0", "--artifacts", "models"]
PLOTS = {"feature_importance.png", "pr_curve.png", "roc_curve.png"}
FILES = {"model.onnx", "metadata.json", *PLOTS}
BASELINE = {"baseline.onnx", "baseline.json"}


def test_models_are_trained_judged_and_written(features: Path, tmp_path: Path, volspike: Run) -> None:
    """Each requested model gets an artifact, and its metrics are listed with the baselines' and the kind of market."""
    outcome = volspike("train", "--features", features.name, "--models", "baseline", "random_forest", *QUICK)
    assert outcome.status == 0
    assert "1 spike event(s)" in outcome.err  # all spikes of so short a market are one
    assert outcome.out.startswith(f"{SIMULATED}\n")
    for name in ("baseline", "random_forest"):
        artifact = Artifact.load(tmp_path / "models" / name)
        beside = BASELINE if artifact.metadata.baseline != name else set()
        assert {file.name for file in (tmp_path / "models" / name).iterdir()} == FILES | beside
        assert artifact.name == name
        assert set(artifact.features) == set(TEN_FEATURES) or name != "baseline"
        assert "bipower_volatility_60s" in artifact.features or name == "baseline"
        assert artifact.metadata.simulated
        assert f"{name} → models/{name} (" in outcome.out
        assert f"{artifact.metadata.metrics['model']['pr_auc']:.4f}" in outcome.out
    words = (
        "split time_based",
        "PR-AUC",
        "ROC-AUC",
        "precision",
        "recall",
        "F1",
        "Brier",
        "base rate",
        "spikes caught",
        "calm rows (95 %)",
        "30 min",
    )
    for word in (*words, "persistence", "har", "too few events for a verdict", "chosen: "):
        assert word in outcome.out
    assert f"{artifact.metadata.metrics[artifact.metadata.baseline]['pr_auc']:.4f}" in outcome.out
    tables = outcome.out.partition("Folds")[2].partition("chosen: ")[0]
    assert max(len(line.rstrip()) for line in tables.splitlines() if " → " not in line) <= 110


def test_walk_forward_over_folds_is_the_default(features: Path, tmp_path: Path, volspike: Run) -> None:
    """Without --split-method each fold is printed, and the artifact stores how it was evaluated."""
    outcome = volspike(
        "train",
        "--features",
        features.name,
        "--models",
        "logistic",
        "--folds",
        "2",
        "--search",
        "0",
        "--artifacts",
        "models",
    )
    assert outcome.status == 0
    assert "split walk_forward" in outcome.out
    split = Artifact.load(tmp_path / "models" / "logistic").metadata.split
    assert (split.method, split.folds, split.fold_by) == ("walk_forward", 2, "rows")
    assert "Final block, which can only overrule the choice" in outcome.out


def test_the_chosen_model_goes_into_service_on_request(features: Path, tmp_path: Path, volspike: Run) -> None:
    """``--promote`` copies the chosen model to the folder that is served unless another is named, and says so.

    The learned model is worse than the best baseline, which is therefore chosen.
    """
    outcome = volspike("train", "--features", features.name, "--models", "logistic", "--promote", *QUICK)
    (name,) = re.findall(r"^chosen: (\w+) \(baseline\); no model is better .*: logistic, -0", outcome.out, re.MULTILINE)
    assert f"promoted: {name} → models/production" in outcome.out
    assert Artifact.load(tmp_path / "models" / "production").name == name


def test_a_degenerate_threshold_is_reported_and_not_promoted(features: Path, tmp_path: Path, volspike: Run) -> None:
    """``rate_99`` is in alarm nearly always: the report is complete, the promotion refused, the exit status 2."""
    options = ("--models", "seasonal", "--promote", "--threshold", "rate_99", *QUICK)
    outcome = volspike("train", "--features", features.name, *options)
    assert outcome.status == USAGE
    assert "chosen: " in outcome.out
    assert "promoted: " not in outcome.out
    assert "DEGENERATE THRESHOLD: rate_99" in outcome.err
    assert "is not promoted: DEGENERATE THRESHOLD" in outcome.err.splitlines()[-1]
    assert not (tmp_path / "models" / "production").exists()


def test_all_models_and_all_columns(features: Path, tmp_path: Path, volspike: Run) -> None:
    """``--models all`` trains every detector that the file suffices for, ``--columns all`` on all that has values."""
    outcome = volspike("train", "--features", features.name, "--models", "all", "--columns", "all", *QUICK)
    assert outcome.status == 0
    assert {folder.name for folder in (tmp_path / "models").iterdir()} == set(DETECTORS) - {"lstm"}
    assert "warning: lstm is left out: " in outcome.err
    for name in ("logistic", "random_forest", "xgboost", "lightgbm"):
        metadata = Artifact.load(tmp_path / "models" / name).metadata
        assert set(metadata.features) | set(metadata.left_out) == set(metadata.feature_set.names)
        assert metadata.left_out[:3] == ("volume_velocity_30s", "volume_velocity_60s", "volume_velocity_300s")
    assert "warning: logistic, random_forest, xgboost, lightgbm exclude volume_velocity_30s" in outcome.err


@pytest.mark.parametrize("flag", ["--split-method", "--split_method"])
def test_stratified_is_loud(flag: str, features: Path, volspike: Run) -> None:
    """A stratified split works, in either spelling of the flag, and says first that it is no evidence."""
    arguments = ["--models", "baseline", "--search", "0", "--artifacts", "models", flag, "stratified"]
    outcome = volspike("train", "--features", features.name, *arguments)
    assert outcome.status == 0
    assert outcome.err.startswith("warning: STRATIFIED SPLIT: NO EVIDENCE OF SKILL.")


def test_training_again_replaces_the_artifact(features: Path, tmp_path: Path, volspike: Run) -> None:
    """The same seed gives the same model in the same folder; only the best baseline is written as well."""
    graphs = []
    for _ in range(2):
        assert volspike("train", "--features", features.name, "--models", "random_forest", *QUICK).status == 0
        graphs.append((tmp_path / "models/random_forest/model.onnx").read_bytes())
    assert graphs[0] == graphs[1]
    baseline = Artifact.load(tmp_path / "models/random_forest").metadata.baseline
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"random_forest", baseline}


def with_future(table: pa.Table, future: object) -> pa.Table:
    return table.set_column(table.column_names.index("future_volatility"), "future_volatility", pa.array(future))


@pytest.fixture
def spoiled(features: Path, tmp_path: Path) -> Path:
    """The test's folder, with a good feature file and some that cannot be trained on."""
    table = pq.read_table(features)
    pq.write_table(table.slice(330, 499), tmp_path / "few.parquet")
    pq.write_table(table.drop_columns(["future_volatility", "volatility_spike"]), tmp_path / "bare.parquet")
    pq.write_table(with_future(table, np.full(len(table), 1e-4)), tmp_path / "one_class.parquet")
    pq.write_table(with_future(table, np.zeros(len(table))), tmp_path / "still.parquet")
    pq.write_table(table.drop_columns(["spread_mean_60s"]), tmp_path / "lacking.parquet")
    pq.write_table(table.slice(0, 250), tmp_path / "cold.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    (tmp_path / "prose.parquet").write_text("Call me Ishmael. " * 100)
    (tmp_path / "empty.parquet").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "told"),
    [
        ("--features nowhere.parquet", DATA, ["nowhere.parquet: no such file", "volspike replay", "--add-labels"]),
        ("--features prose.parquet", DATA, ["prose.parquet: not a Parquet file"]),
        ("--features empty.parquet", DATA, ["empty.parquet: not a Parquet file", "0 bytes"]),
        ("--features other.parquet", DATA, ["other.parquet: not a feature file", "log_return_60s", "volspike replay"]),
        ("--features lacking.parquet", DATA, ["lacking.parquet: lacks the columns spread_mean_60s"]),
        ("--features bare.parquet", DATA, ["bare.parquet: has no labels", "volspike label --features"]),
        (
            "--features few.parquet",
            DATA,
            ["few.parquet has 499 labelled rows, training needs 500", "record for longer"],
        ),
        ("--features cold.parquet", DATA, ["cold.parquet: none of its 250 rows is warm", "record for longer"]),
        ("--features one_class.parquet", DATA, ["one_class.parquet", "both spikes and calm", "record for longer"]),
        ("--features still.parquet", DATA, ["still.parquet", "the price hardly moved", "record for longer"]),
        ("--features features.parquet --models lgbm", USAGE, ["no model named lgbm", "baseline, persistence, ewma_10"]),
        (
            "--features features.parquet --split_method odd",
            USAGE,
            ["unknown split method 'odd'", "walk_forward, time_"],
        ),
        ("--features features.parquet --split_method walk_forward --folds 0", USAGE, ["folds at least 1", "0"]),
        ("--features features.parquet --models lstm", MODEL, ["no columns that lstm can use", "feature set"]),
        (
            "--features features.parquet --fold-by week",
            USAGE,
            ["unknown unit to fold by 'week'", "auto, rows, session, day"],
        ),
        ("--features features.parquet --training all", USAGE, ["unknown training 'all'", "expanding, rolling"]),
        ("--features features.parquet --training-span 2", USAGE, ["needs rolling training", "2, expanding"]),
        ("--features features.parquet --calibration beta", USAGE, ["no calibration 'beta'", "platt, isotonic"]),
        ("--features features.parquet --threshold f1", USAGE, ["no threshold 'f1'", "best_f1, rate_10"]),
        ("--features features.parquet --search -1", USAGE, ["0 or more, was -1"]),
        ("--features features.parquet --split_method stratified --promote", USAGE, ["no evidence to promote"]),
        ("--features features.parquet --seed -1", USAGE, ["'--seed'", "0", "volspike train --help"]),
        (
            "--features features.parquet --label-percentile 101",
            USAGE,
            ["'--label-percentile'", "100", "volspike train --help"],
        ),
        ("--features features.parquet --columns volume", MODEL, ["features.parquet", "missing: volume", "all"]),
        ("--features features.parquet --artifacts features.parquet", USAGE, ["features.parquet/logistic", "written"]),
        (
            "--features features.parquet --artifacts mine",
            USAGE,
            ["mine/logistic contains something other than an artifact", "another"],
        ),
    ],
)
def test_what_cannot_be_trained_on_is_refused(
    arguments: str, status: int, told: list[str], spoiled: Path, model: Path, volspike: Run
) -> None:
    """The error and what to do on one line; an existing artifact is unchanged."""
    shutil.copytree(model, spoiled / "models" / "logistic")
    (spoiled / "mine" / "logistic").mkdir(parents=True)
    (spoiled / "mine" / "logistic" / "notes.txt").write_text("mine")
    with untouched(spoiled):
        outcome = volspike("train", "--models", "logistic", *QUICK, *arguments.split())
    assert_refused(outcome, status, *told)


def test_an_artifact_has_a_head_for_each_horizon(features: Path, tmp_path: Path, volspike: Run) -> None:
    """The artifact of the first horizon scores the others too, each as a model that was trained for it alone."""
    every = ("train", "--features", features.name, "--spike", "jump:1.2", "--models", "ewma_30", "logistic", *QUICK)
    outcome = volspike(*every, "--promote", "--horizons", "60", "300")
    assert outcome.status == 0, outcome.err
    assert "Horizon 300 s" in outcome.out
    assert Artifact.load(tmp_path / "models" / "production").horizons == (60, 300)
    assert volspike("label", "--features", features.name, "--horizon", "300", "--spike", "jump:1.2").status == 0
    alone = ("train", "--features", features.name, "--models", "ewma_30", *QUICK[:-1], "alone")
    assert volspike(*alone).status == 0
    artifact, other = Artifact.load(tmp_path / "models" / "ewma_30"), Artifact.load(tmp_path / "alone" / "ewma_30")
    assert artifact.horizons == (60, 300)
    assert (artifact.heads[300].metadata.horizon_s, artifact.heads[300].metadata.spike) == (300, "jump:1.2")
    assert artifact.heads[300].metadata.split.purge_s == 300
    x = np.abs(np.random.default_rng(0).normal(1e-4, 1e-5, (20, len(other.features))))
    np.testing.assert_array_equal(artifact.heads[300].probability(x), other.probability(x))
    logistic = Artifact.load(tmp_path / "models" / "logistic")
    assert set(logistic.heads) == {300}
    assert set(Artifact.load(tmp_path / "models" / logistic.metadata.baseline).heads) == {300}


@pytest.mark.parametrize("horizons", [("30",), ("60", "7200")])
def test_horizons_out_of_range_are_refused(
    features: Path, tmp_path: Path, volspike: Run, horizons: tuple[str, ...]
) -> None:
    """A horizon is a minute to an hour; nothing is trained."""
    with untouched(tmp_path):
        outcome = volspike("train", "--features", features.name, "--models", "har", *QUICK, "--horizons", *horizons)
    assert_refused(outcome, USAGE, "--horizons must be 60 to 3600 s", horizons[-1])
