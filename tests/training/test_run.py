"""A training run judges honestly, writes what it says, and fails without a trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from volspike.datasets import Dataset, FeatureFacts
from volspike.errors import ModelError, NotEnoughData, SchemaMismatch, UsageError
from volspike.features import Every, FeatureSet
from volspike.labels import future_volatility
from volspike.market import SECOND_NS, Profile
from volspike.models import DETECTORS, Artifact
from volspike.training import ModelResult, TrainingReport, TrainingRequest, train
from volspike.training.run import train_on

RequestFor = Callable[..., TrainingRequest]
MakeDataset = Callable[..., Dataset]


def trained(dataset: Dataset, request: TrainingRequest) -> TrainingReport:
    return train_on(dataset, request, lambda step: None)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def with_holes(dataset: Dataset, name: str, rows: slice) -> Dataset:
    x = dataset.x.copy()
    x[rows, dataset.names.index(name)] = np.nan
    return replace(dataset, x=x)


def folder(model: ModelResult) -> Path:
    assert model.artifact is not None
    return model.artifact


SHORT = ("ewma", "seasonal", "lstm")
"""Detectors that a core feature set has no columns for."""


def test_every_model_is_trained_checked_and_written(market: Dataset, request_for: RequestFor) -> None:
    """``all`` writes an artifact of each detector that the file has columns for, and names the others."""
    request = request_for(models=("all",))
    steps: list[str] = []
    report = train_on(market, request, steps.append)
    able = [name for name in DETECTORS if name not in SHORT]
    assert [model.model for model in report.models] == able
    assert [step for step in steps if "fold 2" in step] == [f"{name}: fold 2 of 2" for name in able]
    for name in SHORT:
        assert any(sentence.startswith(f"{name} is left out: ") for sentence in report.warnings)
    for model in report.models:
        artifact = Artifact.load(request.artifacts / model.model)
        assert artifact.threshold == model.thresholds["best_f1"]
        assert artifact.metadata.simulated
        assert artifact.metadata.baseline == report.best_baseline
        assert model.export_difference < 1e-5
        assert model.pooled.model.pr_auc > 1.5 * model.pooled.model.base_rate
        assert {file.name for file in model.plots} == {"pr_curve.png", "roc_curve.png", "feature_importance.png"}
        assert all(file.is_file() for file in model.plots)


def test_metadata_tells_the_figures(market: Dataset, request_for: RequestFor) -> None:
    """What the artifact says of itself is what the report says: selection folds and final block, model and baseline."""
    report = trained(market, request_for(folds=3))
    (model,) = report.models
    facts = Artifact.load(folder(model)).metadata
    assert facts.metrics["model"]["pr_auc"] == model.pooled.model.pr_auc
    assert facts.metrics["model"]["rows"] == facts.metrics[facts.baseline]["rows"] == model.pooled.model.rows
    assert model.pooled.model.rows == sum(fold.test_rows for fold in model.folds[:-1])
    assert facts.metrics["model_final"]["rows"] == model.folds[-1].test_rows
    assert facts.metrics["model_final"]["pr_auc"] == model.final.model.pr_auc
    assert facts.tau == model.folds[-1].tau
    assert (facts.calibration, facts.seed, facts.data.learned_rows) == ("platt", 0, model.folds[-1].learned_rows)
    assert facts.split.final_block == model.folds[-1].block
    assert "final fold, the newest of 3" in facts.split.note
    assert set(facts.versions) == {"python", "numpy", "scikit-learn", "onnx", "onnxruntime"}


def test_served_threshold_calls_the_judged_rows(market: Dataset, request_for: RequestFor) -> None:
    """The artifact, loaded anew, makes exactly the calls that the final fold was judged by."""
    request = request_for(models=("random_forest",), split_method="time_based", threshold="rate_20")
    (model,) = trained(market, request).models
    artifact = Artifact.load(folder(model))
    assert artifact.metadata.served_threshold == "rate_20"
    probability = artifact.probability(market.columns(artifact.features))[-model.folds[-1].test_rows :]
    figures = model.folds[-1].comparison.model
    assert int(np.sum(probability >= artifact.threshold)) == figures.tp + figures.fp


def test_the_final_block_chooses_nothing(market: Dataset, request_for: RequestFor) -> None:
    """However the final block turns out, the choice, the graphs and the thresholds stay as they were."""
    request = request_for(models=("logistic", "xgboost", "har"), folds=3, search=2)
    calm = trained(market, request)
    wild_rows = slice(len(market) - calm.models[0].folds[-1].test_rows, None)
    x, volatility = market.x.copy(), market.future_volatility.copy()
    x[wild_rows] = np.random.default_rng(1).permutation(x[wild_rows]) * 3
    volatility[wild_rows] = np.random.default_rng(2).permutation(volatility[wild_rows])
    persistence = x[:, market.names.index("realized_volatility_60s")]
    graphs = contents(request.artifacts)
    wild = trained(replace(market, x=x, future_volatility=volatility, persistence=persistence), request)
    assert wild.models[0].final.model.pr_auc != calm.models[0].final.model.pr_auc
    assert (wild.chosen, wild.best_baseline) == (calm.chosen, calm.best_baseline)
    for before, after in zip(calm.models, wild.models, strict=True):
        assert (after.thresholds, after.settings, after.tau) == (before.thresholds, before.settings, before.tau)
        assert after.pooled.model == before.pooled.model
    after_graphs = contents(request.artifacts)
    assert all(after_graphs[name] == graphs[name] for name in graphs if name.endswith(".onnx"))


def test_without_selection_folds_the_validation_rows_choose(market: Dataset, request_for: RequestFor) -> None:
    """Of one test block only, the test rows judge and the validation rows choose."""
    report = trained(market, request_for(models=("logistic", "baseline"), split_method="time_based"))
    assert not report.has_selection
    assert report.models[0].pooled is report.models[0].final
    assert report.chosen == "logistic"


@pytest.mark.parametrize("calibration", ["platt", "isotonic", "none"])
def test_each_calibration_is_served(calibration: str, market: Dataset, request_for: RequestFor) -> None:
    """The artifact carries the calibration that was asked for and says so."""
    (model,) = trained(market, request_for(calibration=calibration)).models
    assert Artifact.load(folder(model)).metadata.calibration == calibration
    assert [fold.calibration for fold in model.folds] == [calibration] * 2


def test_ticks_of_one_second_are_learned_from_once(market: Dataset, request_for: RequestFor) -> None:
    """Rows per tick are thinned to one a second for learning, and judged all."""
    ticks = replace(
        market,
        facts=msgspec.structs.replace(market.facts, every=Every.TICK),
        time=np.sort(np.concatenate([market.time[::2], market.time[::2] + 500_000_000])),
    )
    (model,) = trained(ticks, request_for()).models
    fold = model.folds[-1]
    assert abs(2 * fold.learned_rows - fold.train_rows) <= 2
    assert model.final.model.rows == fold.test_rows


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
    regimes = make_dataset(12_000, skill=0.0)
    # Row by row, so that a thousand spikes are a thousand events: of a handful, chance alone passes any bound.
    noise = replace(regimes, future_volatility=np.random.default_rng(8).permutation(regimes.future_volatility))
    for model in trained(noise, request_for(models=("baseline", "har", "logistic", "xgboost"))).models:
        figures = model.pooled.model
        assert 0.5 * figures.base_rate < figures.pr_auc < 1.6 * figures.base_rate
        assert abs(model.pooled.gain) < 0.06


def test_a_null_market_is_told_by_walking_forward_and_not_by_drawing_lots(request_for: RequestFor) -> None:
    """Of independent returns nobody can foretell anything: walk forward says so, a stratified split the contrary."""
    null = null_market(16_000)
    request = request_for(models=("random_forest",), columns=("all",), folds=3)
    honest = trained(null, request).models[0].pooled
    base_rate = honest.model.base_rate
    assert honest.model_intervals["pr_auc"].low < base_rate + 0.03
    assert honest.model.pr_auc < base_rate + 0.08
    leaking = trained(null, replace(request, split_method="stratified")).models[0].pooled
    assert leaking.model_intervals["pr_auc"].low > 2 * leaking.model.base_rate


def null_market(seconds: int) -> Dataset:
    """The core features that returns drawn independently have: those of overlapping windows, with their true labels."""
    price = 100 * np.exp(np.cumsum(1e-4 * np.random.default_rng(3).standard_t(4, seconds)))
    returns = log_returns(price)
    features, names = [], []
    for window in FeatureSet().windows:
        sums = np.cumsum(np.insert(returns, 0, 0.0))
        squares = np.cumsum(np.insert(returns**2, 0, 0.0))
        at = np.arange(300, seconds - 61)
        total, square = sums[at + 1] - sums[at + 1 - window], squares[at + 1] - squares[at + 1 - window]
        features += [total, np.sqrt(square / window - (total / window) ** 2)]
        names += [f"log_return_{window}s", f"realized_volatility_{window}s"]
    future = future_volatility(price)[300 : seconds - 61]
    x = np.full((len(future), len(FeatureSet().names)), np.nan)
    for name, column in zip(names, features, strict=True):
        x[:, FeatureSet().names.index(name)] = column
    persistence = x[:, FeatureSet().names.index("realized_volatility_60s")]
    facts = FeatureFacts(
        digest=FeatureSet().digest, windows=FeatureSet().windows, every=Every.SECOND, profile=Profile.TICKER
    )
    n = len(future)
    time = 1_764_979_200 * SECOND_NS + np.arange(n, dtype=np.int64) * SECOND_NS
    zeros = np.zeros(n, np.int64)
    return Dataset(facts, ("X",), time, zeros.astype(np.int32), zeros, FeatureSet().names, x, future, persistence)


def log_returns(price: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diff(np.log(price), prepend=np.log(price[0]))


def test_stratified_says_what_it_is_worth(market: Dataset, request_for: RequestFor) -> None:
    """The warning is loud, first, and stays with the artifact; nothing is promoted by such figures."""
    request = request_for(split_method="stratified")
    report = trained(market, request)
    assert report.warnings[0].startswith("STRATIFIED SPLIT: NO EVIDENCE")
    assert Artifact.load(folder(report.models[0])).metadata.split.note == report.warnings[0]
    with pytest.raises(UsageError, match="no evidence to promote"):
        trained(market, replace(request, promote=True))


def test_rows_that_miss_values_are_counted(market: Dataset, request_for: RequestFor) -> None:
    """A model that needs every value leaves rows out, says how many, and both scores are judged on the rest."""
    holed = with_holes(market, "spread_mean_300s", slice(0, None, 10))
    report = trained(holed, request_for(models=("logistic", "xgboost")))
    logistic, xgboost = report.models
    assert sum(fold.left_out_rows for fold in logistic.folds) > 0
    assert sum(fold.left_out_rows for fold in xgboost.folds) == 0
    assert logistic.pooled.model.rows == logistic.pooled.baseline.rows < xgboost.pooled.model.rows
    assert any(
        "logistic: " in sentence and "rows of all folds were not used" in sentence for sentence in report.warnings
    )


def test_a_column_without_values_is_left_out_by_name(market: Dataset, request_for: RequestFor) -> None:
    """What no training row tells is no feature of the model, and report and artifact name it."""
    untold = with_holes(market, "spread_mean_60s", slice(None))
    report = trained(untold, request_for(models=("logistic", "xgboost")))
    for model in report.models:
        facts = Artifact.load(folder(model)).metadata
        assert facts.left_out == model.left_out == ("spread_mean_60s",)
        assert "spread_mean_60s" not in facts.features
    assert "logistic, xgboost exclude spread_mean_60s: no value in any training row" in report.warnings


def test_all_columns_are_all_of_the_file(market: Dataset, request_for: RequestFor) -> None:
    """``all`` takes every feature, in the file's order."""
    (model,) = trained(market, request_for(columns=("all",))).models
    assert model.features == market.names


def test_too_few_rows_are_told(make_dataset: MakeDataset, request_for: RequestFor) -> None:
    """Under 500 rows nothing is trained or written."""
    request = request_for()
    with pytest.raises(NotEnoughData, match=r"499 labelled rows, training needs 500: record for longer"):
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
    assert any("no threshold satisfies best_f1" in sentence for sentence in report.warnings)
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
    assert [file.name for file in folder(report.models[0]).glob("*.png")] == ["feature_importance.png"]
    assert any(f"of {test_rows:,} test rows 0 are spikes" in told for told in report.warnings)


def test_a_fold_without_movement_is_named(market: Dataset, request_for: RequestFor) -> None:
    """A market that stands still at first costs the folds that know nothing else, not the run."""
    still = market.future_volatility.copy()
    still[: len(still) // 2] = 0.0
    report = trained(replace(market, future_volatility=still), request_for(folds=5))
    assert any("the price hardly moved" in sentence for sentence in report.warnings)
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
    with pytest.raises(
        UsageError, match="baseline, persistence, ewma, har, seasonal, logistic, random_forest, xgboost"
    ):
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
    monkeypatch.setattr("volspike.training.fitting.TOLERANCE", 0.0)
    request = request_for(models=("random_forest",))
    with pytest.raises(ModelError, match="no artifact was written"):
        trained(market, request)
    assert not request.artifacts.exists()
