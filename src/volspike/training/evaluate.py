"""Evaluation of fitted models on held-out rows: the comparison with the best baseline, and the artifact.

``evaluate_model`` turns a model fitted on every fold into its result and, if requested, writes its artifact: the ONNX
graph of the final fold, the metadata, the plots, and the best baseline for later evaluations.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Final

import numpy as np

from volspike import __version__
from volspike.datasets import Dataset
from volspike.evaluation import Comparison, RowGroup, Scored, compare, per_hour, per_product, pooled
from volspike.evaluation.metrics import known
from volspike.evaluation.plots import feature_importance, pr_curve, roc_curve
from volspike.labels import TAU
from volspike.market import format_time
from volspike.models import DETECTORS, Artifact, DataFacts, Metadata, SplitFacts
from volspike.models.artifact import StoredBaselineFacts, stored_baseline_files
from volspike.models.evidence import LimitationKind, dataset_markets, model_limitations, texts
from volspike.models.metadata import Figure, FoldFigures, PartFigures
from volspike.plugins import MODELS, find_plugin
from volspike.training.fitting import FoldFit
from volspike.training.folds import TrainingData, is_baseline
from volspike.training.report import STRATIFIED_WARNING, FoldResult, ModelResult, unscored_rows
from volspike.training.search import SearchResult

RESAMPLES: Final = 1000

WEIGHTS: Final = "average uniqueness"

MOST_BARS: Final = 25
"""Features in the importance plot."""

LIBRARIES: Final = {"numpy": "numpy", "scikit-learn": "sklearn", "onnx": "onnx", "onnxruntime": "onnxruntime"}
"""Distribution → module of the libraries whose versions every artifact records."""

_MODEL_LIBRARIES: Final = {
    "xgboost": {"xgboost": "xgboost"},
    "lightgbm": {"lightgbm": "lightgbm"},
    "relative_trees": {"lightgbm": "lightgbm"},
    "lstm": {"jax": "jax"},
}


@dataclass(frozen=True, slots=True, eq=False)
class ModelFits:
    """A model fitted on every fold, oldest first, with its search result and the seconds that both took."""

    fits: tuple[FoldFit, ...]
    search: SearchResult
    seconds: float

    @property
    def served(self) -> FoldFit:
        """The fit of the final fold, which is served."""
        return self.fits[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineComparison:
    """A model compared with the best baseline on the same test rows.

    ``pooled`` covers the test rows of the selection folds, which ``products`` and ``hours`` divide; ``folds`` every
    fold, oldest first, with the same baseline; ``final`` the final block, with the baseline that is best there.
    """

    pooled: Comparison
    final: Comparison
    folds: tuple[FoldResult, ...]
    products: tuple[RowGroup, ...]
    hours: tuple[RowGroup, ...]


@dataclass(frozen=True, slots=True)
class BestBaselines:
    """The best baseline on the pooled test rows of the selection folds, and the best one on the final block."""

    pooled: ModelFits
    final: ModelFits


def evaluate_model(data: TrainingData, model: ModelFits, best: BestBaselines, *, write: bool) -> ModelResult:
    """Compare ``model`` with the best baselines on the test rows; with ``write``, write its artifact.

    Raises:
        UsageError: the artifact's folder cannot be written, or is not an artifact.
    """
    served, name = model.served, model.served.model
    pairs = [_score_pair(data.dataset, *pair) for pair in zip(model.fits, best.pooled.fits, strict=True)]
    selection = pooled(pairs[:-1]) if len(pairs) > 1 else pairs[-1]
    comparison = _compare_folds(data, model, pairs, selection, best, with_parts=write)
    directory = data.request.artifacts / name
    limitations: tuple[str, ...] = ()
    if write:
        facts = build_metadata(data, served, model.search, comparison)
        files = draw_plots(selection, served, facts.baseline, simulated=facts.simulated)
        if facts.baseline != name:
            files |= _baseline_files(best.pooled.served)
        Artifact.save(directory, served.export.graph.SerializeToString(), facts, files)
        limitations = tuple(
            texts(each for each in model_limitations(facts) if each.kind is LimitationKind.DEGENERATE_THRESHOLD)
        )
    return ModelResult(
        model=name,
        is_baseline=is_baseline(name),
        artifact=directory if write else None,
        plots=tuple(sorted(directory.glob("*.png"))) if write else (),
        features=served.features,
        left_out=served.left_out,
        settings=served.settings,
        search=model.search,
        thresholds=served.thresholds,
        threshold_name=served.threshold_name,
        tau=served.fold.typical_tau,
        pooled=comparison.pooled,
        final=comparison.final,
        folds=comparison.folds,
        importance=served.importance,
        export_difference=max(fit.export.difference for fit in model.fits),
        seconds=model.seconds,
        limitations=limitations,
    )


def _score_pair(dataset: Dataset, model: FoldFit, baseline: FoldFit) -> Scored:
    """The test rows of a fold, which are the same for both."""
    rows, fold = model.test.rows, model.fold
    return Scored.of(
        dataset,
        rows,
        fold.tau,
        probability=model.test.probability,
        threshold=model.threshold,
        baseline=baseline.test.probability,
        baseline_threshold=baseline.threshold,
        fold=fold.number,
    )


def _compare_folds(
    data: TrainingData,
    model: ModelFits,
    pairs: Sequence[Scored],
    selection: Scored,
    best: BestBaselines,
    *,
    with_parts: bool,
) -> BaselineComparison:
    """The comparison pooled, on the final block, per fold and, ``with_parts``, per product and hour of the day."""
    baseline, final_baseline = best.pooled.served.model, best.final.served.model

    def compared(scored: Scored, resamples: int = RESAMPLES, name: str = baseline) -> Comparison:
        return compare(
            scored, baseline_name=name, baseline_is_probability=True, resamples=resamples, seed=data.request.seed
        )

    newest = compared(pairs[-1])
    final = newest
    if final_baseline != baseline:
        final = compared(_score_pair(data.dataset, model.served, best.final.served), name=final_baseline)
    over_folds = compared(selection) if len(pairs) > 1 else final
    by_fold = [*(compared(pair, 0) for pair in pairs[:-1]), newest]
    products = data.dataset.products
    return BaselineComparison(
        pooled=over_folds,
        final=final,
        folds=tuple(_fold_result(*fold) for fold in zip(model.fits, by_fold, strict=True)),
        products=per_product(selection, products, baseline_name=baseline, resamples=0) if with_parts else (),
        hours=per_hour(selection, baseline_name=baseline, resamples=0) if with_parts else (),
    )


def _fold_result(fit: FoldFit, comparison: Comparison) -> FoldResult:
    fold = fit.fold
    return FoldResult(
        fold=fold.number,
        block=fold.block,
        is_final=fold.is_final,
        tau=fold.typical_tau,
        threshold=fit.threshold,
        threshold_name=fit.threshold_name,
        calibration=fit.calibration,
        train_rows=len(fold.train),
        learned_rows=len(fold.fit_rows.rows),
        validation_rows=len(fold.validation),
        test_rows=len(fold.test),
        left_out_rows=fit.left_out_rows,
        unscored_rows=fit.test.unscored,
        comparison=comparison,
    )


def build_metadata(
    data: TrainingData, served: FoldFit, search: SearchResult, comparison: BaselineComparison
) -> Metadata:
    """The metadata of the model of the final fold; ``Artifact.save`` fills in the SHA-256."""
    request, dataset = data.request, data.dataset
    facts = dataset.facts
    final = {f"{name}_final": figures for name, figures in comparison.final.figures().items()}
    return Metadata(
        model=served.model,
        created=format_time(time.time_ns()),
        volspike_version=__version__,
        features=tuple(name for name in served.features if name != TAU),
        takes_tau=TAU in served.features,
        spike=str(data.spike),
        left_out=served.left_out,
        feature_digest=facts.digest,
        windows=facts.windows,
        every=str(facts.every),
        profile=str(facts.profile),
        scope=str(facts.scope),
        leader=facts.leader,
        extras=facts.extras,
        simulated=facts.simulated,
        products=dataset.products,
        markets=dataset_markets(dataset, request.venue),
        horizon_s=facts.horizon_s,
        label_percentile=request.label_percentile,
        tau=served.fold.typical_tau,
        thresholds=served.thresholds,
        served_threshold=served.threshold_name,
        requested_threshold=request.threshold,
        accepts_missing=DETECTORS[served.model].accepts_missing,
        data=_data_facts(data, served),
        split=_split_facts(data),
        metrics=_with_unscored(comparison.pooled.figures() | final, comparison.folds),
        importance=served.importance,
        versions=library_versions(served.model),
        onnx_sha256="",
        seed=request.seed,
        calibration=served.calibration,
        baseline=comparison.pooled.baseline_name,
        final_baseline=comparison.final.baseline_name,
        settings=dict(served.settings),
        trials=search.trials,
        fold_metrics=tuple(_fold_figures(fold) for fold in comparison.folds),
        product_metrics=tuple(_part_figures(part) for part in comparison.products if part.rows),
        hour_metrics=tuple(_part_figures(part) for part in comparison.hours if part.rows),
    )


def _with_unscored(figures: dict[str, dict[str, Figure]], folds: Sequence[FoldResult]) -> dict[str, dict[str, Figure]]:
    """The figures, with the number of test rows that the model could not score next to those of the model."""
    counts = {"model": unscored_rows(folds), "model_final": folds[-1].unscored_rows}
    return figures | {name: figures[name] | {"unscored_rows": count} for name, count in counts.items()}


def _data_facts(data: TrainingData, served: FoldFit) -> DataFacts:
    dataset, fold = data.dataset, served.fold
    return DataFacts(
        rows=len(dataset.time),
        train_rows=len(fold.train),
        validation_rows=len(fold.validation),
        test_rows=len(fold.test),
        start=format_time(int(dataset.time.min())),
        end=format_time(int(dataset.time.max())),
        learned_rows=len(fold.fit_rows.rows),
        weights=WEIGHTS,
        test_start=format_time(int(dataset.time[fold.test].min())),
        test_end=format_time(int(dataset.time[fold.test].max())),
    )


def _split_facts(data: TrainingData) -> SplitFacts:
    request = data.request
    return SplitFacts(
        method=request.split_method,
        folds=len(data.fold_set.folds),
        fractions=request.fractions,
        note=_split_note(data),
        fold_by=data.fold_by,
        training=request.training,
        training_span_h=request.training_span_h,
        purge_s=data.dataset.facts.horizon_s,
        embargo_s=None if request.split_method == "stratified" else data.fold_set.embargo_s,
        final_block=data.fold_set.final.block,
    )


def _split_note(data: TrainingData) -> str:
    if data.request.split_method == "stratified":
        return STRATIFIED_WARNING
    if not data.fold_set.selection:
        return "trained on the training rows; calibration and threshold come from the validation rows after them"
    return (
        f"the served model is that of the final fold, the newest of {len(data.fold_set.folds)}: trained on the rows "
        "before its validation block and calibrated on that block, with that fold's tau and threshold; the metrics of "
        "model and baseline are pooled over the test rows of the earlier folds, each scored by its own fold's model; "
        "metrics that end in _final cover the final block, which can only overrule the choice of a model"
    )


def library_versions(model: str) -> dict[str, str]:
    """The versions of Python and of the libraries that an artifact of this model depends on."""
    libraries = LIBRARIES | _MODEL_LIBRARIES.get(model, {})
    plugin = None if model in DETECTORS.built_in else find_plugin(MODELS, model)
    versions = {name: str(import_module(module).__version__) for name, module in libraries.items()}
    added = {} if plugin is None else {plugin.distribution: plugin.version}
    return {"python": platform.python_version()} | versions | added


def _fold_figures(fold: FoldResult) -> FoldFigures:
    comparison = fold.comparison
    ours, theirs = comparison.model_intervals["pr_auc"], comparison.baseline_intervals["pr_auc"]
    return FoldFigures(
        fold=fold.fold,
        block=fold.block,
        is_final=fold.is_final,
        test_rows=fold.test_rows,
        tau=fold.tau,
        base_rate=known(comparison.model.base_rate),
        pr_auc=known(comparison.model.pr_auc),
        pr_auc_low=known(ours.low),
        pr_auc_high=known(ours.high),
        baseline_pr_auc=known(comparison.baseline.pr_auc),
        baseline_pr_auc_low=known(theirs.low),
        baseline_pr_auc_high=known(theirs.high),
    )


def _part_figures(part: RowGroup) -> PartFigures:
    if part.comparison is None:
        return PartFigures(label=part.label, rows=part.rows, spike_events=part.spike_events)
    model, baseline = part.comparison.model, part.comparison.baseline
    return PartFigures(
        label=part.label,
        rows=part.rows,
        spike_events=part.spike_events,
        base_rate=known(model.base_rate),
        pr_auc=known(model.pr_auc),
        baseline_pr_auc=known(baseline.pr_auc),
        precision=known(model.precision),
        recall=known(model.recall),
    )


def draw_plots(scored: Scored, served: FoldFit, baseline: str, *, simulated: bool) -> dict[str, bytes]:
    """File name → PNG; without the curves if the test rows hold one class only."""
    model = served.model
    market = ", SIMULATED market" if simulated else ""
    most = dict(sorted(served.importance.items(), key=lambda item: -item[1])[:MOST_BARS])
    images = {"feature_importance.png": feature_importance(most, title=f"{model}: feature importance{market}")}
    if 0 < np.count_nonzero(scored.y) < len(scored):
        scores = {model: scored.probability}
        if baseline != model:
            scores[baseline] = scored.baseline
        images["pr_curve.png"] = pr_curve(scored.y, scores, title=f"{model}: precision and recall on test rows{market}")
        images["roc_curve.png"] = roc_curve(scored.y, scores, title=f"{model}: ROC on test rows{market}")
    return images


def _baseline_files(baseline: FoldFit) -> dict[str, bytes]:
    """The files of the best baseline, so that ``volspike report`` can compare the model with it again."""
    facts = StoredBaselineFacts(
        model=baseline.model,
        features=baseline.features,
        threshold=baseline.threshold,
        accepts_missing=DETECTORS[baseline.model].accepts_missing,
    )
    return stored_baseline_files(baseline.export.graph.SerializeToString(), facts)
