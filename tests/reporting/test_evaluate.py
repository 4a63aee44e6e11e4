"""Artifacts are judged on rows alone that their training has not seen, beside the baseline that it found best."""

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
from volspike.reporting.evaluate import Evaluation, unseen_rows
from volspike.training import TrainingReport


def test_figures_are_those_of_the_final_block(report: TrainingReport, evaluation: Evaluation) -> None:
    """Scored anew by the ONNX graph, model and best baseline come out as training found them on its final block."""
    final = {model.model: model.final for model in report.models}
    assert report.best_baseline in {model.comparison.baseline_name for model in evaluation.models}
    for model in evaluation.models:
        told = final[model.metadata.model]
        assert model.comparison.baseline_name == report.best_baseline
        assert model.comparison.model.rows == told.model.rows
        assert model.comparison.model.pr_auc == pytest.approx(told.model.pr_auc, abs=1e-9)
        assert model.comparison.baseline.pr_auc == pytest.approx(told.baseline.pr_auc, abs=1e-9)
        assert model.comparison.model_events.alarms == told.model_events.alarms


def test_newer_rows_count_as_unseen(report: TrainingReport, folder: Path, tmp_path: Path) -> None:
    """A file that has gone on since the training is judged on the final block and on all that came after."""
    file = tmp_path / "longer.parquet"
    longer = market_table(ROWS + 1000)
    old = pq.read_table(folder / "features.parquet")
    pq.write_table(pa.concat_tables([old, longer.slice(ROWS)]), file)
    dataset, metadata = load_dataset(file), Artifact.load(folder / "models" / "logistic").metadata
    unseen = unseen_rows(file, dataset, metadata)
    assert len(unseen.rows) == metadata.data.test_rows + 1000
    assert "and 1,000 rows after it" in unseen.told


def test_of_another_file_only_newer_rows_count(report: TrainingReport, folder: Path) -> None:
    """Rows of another recording count only where they look back to after the last instant of the training's data."""
    dataset = load_dataset(folder / "features.parquet")
    metadata = Artifact.load(folder / "models" / "logistic").metadata
    other = msgspec.structs.replace(metadata, data=msgspec.structs.replace(metadata.data, rows=1))
    assert len(unseen_rows(folder / "features.parquet", dataset, other).rows) == 0
    later = replace(dataset, time=dataset.time + ROWS * SECOND_NS, session=dataset.session + ROWS)
    unseen = unseen_rows(folder / "features.parquet", later, metadata)
    assert len(unseen.rows) == len(later)
    joined = replace(dataset, time=dataset.time + ROWS * SECOND_NS)
    rows = unseen_rows(folder / "features.parquet", joined, metadata).rows
    embargo = metadata.split.embargo_s
    assert embargo is not None
    assert len(rows) == pytest.approx(ROWS - embargo, abs=4)
    assert np.array_equal(rows, np.arange(ROWS - len(rows), ROWS))


def test_a_stratified_model_has_seen_its_file(report: TrainingReport, folder: Path) -> None:
    """Rows drawn at random leave no block that is unseen."""
    dataset = load_dataset(folder / "features.parquet")
    metadata = Artifact.load(folder / "models" / "logistic").metadata
    drawn = msgspec.structs.replace(metadata, split=msgspec.structs.replace(metadata.split, method="stratified"))
    unseen = unseen_rows(folder / "features.parquet", dataset, drawn)
    assert len(unseen.rows) == 0
    assert "drew rows at random" in unseen.told


def test_a_final_block_of_other_rows_is_refused(report: TrainingReport, folder: Path) -> None:
    """As many rows in all and another number in the final block is not the file that the model was trained on."""
    dataset = load_dataset(folder / "features.parquet")
    metadata = Artifact.load(folder / "models" / "logistic").metadata
    other = msgspec.structs.replace(metadata, data=msgspec.structs.replace(metadata.data, test_rows=7))
    with pytest.raises(DataError, match="judged on 7 there"):
        unseen_rows(folder / "features.parquet", dataset, other)


@pytest.fixture
def models(report: TrainingReport, folder: Path, tmp_path: Path) -> Path:
    """The test's own copy of the trained models, without the one in service."""
    shutil.copytree(folder / "models", tmp_path / "models")
    shutil.rmtree(tmp_path / "models" / "production")
    return tmp_path / "models"


def rewritten(folder: Path, **changes: object) -> None:
    facts = msgspec.json.decode((folder / "metadata.json").read_bytes())
    (folder / "metadata.json").write_bytes(msgspec.json.encode(facts | changes))


def test_without_its_baseline_the_last_minute_stands_in(models: Path, folder: Path) -> None:
    """A folder that has lost the baseline is judged beside persistence, and that is said."""
    for name in ("baseline.onnx", "baseline.json"):
        (models / "logistic" / name).unlink(missing_ok=True)
    rewritten(models / "logistic", baseline="har")
    (model,) = evaluated(folder / "features.parquet", models / "logistic").models
    assert model.comparison.baseline_name == "persistence"
    assert np.isnan(model.comparison.baseline.brier)
    assert "its best baseline, har, is not in its folder" in model.warnings[0]


def test_a_production_model_of_its_own_is_judged(models: Path, folder: Path) -> None:
    """What is in service and in no other folder is named as such."""
    (models / "logistic").rename(models / "production")
    evaluation = evaluated(folder / "features.parquet", models)
    (served,) = [model for model in evaluation.models if model.is_in_service]
    assert served.title == "production (logistic)"


def test_rows_of_another_kind_are_refused(models: Path, folder: Path) -> None:
    """A model of other rows ends the report, however many others fit."""
    rewritten(models / "har", every="tick")
    with pytest.raises(SchemaMismatch, match="expects rows every tick, was 1s"):
        evaluated(folder / "features.parquet", models)


def test_a_damaged_baseline_is_refused(models: Path, folder: Path) -> None:
    """The baseline beside a model is held against its hash."""
    changed = [name for name in models.iterdir() if (name / "baseline.onnx").is_file()]
    assert changed
    (changed[0] / "baseline.onnx").write_bytes(b"")
    with pytest.raises(ArtifactCorrupt, match=r"baseline\.onnx"):
        evaluated(folder / "features.parquet", models)


def test_nothing_to_judge(models: Path, folder: Path, tmp_path: Path) -> None:
    """No artifact, or none with rows that it has not seen, is told rather than reported."""
    with pytest.raises(ArtifactMissing):
        evaluated(folder / "features.parquet", tmp_path / "nowhere")
    for path in models.glob("*/metadata.json"):
        facts = msgspec.json.decode(path.read_bytes())
        rewritten(path.parent, data=facts["data"] | {"rows": 1})
    with pytest.raises(NotEnoughData, match="another file"):
        evaluated(folder / "features.parquet", models)
