"""A training run judges honestly, writes what it says, and fails without a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from volspike.datasets import Dataset
from volspike.errors import ModelError, NotEnoughData, SchemaMismatch, UsageError
from volspike.features import FeatureSet
from volspike.models import DETECTORS, TEN_FEATURES, Artifact
from volspike.training import TrainingReport, TrainingRequest, train
from volspike.training.run import train_on

RequestFor = Callable[..., TrainingRequest]
MakeDataset = Callable[..., Dataset]


def trained(dataset: Dataset, request: TrainingRequest) -> TrainingReport:
    return train_on(dataset, request.model_names(), request, lambda step: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def with_holes(dataset: Dataset, name: str, rows: slice) -> Dataset:
    x = dataset.x.copy()
    x[rows, dataset.names.index(name)] = np.nan
    return replace(dataset, x=x)


def test_every_model_is_trained_checked_and_written(market: Dataset, request_for: RequestFor) -> None:
    """``all`` writes one artifact per detector that loads, knows its facts, and beats the base rate here."""
    request = request_for(models=("all",))
    steps: list[str] = []
    report = train_on(market, request.model_names(), request, steps.append)
    assert [model.model for model in report.models] == list(DETECTORS)
    assert steps == [f"{name}: fold {fold} of 2" for name in DETECTORS for fold in (1, 2)]
    for model in report.models:
        artifact = Artifact.load(request.artifacts / model.model)
        assert artifact.features == TEN_FEATURES
        assert artifact.threshold == model.thresholds["best_f1"]
        assert artifact.metadata.simulated
        assert model.export_difference < 1e-5
        assert model.pooled.model.pr_auc > 2 * model.pooled.model.base_rate
        assert {file.name for file in model.artifact.glob("*.png")} == {
            "pr_curve.png",
            "roc_curve.png",
            "feature_importance.png",
        }


def test_metadata_tells_the_pooled_figures(market: Dataset, request_for: RequestFor) -> None:
    """What the artifact says of itself is what the report says, for model and persistence, on the same rows."""
    report = trained(market, request_for())
    (model,) = report.models
    facts = Artifact.load(model.artifact).metadata
    assert facts.metrics["model"]["pr_auc"] == model.pooled.model.pr_auc
    assert facts.metrics["model"]["rows"] == facts.metrics["persistence"]["rows"] == model.pooled.model.rows
    assert facts.metrics["model_newest_fold"]["rows"] == model.folds[-1].test_rows
    assert facts.metrics["persistence"]["brier"] is None
    assert model.pooled.model.rows == sum(fold.test_rows for fold in model.folds)
    assert facts.tau == model.folds[-1].tau
    assert "newest of 2" in facts.split.note
    assert set(facts.versions) == {"python", "numpy", "scikit-learn", "onnx", "onnxruntime"}


def test_served_threshold_calls_the_judged_rows(market: Dataset, request_for: RequestFor) -> None:
    """The artifact, loaded anew, makes exactly the calls that the newest fold was judged by."""
    request = request_for(models=("random_forest",), split_method="time_based")
    (model,) = trained(market, request).models
    artifact = Artifact.load(model.artifact)
    probability = artifact.probability(market.columns(artifact.features))[-model.folds[-1].test_rows :]
    figures = model.folds[-1].comparison.model
    assert int(np.sum(probability >= artifact.threshold)) == figures.tp + figures.fp


def test_tau_comes_from_training_rows_only(market: Dataset, request_for: RequestFor) -> None:
    """However wild the market becomes afterwards, τ, threshold and graph stay as they were."""
    request = request_for(split_method="time_based")
    (calm,) = trained(market, request).models
    later = market.future_volatility.copy()
    later[-calm.folds[0].test_rows :] *= 50
    (wild,) = trained(replace(market, future_volatility=later), request).models
    assert (wild.tau, wild.thresholds) == (calm.tau, calm.thresholds)


def test_noise_scores_the_base_rate(make_dataset: MakeDataset, request_for: RequestFor) -> None:
    """On independent noise an honest split finds nothing: PR-AUC stays near the base rate, for every model."""
    noise = make_dataset(12_000, skill=0.0)
    for model in trained(noise, request_for(models=("all",))).models:
        figures = model.pooled.model
        assert 0.5 * figures.base_rate < figures.pr_auc < 1.6 * figures.base_rate
        assert abs(model.pooled.gain) < 0.05


def test_stratified_says_what_it_is_worth(market: Dataset, request_for: RequestFor) -> None:
    """The warning is loud, first, and stays with the artifact."""
    report = trained(market, request_for(split_method="stratified"))
    assert report.warnings[0].startswith("STRATIFIED SPLIT: NO EVIDENCE")
    assert Artifact.load(report.models[0].artifact).metadata.split.note == report.warnings[0]


def test_rows_that_miss_values_are_counted(market: Dataset, request_for: RequestFor) -> None:
    """A model that needs every value leaves rows out, says how many, and both scores are judged on the rest."""
    holed = with_holes(market, "spread_mean_300s", slice(0, None, 10))
    report = trained(holed, request_for(models=("logistic", "xgboost")))
    logistic, xgboost = report.models
    assert sum(fold.left_out_rows for fold in logistic.folds) > 0
    assert sum(fold.left_out_rows for fold in xgboost.folds) == 0
    assert logistic.pooled.model.rows == logistic.pooled.persistence.rows < xgboost.pooled.model.rows
    assert any("logistic could not use" in sentence for sentence in report.warnings)


def test_a_column_without_values_is_left_out_by_name(market: Dataset, request_for: RequestFor) -> None:
    """What no training row tells is no feature of the model, and report and artifact name it."""
    untold = with_holes(market, "spread_mean_60s", slice(None))
    report = trained(untold, request_for(models=("logistic", "xgboost")))
    for model in report.models:
        facts = Artifact.load(model.artifact).metadata
        assert facts.left_out == model.left_out == ("spread_mean_60s",)
        assert "spread_mean_60s" not in facts.features
    assert "logistic does without spread_mean_60s: no value in any training row" in report.warnings


def test_all_columns_are_all_of_the_file(market: Dataset, request_for: RequestFor) -> None:
    """``all`` takes every feature, in the file's order."""
    (model,) = trained(market, request_for(columns=("all",))).models
    assert model.features == market.names


def test_too_few_rows_are_told(make_dataset: MakeDataset, request_for: RequestFor) -> None:
    """Under 500 rows nothing is trained or written."""
    request = request_for()
    with pytest.raises(NotEnoughData, match=r"499 labelled rows, training takes 500: record for longer"):
        trained(make_dataset(499, skill=1.0), request)
    assert not request.artifacts.exists()


def test_one_class_is_told(market: Dataset, request_for: RequestFor) -> None:
    """A market that never changes has spikes everywhere or nowhere: refused, with what was found."""
    request = request_for()
    flat = replace(market, future_volatility=np.full(len(market.time), 1e-4))
    with pytest.raises(NotEnoughData, match=r"training rows .* are spikes; .*record for longer"):
        trained(flat, request)
    assert not request.artifacts.exists()


def test_without_spikes_to_choose_by_the_rate_threshold_is_served(market: Dataset, request_for: RequestFor) -> None:
    """Where validation rows hold no spike, the threshold that calls 10 % of them stands in, by name and aloud."""
    request = request_for(folds=1)
    part = trained(market, request).models[0].folds[0]
    calm = market.future_volatility.copy()
    calm[part.train_rows : part.train_rows + part.validation_rows + 800] = 1e-6
    report = trained(replace(market, future_volatility=calm), request)
    assert report.models[0].folds[0].threshold_name == "rate_10"
    assert any("no threshold catches a spike" in sentence for sentence in report.warnings)
    metadata = Artifact.load(request.artifacts / "logistic").metadata
    assert metadata.served_threshold == "rate_10"
    assert "best_f1" not in metadata.thresholds


def test_without_the_last_minutes_volatility_nothing_is_judged(market: Dataset, request_for: RequestFor) -> None:
    """A file without a 60 s window has no persistence to compare with, and says so."""
    features = FeatureSet((30, 300))
    other = replace(
        market,
        facts=msgspec.structs.replace(market.facts, windows=features.windows, digest=features.digest),
        names=features.names,
        x=market.columns(features.names),
        persistence=np.full(len(market), np.nan),
    )
    with pytest.raises(SchemaMismatch, match="featurize with 60 among the windows"):
        trained(other, request_for(columns=("all",)))


def test_a_test_part_without_spikes_is_told(market: Dataset, request_for: RequestFor) -> None:
    """Where nothing happened after the validation rows, areas are NaN, no curve is drawn, and the report says so."""
    request = request_for(split_method="time_based")
    test_rows = trained(market, request).models[0].folds[0].test_rows
    calm = market.future_volatility.copy()
    calm[-test_rows:] = 1e-6
    report = trained(replace(market, future_volatility=calm), request)
    assert np.isnan(report.models[0].pooled.model.pr_auc)
    assert [file.name for file in report.models[0].artifact.glob("*.png")] == ["feature_importance.png"]
    assert f"of its {test_rows:,} test rows 0 are spikes" in report.warnings[0]


def test_a_fold_without_movement_is_named(market: Dataset, request_for: RequestFor) -> None:
    """A market that stands still at first costs the folds that know nothing else, not the run."""
    still = market.future_volatility.copy()
    still[: len(still) // 2] = 0.0
    report = trained(replace(market, future_volatility=still), request_for(folds=5))
    assert any("the market stood still" in sentence for sentence in report.warnings)
    assert report.models[0].folds[-1].fold == 5


def test_missing_column_is_named(market: Dataset, request_for: RequestFor) -> None:
    """A column that the file lacks is a field of the error, before anything is written."""
    request = request_for(columns=("log_return_300s", "spread_mean_900s"))
    with pytest.raises(SchemaMismatch) as caught:
        trained(market, request)
    assert caught.value.missing == ("spread_mean_900s",)
    assert not request.artifacts.exists()


@pytest.mark.parametrize("models", [("logistic", "lgbm"), ()])
def test_unknown_model_lists_what_there_is(models: tuple[str, ...], request_for: RequestFor) -> None:
    """A name that is no model is answered with those that are, before the file is read."""
    with pytest.raises(UsageError, match="baseline, logistic, random_forest, xgboost"):
        train(request_for(models=models), lambda step: None)


def test_failure_leaves_existing_artifacts(market: Dataset, request_for: RequestFor) -> None:
    """A run that fails changes no file of an earlier one."""
    request = request_for()
    trained(market, request)
    before = contents(request.artifacts)
    flat = replace(market, future_volatility=np.full(len(market.time), 1e-4))
    with pytest.raises(NotEnoughData):
        trained(flat, request)
    assert contents(request.artifacts) == before


def test_same_seed_same_artifact(market: Dataset, request_for: RequestFor, tmp_path: Path) -> None:
    """Two runs of one request differ in nothing but the moment at which they were made."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        trained(market, request_for(artifacts=folder))
    first, second = (Artifact.load(folder / "logistic") for folder in folders)
    assert msgspec.structs.replace(first.metadata, created="") == msgspec.structs.replace(second.metadata, created="")


def test_nothing_is_written_when_the_export_disagrees(
    market: Dataset, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no tolerance at all, a forest's float32 sums are an error, and nothing is written."""
    monkeypatch.setattr("volspike.training.export.TOLERANCE", 0.0)
    request = request_for(models=("random_forest",))
    with pytest.raises(ModelError, match="nothing was written"):
        trained(market, request)
    assert not request.artifacts.exists()
