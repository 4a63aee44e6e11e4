"""Every model beside the best of the rules that a trader has, on the same test rows.

What an artifact says of itself: metadata and pictures of a trained model.

From a model fitted on every fold to its report and its artifact.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike import __version__
from volspike.datasets import Dataset
from volspike.evaluation import Comparison, Scored, compare, per_hour, per_product, pooled
from volspike.evaluation.metrics import average_precision
from volspike.evaluation.plots import feature_importance, pr_curve, roc_curve
from volspike.labels import HORIZON_S
from volspike.market import format_time
from volspike.models import DETECTORS, Artifact, DataFacts, Metadata, SplitFacts
from volspike.models.artifact import CompanionFacts, companion_files
from volspike.training.fitting import Fitted, Part
from volspike.training.folds import Material, is_baseline
from volspike.training.report import FoldReport, Judgement, ModelReport, fold_figures, part_figures
from volspike.training.search import Search


def scored_beside(dataset: Dataset, model: Fitted, baseline: Fitted) -> Scored:
    """The test rows of their fold that both could score."""
    rows, ours, theirs = np.intersect1d(model.test.rows, baseline.test.rows, assume_unique=True, return_indices=True)
    fold = model.fold
    return Scored(
        time=dataset.time[rows],
        product=dataset.product[rows],
        fold=np.full(len(rows), fold.number, np.int32),
        y=fold.y[rows],
        past_volatility=dataset.persistence[rows] / fold.tau,
        probability=model.test.probability[ours],
        threshold=np.full(len(rows), model.threshold),
        baseline=baseline.test.probability[theirs],
        baseline_threshold=np.full(len(rows), baseline.threshold),
    )


def best_of(fitted: Mapping[str, Sequence[Fitted]]) -> str:
    """The name of greatest pooled PR-AUC over the selection folds, of models fitted on the same folds, oldest first.

    Compared on the rows that all of them could score. The final fold has no say; where there is no other, its
    validation rows decide. Where nothing tells them apart it is the first.
    """
    has_selection = len(next(iter(fitted.values()))) > 1
    parts = {
        name: [(one, one.test) for one in each[:-1]] if has_selection else [(one, one.validation) for one in each]
        for name, each in fitted.items()
    }
    scores = _pooled_pr_auc(parts)
    return max(scores, key=lambda name: np.nan_to_num(scores[name], nan=-1.0))


def _pooled_pr_auc(parts: Mapping[str, Sequence[tuple[Fitted, Part]]]) -> dict[str, float]:
    folds = list(zip(*parts.values(), strict=True))
    common = [reduce(np.intersect1d, [part.rows for _, part in fold]) for fold in folds]
    y = np.concatenate([fold[0][0].fold.y[rows] for fold, rows in zip(folds, common, strict=True)])
    return {
        name: average_precision(
            y, np.concatenate([_of(part, rows) for (_, part), rows in zip(each, common, strict=True)])
        )
        for name, each in parts.items()
    }


def _of(part: Part, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """The probabilities of ``rows``, all of which are the part's."""
    return part.probability[np.searchsorted(part.rows, rows)]


STRATIFIED_WARNING: Final = (
    "STRATIFIED SPLIT: NO EVIDENCE OF SKILL. Its training and test rows overlap in time, so the test leaks into "
    "training: on pure noise such a split scores PR-AUC 0.92-0.95, where an honest one scores the base rate (0.10). "
    "Judge by walk_forward or time_based."
)

WEIGHTS: Final = "average uniqueness"

LIBRARIES: Final = {"numpy": "numpy", "scikit-learn": "sklearn", "onnx": "onnx", "onnxruntime": "onnxruntime"}
"""Distribution → module, of the libraries whose versions an artifact tells."""

_OWN_LIBRARIES: Final = {
    "xgboost": {"xgboost": "xgboost"},
    "lightgbm": {"lightgbm": "lightgbm"},
    "lstm": {"jax": "jax"},
}

MOST_BARS: Final = 25


def metadata(material: Material, served: Fitted, search: Search, judged: Judgement) -> Metadata:
    """The facts of a model as fitted on the final fold; the hash is filled in when it is saved."""
    request, dataset = material.request, material.dataset
    facts = dataset.facts
    return Metadata(
        model=served.model,
        created=format_time(time.time_ns()),
        volspike_version=__version__,
        features=served.features,
        left_out=served.left_out,
        feature_digest=facts.digest,
        windows=facts.windows,
        every=str(facts.every),
        profile=str(facts.profile),
        scope=str(facts.scope),
        leader=facts.leader,
        simulated=facts.simulated,
        products=dataset.products,
        horizon_s=HORIZON_S,
        label_percentile=request.label_percentile,
        tau=served.fold.tau,
        thresholds=served.thresholds,
        served_threshold=served.threshold_name,
        accepts_missing=DETECTORS[served.model].accepts_missing,
        data=_data_facts(material, served),
        split=_split_facts(material),
        metrics=judged.figures(),
        importance=served.importance,
        versions=_versions(served.model),
        onnx_sha256="",
        seed=request.seed,
        calibration=served.calibration,
        baseline=judged.pooled.baseline_name,
        settings=dict(served.settings),
        trials=search.trials,
        fold_metrics=fold_figures(judged.folds),
        product_metrics=part_figures(judged.products),
        hour_metrics=part_figures(judged.hours),
    )


def pictures(scored: Scored, served: Fitted, baseline: str, *, simulated: bool) -> dict[str, bytes]:
    """File name → PNG. The curves are left out where the test rows are of one class only and there is none."""
    model = served.model
    market = ", SIMULATED market" if simulated else ""
    most = dict(sorted(served.importance.items(), key=lambda item: -item[1])[:MOST_BARS])
    images = {"feature_importance.png": feature_importance(most, title=f"{model}: what it goes by{market}")}
    if 0 < np.count_nonzero(scored.y) < len(scored):
        scores = {model: scored.probability}
        if baseline != model:
            scores[baseline] = scored.baseline
        images["pr_curve.png"] = pr_curve(scored.y, scores, title=f"{model}: precision and recall on test rows{market}")
        images["roc_curve.png"] = roc_curve(scored.y, scores, title=f"{model}: ROC on test rows{market}")
    return images


def _data_facts(material: Material, served: Fitted) -> DataFacts:
    dataset, fold = material.dataset, served.fold
    return DataFacts(
        rows=len(dataset.time),
        train_rows=len(fold.train),
        validation_rows=len(fold.validation),
        test_rows=len(fold.test),
        start=format_time(int(dataset.time.min())),
        end=format_time(int(dataset.time.max())),
        learned_rows=len(fold.learned.rows),
        weights=WEIGHTS,
        test_start=format_time(int(dataset.time[fold.test].min())),
        test_end=format_time(int(dataset.time[fold.test].max())),
    )


def _split_facts(material: Material) -> SplitFacts:
    request = material.request
    return SplitFacts(
        method=request.split_method,
        folds=len(material.folds.folds),
        fractions=request.fractions,
        note=_note(material),
        fold_by=material.fold_by,
        training=request.training,
        training_span_h=request.training_span_h,
        purge_s=HORIZON_S,
        embargo_s=None if request.split_method == "stratified" else material.folds.embargo_s,
        final_block=material.folds.final.block,
    )


def _note(material: Material) -> str:
    if material.request.split_method == "stratified":
        return STRATIFIED_WARNING
    if not material.folds.selection:
        return "trained on the training rows, calibrated and threshold chosen on the validation rows after them"
    return (
        f"the served model is that of the final fold, the newest of {len(material.folds.folds)}: trained on the rows "
        "before its validation block, calibrated there, with that fold's tau and threshold; the metrics of model and "
        "baseline are pooled over the test rows of the folds before it, each judged by its own fold's model, and those "
        "that end in _final are of the final block, which no choice looked at"
    )


def _versions(model: str) -> dict[str, str]:
    libraries = LIBRARIES | _OWN_LIBRARIES.get(model, {})
    return {"python": platform.python_version()} | {
        name: str(import_module(module).__version__) for name, module in libraries.items()
    }


RESAMPLES: Final = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model on every fold, oldest first, with the search for its settings and the seconds that both took."""

    fitted: tuple[Fitted, ...]
    search: Search
    seconds: float

    @property
    def served(self) -> Fitted:
        """The one of the final fold."""
        return self.fitted[-1]


def reported(material: Material, model: Trained, baseline: Trained, *, write: bool) -> ModelReport:
    """The figures of ``model`` beside ``baseline``; with ``write`` its artifact is written, too.

    Raises:
        UsageError: the artifact's folder cannot be written, or holds something else.
    """
    seed, name, against = material.request.seed, model.served.model, baseline.served.model
    parts = [scored_beside(material.dataset, *pair) for pair in zip(model.fitted, baseline.fitted, strict=True)]
    selection = pooled(parts[:-1]) if len(parts) > 1 else parts[-1]
    final = _compared(parts[-1], against, seed)
    over_folds = _compared(selection, against, seed) if len(parts) > 1 else final
    by_fold = [*(_compared(part, against, seed, resamples=0) for part in parts[:-1]), final]
    folds = _fold_reports(model.fitted, by_fold)
    directory = material.request.artifacts / name
    if write:
        simulated = material.dataset.facts.simulated
        judged = Judgement(
            pooled=over_folds,
            final=final,
            folds=folds,
            products=per_product(selection, material.dataset.products, baseline_name=against, resamples=0),
            hours=per_hour(selection, baseline_name=against, resamples=0),
        )
        facts = metadata(material, model.served, model.search, judged)
        extras = pictures(selection, model.served, against, simulated=simulated)
        if against != name:
            extras |= _companion(baseline.served)
        Artifact.save(directory, model.served.export.graph.SerializeToString(), facts, extras)
    return ModelReport(
        model=name,
        is_baseline=is_baseline(name),
        artifact=directory if write else None,
        plots=_plots(directory) if write else (),
        features=model.served.features,
        left_out=model.served.left_out,
        settings=model.served.settings,
        search=model.search,
        thresholds=model.served.thresholds,
        threshold_name=model.served.threshold_name,
        tau=model.served.fold.tau,
        pooled=over_folds,
        final=final,
        folds=folds,
        importance=model.served.importance,
        export_difference=max(part.export.difference for part in model.fitted),
        seconds=model.seconds,
    )


def _compared(scored: Scored, against: str, seed: int, resamples: int | None = None) -> Comparison:
    draws = RESAMPLES if resamples is None else resamples
    return compare(scored, baseline_name=against, baseline_is_probability=True, resamples=draws, seed=seed)


def _companion(baseline: Fitted) -> dict[str, bytes]:
    """The best baseline of the final fold, for whoever judges the model anew."""
    facts = CompanionFacts(
        model=baseline.model,
        features=baseline.features,
        threshold=baseline.threshold,
        accepts_missing=DETECTORS[baseline.model].accepts_missing,
    )
    return companion_files(baseline.export.graph.SerializeToString(), facts)


def _plots(directory: Path) -> tuple[Path, ...]:
    return tuple(sorted(directory.glob("*.png")))


def _fold_reports(fitted: Sequence[Fitted], comparisons: Sequence[Comparison]) -> tuple[FoldReport, ...]:
    return tuple(_fold_report(*pair) for pair in zip(fitted, comparisons, strict=True))


def _fold_report(fitted: Fitted, comparison: Comparison) -> FoldReport:
    fold = fitted.fold
    return FoldReport(
        fold=fold.number,
        block=fold.block,
        is_final=fold.is_final,
        tau=fold.tau,
        threshold=fitted.threshold,
        threshold_name=fitted.threshold_name,
        calibration=fitted.calibration,
        train_rows=len(fold.train),
        learned_rows=len(fold.learned.rows),
        validation_rows=len(fold.validation),
        test_rows=len(fold.test),
        left_out_rows=fitted.left_out_rows,
        comparison=comparison,
    )
