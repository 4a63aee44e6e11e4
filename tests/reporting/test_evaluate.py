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
from volspike.errors import ArtifactCorrupt, ArtifactMissing, DataError, SchemaMismatch
from volspike.market import SECOND_NS, format_time, parse_time
from volspike.models import SIMULATED_MODEL, Artifact
from volspike.models.metadata import MarketFacts
from volspike.reporting.evaluate import EvaluationReport, evaluate_artifact, select_held_out
from volspike.training.report import TrainingReport
from volspike.training.request import TrainingRequest
from volspike.training.run import train


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
    assert not select_held_out(folder / "features.parquet", dataset, other).is_evidence
    later = replace(dataset, time=dataset.time + ROWS * SECOND_NS, session=dataset.session + ROWS)
    held_out = select_held_out(folder / "features.parquet", later, metadata)
    assert len(held_out.rows) == len(later)
    joined = replace(dataset, time=dataset.time + ROWS * SECOND_NS)
    rows = select_held_out(folder / "features.parquet", joined, metadata).rows
    embargo = metadata.split.embargo_s
    assert embargo is not None
    assert len(rows) == pytest.approx(ROWS - embargo, abs=4)
    assert np.array_equal(rows, np.arange(ROWS - len(rows), ROWS))


def test_stratified_model_is_evaluated_on_its_test_rows_without_evidence(folder: Path, tmp_path: Path) -> None:
    """In its own file these are the rows of its split, with the figures of the training; in another all rows."""
    features = folder / "features.parquet"
    request = TrainingRequest(
        features=features, models=("logistic",), artifacts=tmp_path, split_method="stratified", search=0, seed=3
    )
    trained = train(request, lambda _: None)
    (model,) = evaluated(features, tmp_path / "logistic").models
    assert not model.is_evidence
    assert "test rows of its stratified split" in model.held_out
    assert model.comparison.model.rows == trained.models[0].folds[0].test_rows
    assert model.comparison.model.pr_auc == pytest.approx(trained.models[0].final.model.pr_auc, rel=1e-6)
    dataset = load_dataset(features)
    part = select_held_out(features, dataset.only(np.arange(100, 5000)), model.metadata)
    assert (len(part.rows), part.is_evidence) == (4900, False)
    assert "none of them held out" in part.description


def test_rows_outside_the_recordings_of_a_shipped_model_are_held_out(folder: Path) -> None:
    """A model of many recordings has seen a product only while it was recorded, at whatever venue."""
    features = folder / "features.parquet"
    dataset = load_dataset(features)
    shipped = Artifact.load(SIMULATED_MODEL).metadata
    later = select_held_out(features, dataset, shipped)
    assert (len(later.rows), later.is_evidence) == (len(dataset), True)
    first, middle = (format_time(int(dataset.time[row])) for row in (0, len(dataset) // 2))
    recorded = MarketFacts(venue="gemini", product="BTC-USD", start=first, end=middle)
    model = msgspec.structs.replace(shipped, markets=(recorded,))
    rows = select_held_out(features, dataset, model).rows
    bitcoin = dataset.product == dataset.products.index("BTC-USD")
    assert (~bitcoin).sum() == (~bitcoin[rows]).sum()
    window_ns = 300 * SECOND_NS
    assert dataset.time[rows][bitcoin[rows]].min() - window_ns == pytest.approx(parse_time(middle), abs=2 * SECOND_NS)


def test_rows_that_cannot_be_scored_count_as_missed(models: Path, folder: Path) -> None:
    """As in training: they stay in the figures, rank last and are never flagged; a warning counts them."""
    features = folder / "features.parquet"
    artifact = Artifact.load(models / "logistic")
    dataset = load_dataset(features)
    held_out = select_held_out(features, dataset, artifact.metadata)
    column = dataset.names.index(artifact.features[0])
    dataset.x[held_out.rows[:50], column] = np.nan
    model = evaluate_artifact(artifact, dataset, held_out, title="logistic", is_served=False, venue=None)
    assert len(model.scored) == len(held_out.rows)
    worst = np.argsort(model.scored.probability)[:50]
    assert set(model.scored.time[worst].tolist()) == set(dataset.time[held_out.rows[:50]].tolist())
    assert (model.scored.probability[worst] < artifact.threshold).all()
    assert any(warning.startswith("50 rows lack a value that it needs") for warning in model.warnings)


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
    """Without an artifact there is an error and no report; without held-out rows there is no evidence."""
    with pytest.raises(ArtifactMissing):
        evaluated(folder / "features.parquet", tmp_path / "nowhere")
    for path in models.glob("*/metadata.json"):
        facts = msgspec.json.decode(path.read_bytes())
        rewritten(path.parent, data=facts["data"] | {"rows": 1})
    evaluation = evaluated(folder / "features.parquet", models)
    assert evaluation.without_evidence == tuple(model.title for model in evaluation.models)
