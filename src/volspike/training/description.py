"""What an artifact says of itself: metadata and pictures of a trained model."""

from __future__ import annotations

import platform
import time
from importlib import import_module
from typing import Final

import numpy as np

from volspike import __version__
from volspike.evaluation import Scored
from volspike.evaluation.plots import feature_importance, pr_curve, roc_curve
from volspike.labels import HORIZON_S
from volspike.market import instant
from volspike.models import DETECTORS, DataFacts, Metadata, SplitFacts
from volspike.training.fitting import Fitted
from volspike.training.judgement import Judgement, fold_figures, part_figures
from volspike.training.material import Material
from volspike.training.search import Search

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
        created=instant(time.time_ns()),
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
        start=instant(int(dataset.time.min())),
        end=instant(int(dataset.time.max())),
        learned_rows=len(fold.learned.rows),
        weights=WEIGHTS,
        test_start=instant(int(dataset.time[fold.test].min())),
        test_end=instant(int(dataset.time[fold.test].max())),
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
