"""Artifacts are evaluated on held-out rows only, and compared with the best baseline of their training."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.reporting.conftest import ROWS, market_table
from tests.reporting.pages import evaluated
from volspike.datasets import load_dataset
from volspike.errors import ArtifactCorrupt, ArtifactMissing, DataError, NotEnoughData, SchemaMismatch
from volspike.market import SECOND_NS
from volspike.models import Artifact
from volspike.reporting.evaluate import EvaluationReport, select_held_out
from volspike.training.report import TrainingReport


def test_figures_are_those_of_the_final_block(report: TrainingReport, evaluation: EvaluationReport) -> None:
    """Scored by the ONNX graph, model and best baseline have the metrics that training found on its final block."""
    assert report.best_baseline in {model.comparison.baseline_name for model in evaluation.models}
    for model in evaluation.models:
        trained = report.result(model.metadata.model).folds[-1].comparison
        assert model.comparison.baseline_name == report.best_baseline
        assert model.comparison.model.rows == trained.model.rows
        assert model.comparison.model.pr_auc == pytest.approx(trained.model.pr_auc, abs=1e-9)
        assert model.comparison.baseline.pr_auc == pytest.approx(trained.baseline.pr_auc, abs=1e-9)
        assert model.comparison.model_events.alarms == trained.model_events.alarms


def test_later_rows_are_held_out(report: TrainingReport, folder: Path, tmp_path: Path) -> None:
    """A file that continued after the training is evaluated on the final block and all later rows."""
    file = tmp_path / "longer.parquet"
    longer = market_table(ROWS + 1000)
    old = pq.read_table(folder / "features.parquet")
    pq.write_table(pa.concat_tables([old, longer.slice(ROWS)]), file)
    dataset, metadata = load_dataset(file), Artifact.load(folder / "models" / "logistic").metadata
    held_out = select_held_out(file, dataset, metadata)
    assert len(held_out.rows) == metadata.data.test_rows + 1000
    assert "and 1,000 rows after it" in held_out.description


def test_of_another_file_only_later_rows_are_held_out(report: TrainingReport, folder: Path) -> None:
    """Rows of another recording are held out only if their windows begin after the training data."""
    dataset = load_dataset(folder / "features.parquet")
    metadata = Artifact.load(folder / "models" / "logistic").metadata
    other = msgspec.structs.replace(metadata, data=msgspec.structs.replace(metadata.data, rows=1))
    assert len(select_held_out(folder / "features.parquet", dataset, other).rows) == 0
    later = replace(dataset, time=dataset.time + ROWS * SECOND_NS, session=dataset.session + ROWS)
    held_out = select_held_out(folder / "features.parquet", later, metadata)
    assert len(held_out.rows) == len(later)
    joined = replace(dataset, time=dataset.time + ROWS * SECOND_NS)
    rows = select_held_out(folder / "features.parquet", joined, metadata).rows
    embargo = metadata.split.embargo_s
    assert embargo is not None
    assert len(rows) == pytest.approx(ROWS - embargo, abs=4)
    assert np.array_equal(rows, np.arange(ROWS - len(rows), ROWS))


def test_stratified_model_has_no_held_out_rows_in_its_file(report: TrainingReport, folder: Path) -> None:
    """Rows drawn at random leave no block that is held_out."""
    dataset = load_dataset(folder / "features.parquet")
    metadata = Artifact.load(folder / "models" / "logistic").metadata
    drawn = msgspec.structs.replace(metadata, split=msgspec.structs.replace(metadata.split, method="stratified"))
    held_out = select_held_out(folder / "features.parquet", dataset, drawn)
    assert len(held_out.rows) == 0
    assert "drawn at random" in held_out.description


def test_a_final_block_of_other_rows_is_refused(report: TrainingReport, folder: Path) -> None:
    """The same number of rows in all but another number in the final block is not the training file."""
    dataset = load_dataset(folder / "features.parquet")
    metadata = Artifact.load(folder / "models" / "logistic").metadata
    other = msgspec.structs.replace(metadata, data=msgspec.structs.replace(metadata.data, test_rows=7))
    with pytest.raises(DataError, match="evaluated on 7 there"):
        select_held_out(folder / "features.parquet", dataset, other)


@pytest.fixture
def models(report: TrainingReport, folder: Path, tmp_path: Path) -> Path:
    """The test's own copy of the trained models, without the one in production."""
    shutil.copytree(folder / "models", tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "production")
    return tmp_path / "models"


def rewritten(folder: Path, **changes: object) -> None:
    facts = msgspec.json.decode((folder / "metadata.json").read_bytes())
    (folder / "metadata.json").write_bytes(msgspec.json.encode(facts | changes))


def test_without_its_baseline_the_model_is_compared_with_persistence(models: Path, folder: Path) -> None:
    """Without the baseline's files the model is compared with persistence, with a warning."""
    for name in ("baseline.onnx", "baseline.json"):
        (models / "logistic" / name).unlink(missing_ok=True)
    rewritten(models / "logistic", baseline="har")
    (model,) = evaluated(folder / "features.parquet", models / "logistic").models
    assert model.comparison.baseline_name == "persistence"
    assert np.isnan(model.comparison.baseline.brier)
    assert "its best baseline, har, is not in its folder" in model.warnings[0]


def test_production_model_without_a_copy_is_evaluated(models: Path, folder: Path) -> None:
    """A model that exists in production only is named so."""
    (models / "logistic").rename(models / "production")
    evaluation = evaluated(folder / "features.parquet", models)
    (served,) = [model for model in evaluation.models if model.is_served]
    assert served.title == "production (logistic)"


def test_rows_of_another_kind_are_refused(models: Path, folder: Path) -> None:
    """A model of another kind of rows fails the report, even if others fit."""
    rewritten(models / "har", every="tick")
    with pytest.raises(SchemaMismatch, match="expects rows every tick, was 1s"):
        evaluated(folder / "features.parquet", models)


def test_a_damaged_baseline_is_refused(models: Path, folder: Path) -> None:
    """The baseline's file is checked against its SHA-256."""
    changed = [name for name in models.iterdir() if (name / "baseline.onnx").is_file()]
    assert changed
    (changed[0] / "baseline.onnx").write_bytes(b"")
    with pytest.raises(ArtifactCorrupt, match=r"baseline\.onnx"):
        evaluated(folder / "features.parquet", models)


def test_nothing_to_evaluate(models: Path, folder: Path, tmp_path: Path) -> None:
    """Without an artifact, or without held-out rows, there is an error and no report."""
    with pytest.raises(ArtifactMissing):
        evaluated(folder / "features.parquet", tmp_path / "nowhere")
    for path in models.glob("*/metadata.json"):
        facts = msgspec.json.decode(path.read_bytes())
        rewritten(path.parent, data=facts["data"] | {"rows": 1})
    with pytest.raises(NotEnoughData, match="another file"):
        evaluated(folder / "features.parquet", models)
