"""A training run evaluates on held-out rows, writes what it reports, and fails without a trace."""

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
from volspike.progress import Step
from volspike.training.fitting import fit_fold
from volspike.training.folds import prepare_training_data
from volspike.training.report import ModelResult, TrainingReport
from volspike.training.request import TrainingRequest
from volspike.training.run import best_on_validation_rows, train, train_on

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


SHORT = ("ewma_10", "ewma_30", "ewma_60", "ewma_300", "ewma", "garch", "seasonal", "lstm")
"""Detectors for which a core feature set has no columns."""


def test_every_model_is_trained_checked_and_written(market: Dataset, request_for: RequestFor) -> None:
    """``all`` writes an artifact of each detector that the file has columns for, and names the others."""
    request = request_for(models=("all",))
    steps: list[str] = []
    report = train_on(market, request, steps.append)
    able = [name for name in DETECTORS if name not in SHORT]
    assert [model.model for model in report.models] == able
    assert [step for step in steps if "fold 2" in step] == [f"{name}: fold 2 of 2" for name in able]
    shares = [step.done for step in steps if isinstance(step, Step)]
    assert len(shares) == len(steps)
    assert shares == sorted(shares)
    assert shares[0] == 0.0 < shares[-1] <= 1.0
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


def test_metadata_has_the_reported_metrics(market: Dataset, request_for: RequestFor) -> None:
    """The artifact's metadata has the metrics of the report: selection folds and final block, model and baseline."""
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


def test_served_threshold_flags_the_evaluated_rows(market: Dataset, request_for: RequestFor) -> None:
    """The loaded artifact flags exactly the rows that it was evaluated with in the final fold."""
    request = request_for(models=("random_forest",), split_method="time_based", threshold="rate_20")
    (model,) = trained(market, request).models
    artifact = Artifact.load(folder(model))
    assert artifact.metadata.served_threshold == "rate_20"
    probability = artifact.probability(market.columns(artifact.features))[-model.folds[-1].test_rows :]
    figures = model.folds[-1].comparison.model
    assert int(np.sum(probability >= artifact.threshold)) == figures.tp + figures.fp


def test_final_block_influences_no_model(market: Dataset, request_for: RequestFor) -> None:
    """Whatever happens in the final block, the best baseline, the graphs and the thresholds are unchanged."""
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
    assert wild.best_baseline == calm.best_baseline
    for before, after in zip(calm.models, wild.models, strict=True):
        assert (after.thresholds, after.settings, after.tau) == (before.thresholds, before.settings, before.tau)
        assert after.pooled.model == before.pooled.model
    after_graphs = contents(request.artifacts)
    assert all(after_graphs[name] == graphs[name] for name in graphs if name.endswith(".onnx"))


def test_single_fold_is_chosen_on_validation_rows(market: Dataset, request_for: RequestFor) -> None:
    """With a single test block the best of the requested models on the validation rows may be chosen."""
    request = request_for(models=("logistic", "random_forest", "baseline"), split_method="time_based")
    report = trained(market, request)
    assert not report.has_selection
    assert report.models[0].pooled is report.models[0].final
    assert report.best_baseline == report.final_baseline
    data = prepare_training_data(request, market)
    folds = {name: [fit_fold(name, data, data.fold_set.final, {})] for name in ("logistic", "random_forest")}
    assert report.reason.startswith(f"{best_on_validation_rows(folds)}'s gain ")


@pytest.mark.parametrize("calibration", ["platt", "isotonic", "none"])
def test_each_calibration_is_served(calibration: str, market: Dataset, request_for: RequestFor) -> None:
    """The artifact has the requested calibration and records it."""
    (model,) = trained(market, request_for(calibration=calibration)).models
    assert Artifact.load(folder(model)).metadata.calibration == calibration
    assert [fold.calibration for fold in model.folds] == [calibration] * 2


def test_ticks_of_one_second_are_fitted_once(market: Dataset, request_for: RequestFor) -> None:
    """Rows per tick are thinned to one per second for fitting, and all are evaluated."""
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
    """Whatever the market does later, τ, threshold and graph are unchanged."""
    request = request_for(split_method="time_based")
    (calm,) = trained(market, request).models
    later = market.future_volatility.copy()
    later[-calm.folds[0].test_rows :] *= 50
    (wild,) = trained(replace(market, future_volatility=later), request).models
    assert (wild.tau, wild.thresholds) == (calm.tau, calm.thresholds)


def test_noise_scores_the_base_rate(make_dataset: MakeDataset, request_for: RequestFor) -> None:
    """On independent noise PR-AUC stays near the base rate under walk_forward, for every model."""
    regimes = make_dataset(12_000, skill=0.0)
    # Row by row, so that a thousand spikes are a thousand events: of a handful, chance alone passes any bound.
    noise = replace(regimes, future_volatility=np.random.default_rng(8).permutation(regimes.future_volatility))
    for model in trained(noise, request_for(models=("baseline", "har", "logistic", "xgboost"))).models:
        figures = model.pooled.model
        assert 0.5 * figures.base_rate < figures.pr_auc < 1.6 * figures.base_rate
        assert abs(model.pooled.gain) < 0.06


def test_null_market_has_no_skill_under_walk_forward(request_for: RequestFor) -> None:
    """Independent returns are unpredictable: walk_forward shows that, a stratified split claims the contrary."""
    null = null_market(16_000)
    request = request_for(models=("random_forest",), columns=("all",), folds=3)
    honest = trained(null, request).models[0].pooled
    base_rate = honest.model.base_rate
    assert honest.model_intervals["pr_auc"].low < base_rate + 0.03
    assert honest.model.pr_auc < base_rate + 0.08
    leaking = trained(null, replace(request, split_method="stratified")).models[0].pooled
    assert leaking.model_intervals["pr_auc"].low > 2 * leaking.model.base_rate


def null_market(seconds: int) -> Dataset:
    """The core features of independent returns: overlapping windows with their true labels."""
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
    return Dataset(
        facts,
        ("X",),
        time,
        zeros.astype(np.int32),
        zeros,
        FeatureSet().names,
        x,
        future,
        np.full(n, np.nan),
        persistence,
    )


def log_returns(price: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.diff(np.log(price), prepend=np.log(price[0]))


def test_stratified_split_is_marked_as_no_evidence(market: Dataset, request_for: RequestFor) -> None:
    """The warning is the first one and stays with the artifact, and such a model cannot be promoted."""
    request = request_for(split_method="stratified")
    report = trained(market, request)
    assert report.warnings[0].startswith("STRATIFIED SPLIT: NO EVIDENCE")
    assert Artifact.load(folder(report.models[0])).metadata.split.note == report.warnings[0]
    with pytest.raises(UsageError, match="no evidence to promote"):
        trained(market, replace(request, promote=True))


def test_incomplete_rows_are_counted(market: Dataset, request_for: RequestFor) -> None:
    """A model that needs every value ranks incomplete test rows last and counts them; all models have the same rows."""
    holed = with_holes(market, "spread_mean_300s", slice(0, None, 10))
    report = trained(holed, request_for(models=("logistic", "xgboost")))
    logistic, xgboost = report.models
    assert sum(fold.left_out_rows for fold in logistic.folds) > 0
    assert sum(fold.left_out_rows for fold in xgboost.folds) == 0
    rows = {result.pooled.model.rows for result in (logistic, xgboost)}
    assert rows == {logistic.pooled.baseline.rows, sum(fold.test_rows for fold in logistic.folds[:-1])}
    assert logistic.unscored_rows == pytest.approx(0.1 * rows.pop(), abs=1)
    assert xgboost.unscored_rows == 0
    metrics = Artifact.load(folder(logistic)).metadata.metrics
    assert metrics["model"]["unscored_rows"] == logistic.unscored_rows
    assert metrics["model_final"]["unscored_rows"] == logistic.folds[-1].unscored_rows
    assert any(
        "logistic: " in sentence and "rows of all folds lack a value" in sentence for sentence in report.warnings
    )


def test_a_column_without_values_is_left_out_by_name(market: Dataset, request_for: RequestFor) -> None:
    """A column without a value in the training rows is excluded, and report and artifact name it."""
    untold = with_holes(market, "spread_mean_60s", slice(None))
    report = trained(untold, request_for(models=("logistic", "xgboost")))
    for model in report.models:
        facts = Artifact.load(folder(model)).metadata
        assert facts.left_out == model.left_out == ("spread_mean_60s",)
        assert "spread_mean_60s" not in facts.features
    assert "logistic, xgboost exclude spread_mean_60s: too few values in the training rows" in report.warnings


def test_a_column_that_begins_late_costs_no_rows(market: Dataset, request_for: RequestFor) -> None:
    """A column that is missing for the first third is left out of a model that needs every value only."""
    late = with_holes(market, "spread_mean_60s", slice(0, len(market) // 3))
    logistic, xgboost = trained(late, request_for(models=("logistic", "xgboost"))).models
    assert logistic.left_out == ("spread_mean_60s",)
    assert (logistic.unscored_rows, sum(fold.left_out_rows for fold in logistic.folds)) == (0, 0)
    assert xgboost.left_out == ()


def test_all_columns_are_all_of_the_file(market: Dataset, request_for: RequestFor) -> None:
    """``all`` uses every feature, in the file's order."""
    (model,) = trained(market, request_for(columns=("all",))).models
    assert model.features == market.names


def test_too_few_rows_are_refused(make_dataset: MakeDataset, request_for: RequestFor) -> None:
    """With 499 rows nothing is trained or written."""
    request = request_for()
    with pytest.raises(NotEnoughData, match=r"499 labelled rows, training needs 500: record for longer"):
        trained(make_dataset(499, skill=1.0), request)
    assert not request.artifacts.exists()


def test_single_class_is_refused(market: Dataset, request_for: RequestFor) -> None:
    """A market that never changes has spikes in all rows or none: refused, with the counts."""
    request = request_for()
    flat = replace(market, future_volatility=np.full(len(market.time), 1e-4))
    with pytest.raises(NotEnoughData, match=r"training rows .* are spikes; .*record for longer"):
        trained(flat, request)
    assert not request.artifacts.exists()


def test_without_validation_spikes_rate_10_is_served(market: Dataset, request_for: RequestFor) -> None:
    """If the validation rows hold no spike, ``rate_10`` is served instead, with a warning."""
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


def test_file_without_persistence_is_refused(market: Dataset, request_for: RequestFor) -> None:
    """A file without a 60 s window has no persistence baseline and is refused."""
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


def test_test_rows_without_spikes_add_a_warning(market: Dataset, request_for: RequestFor) -> None:
    """Without a spike in the test rows areas are NaN, no curve is drawn, and a warning says so."""
    request = request_for(split_method="time_based")
    test_rows = trained(market, request).models[0].folds[0].test_rows
    calm = market.future_volatility.copy()
    calm[-test_rows:] = 1e-6
    report = trained(replace(market, future_volatility=calm), request)
    assert np.isnan(report.models[0].pooled.model.pr_auc)
    assert [file.name for file in folder(report.models[0]).glob("*.png")] == ["feature_importance.png"]
    assert any(f"of {test_rows:,} test rows 0 are spikes" in told for told in report.warnings)


def test_a_fold_without_movement_is_named(market: Dataset, request_for: RequestFor) -> None:
    """A market without movement at first costs the folds trained on it, not the run."""
    still = market.future_volatility.copy()
    still[: len(still) // 2] = 0.0
    report = trained(replace(market, future_volatility=still), request_for(folds=5))
    assert any("the price hardly moved" in sentence for sentence in report.warnings)
    assert report.models[0].folds[-1].fold == 5


def test_missing_column_is_named(market: Dataset, request_for: RequestFor) -> None:
    """The error names a column that the file lacks, and nothing is written."""
    request = request_for(columns=("log_return_300s", "spread_mean_900s"))
    with pytest.raises(SchemaMismatch) as caught:
        trained(market, request)
    assert caught.value.missing == ("spread_mean_900s",)
    assert not request.artifacts.exists()


@pytest.mark.parametrize("models", [("logistic", "lgbm"), ()])
def test_unknown_model_is_refused_with_the_list(models: tuple[str, ...], request_for: RequestFor) -> None:
    """An unknown model name is refused with the list of models, before the file is read."""
    with pytest.raises(
        UsageError,
        match="baseline, persistence, ewma_10, ewma_30, ewma_60, ewma_300, ewma, har, garch, seasonal, logistic",
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
    """Two runs of one request differ only in their creation time."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        trained(market, request_for(artifacts=folder))
    first, second = (Artifact.load(folder / "logistic") for folder in folders)
    assert msgspec.structs.replace(first.metadata, created="") == msgspec.structs.replace(second.metadata, created="")


def test_nothing_is_written_when_the_export_disagrees(
    market: Dataset, request_for: RequestFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tolerance of 0 the float32 sums of a forest are an error, and no artifact is written."""
    monkeypatch.setattr("volspike.training.fitting.TOLERANCE", 0.0)
    request = request_for(models=("random_forest",))
    with pytest.raises(ModelError, match="no artifact was written"):
        trained(market, request)
    assert not request.artifacts.exists()
