"""What an artifact says of itself: metadata and pictures of a trained model."""

from __future__ import annotations

import platform
import time
from importlib import import_module

from volspike import __version__
from volspike.datasets import Dataset
from volspike.evaluation import Comparison
from volspike.evaluation.plots import feature_importance, pr_curve, roc_curve
from volspike.labels import HORIZON_S
from volspike.market import instant
from volspike.models import DETECTORS, DataFacts, Metadata, SplitFacts
from volspike.training.fitting import Fitted, Judged
from volspike.training.folds import Fold
from volspike.training.material import Material

STRATIFIED_WARNING = (
    "STRATIFIED SPLIT: NO EVIDENCE OF SKILL. Its training and test rows overlap in time, so the test leaks into "
    "training: on pure noise such a split scores PR-AUC 0.92-0.95, where an honest one scores the base rate (0.10). "
    "Judge by walk_forward or time_based."
)

LIBRARIES = {"numpy": "numpy", "scikit-learn": "sklearn", "onnx": "onnx", "onnxruntime": "onnxruntime"}
"""Distribution → module, of the libraries whose versions an artifact tells."""


def metadata(material: Material, model: str, served: Fitted, pooled: Comparison, newest: Comparison) -> Metadata:
    """The facts of ``model`` as fitted on the newest fold; the hash is filled in when it is saved.

    ``pooled`` are the figures over the test rows of all folds, ``newest`` those over the newest fold's alone.
    """
    request, dataset = material.request, material.dataset
    facts = dataset.facts
    return Metadata(
        model=model,
        created=instant(time.time_ns()),
        volspike_version=__version__,
        features=served.features,
        left_out=served.left_out,
        feature_digest=facts.digest,
        windows=facts.windows,
        every=str(facts.every),
        profile=str(facts.profile),
        simulated=facts.simulated,
        products=dataset.products,
        horizon_s=HORIZON_S,
        label_percentile=request.label_percentile,
        tau=served.fold.tau,
        thresholds=served.thresholds,
        served_threshold=served.served_threshold,
        accepts_missing=DETECTORS[model].accepts_missing,
        data=_data_facts(dataset, served.fold),
        split=SplitFacts(
            method=request.split_method,
            folds=len(material.folds),
            fractions=request.fractions,
            note=_note(material),
        ),
        metrics=pooled.figures() | {f"{name}_newest_fold": figures for name, figures in newest.figures().items()},
        importance=served.importance,
        versions=_versions(model),
        onnx_sha256="",
    )


def pictures(model: str, judged: Judged, importance: dict[str, float], *, simulated: bool) -> dict[str, bytes]:
    """File name → PNG. The curves are left out where the test rows are of one class only and there is none."""
    market = ", SIMULATED market" if simulated else ""
    images = {"feature_importance.png": feature_importance(importance, title=f"{model}: what it goes by{market}")}
    if 0 < judged.y.sum() < len(judged.y):
        scores = {model: judged.probability, "last 60 s volatility": judged.persistence}
        images["pr_curve.png"] = pr_curve(judged.y, scores, title=f"{model}: precision and recall on test rows{market}")
        images["roc_curve.png"] = roc_curve(judged.y, scores, title=f"{model}: ROC on test rows{market}")
    return images


def _data_facts(dataset: Dataset, fold: Fold) -> DataFacts:
    return DataFacts(
        rows=len(dataset.time),
        train_rows=len(fold.train),
        validation_rows=len(fold.validation),
        test_rows=len(fold.test),
        start=instant(int(dataset.time.min())),
        end=instant(int(dataset.time.max())),
    )


def _note(material: Material) -> str:
    if material.request.split_method == "stratified":
        return STRATIFIED_WARNING
    if len(material.folds) == 1:
        return "trained on the training rows, threshold chosen on the validation rows after them"
    return (
        f"the served model is that of fold {material.newest.number}, the newest of {len(material.folds)}: trained on "
        "the rows before its validation block, with that fold's tau and threshold; the metrics of model and "
        "persistence are pooled over the test rows of all folds, each judged by its own fold's model"
    )


def _versions(model: str) -> dict[str, str]:
    libraries = LIBRARIES | ({"xgboost": "xgboost"} if model == "xgboost" else {})
    return {"python": platform.python_version()} | {
        name: str(import_module(module).__version__) for name, module in libraries.items()
    }
