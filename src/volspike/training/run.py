"""One training run: every model asked for is fitted on every fold, judged out of sample, and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from volspike.datasets import Dataset, load_dataset
from volspike.market import instant
from volspike.models import Artifact
from volspike.training.description import STRATIFIED_WARNING, metadata, pictures
from volspike.training.fitting import RATE_10, Fitted, fit, pooled
from volspike.training.material import Material, gathered
from volspike.training.report import FoldReport, ModelReport, TrainingReport
from volspike.training.request import TrainingRequest

OnStep = Callable[[str], None]


def train(request: TrainingRequest, on_step: OnStep) -> TrainingReport:
    """Train, check and judge the models, and write ``<artifacts>/<model>`` for each.

    ``on_step`` is told what begins: a fold of a model each time. A model is written once it is trained on every fold
    and its ONNX form is verified; a failure leaves the artifact that was there.

    Raises:
        UsageError: an unknown model or split method, or a folder that cannot be written.
        UnreadableFile: the feature file is none, or has no labels.
        NotEnoughData: too few rows, or rows of one class only.
        SchemaMismatch: a column asked for is not in the file.
        ModelError: an ONNX form disagrees with its model.
    """
    names = request.model_names()
    return train_on(load_dataset(request.features), names, request, on_step)


def train_on(dataset: Dataset, names: Sequence[str], request: TrainingRequest, on_step: OnStep) -> TrainingReport:
    """As ``train``, of the models ``names`` on rows that are loaded already."""
    material = gathered(request, dataset)
    models = tuple(_train_model(name, material, on_step) for name in names)
    loud = (STRATIFIED_WARNING,) if request.split_method == "stratified" else ()
    return TrainingReport(
        rows=len(dataset.time),
        start=instant(int(dataset.time.min())),
        end=instant(int(dataset.time.max())),
        split_method=request.split_method,
        simulated=dataset.facts.simulated,
        products=dataset.products,
        warnings=(*loud, *material.warnings, *_warnings(models)),
        models=models,
    )


def _train_model(name: str, material: Material, on_step: OnStep) -> ModelReport:
    began = time.perf_counter()
    request, fitted = material.request, []
    for number, fold in enumerate(material.folds, 1):
        on_step(f"{name}: fold {number} of {len(material.folds)}")
        fitted.append(fit(name, material.dataset, material.columns, fold, request.seed))
    folds = tuple(_fold_report(part, request.seed) for part in fitted)
    judged = pooled([part.judged for part in fitted])
    comparison = judged.comparison(request.seed) if len(fitted) > 1 else folds[0].comparison
    served, directory = fitted[-1], request.artifacts / name
    Artifact.save(
        directory,
        served.export.onnx,
        metadata(material, name, served, comparison, folds[-1].comparison),
        pictures(name, judged, served.importance, simulated=material.dataset.facts.simulated),
    )
    return ModelReport(
        model=name,
        artifact=directory,
        features=served.features,
        left_out=served.left_out,
        thresholds=served.thresholds,
        tau=served.fold.tau,
        pooled=comparison,
        folds=folds,
        importance=served.importance,
        export_difference=max(part.export.difference for part in fitted),
        seconds=time.perf_counter() - began,
    )


def _fold_report(fitted: Fitted, seed: int) -> FoldReport:
    fold = fitted.fold
    return FoldReport(
        fold=fold.number,
        tau=fold.tau,
        threshold=fitted.thresholds[fitted.served_threshold],
        threshold_name=fitted.served_threshold,
        train_rows=len(fold.train),
        validation_rows=len(fold.validation),
        test_rows=len(fold.test),
        left_out_rows=fitted.left_out_rows,
        comparison=fitted.judged.comparison(seed),
    )


def _warnings(models: Sequence[ModelReport]) -> list[str]:
    """What could not be judged and what was left out for want of values, as sentences."""
    told = []
    for model in models:
        figures = model.pooled.model
        if figures.base_rate in (0.0, 1.0):
            told.append(
                f"{model.model}: of its {figures.rows:,} test rows {figures.tp + figures.fn:,} are spikes, so that "
                "areas are undefined and no curve is drawn: record for longer, or judge on other folds"
            )
        elif not model.pooled.is_judgeable:
            told.append(
                f"{model.model}: all {figures.tp + figures.fn:,} spikes of its test rows are "
                f"{model.pooled.spike_events} event(s): figures and intervals say next to nothing; record for longer"
            )
        if helpless := [str(fold.fold) for fold in model.folds if fold.threshold_name == RATE_10]:
            told.append(
                f"{model.model}: in fold {', '.join(helpless)} no threshold catches a spike of the validation rows "
                "(there are none, or they score lowest), so the one that calls 10 % of them stands in"
            )
        if model.left_out:
            told.append(f"{model.model} does without {', '.join(model.left_out)}: no value in any training row")
        if rows := sum(fold.left_out_rows for fold in model.folds):
            told.append(f"{model.model} could not use {rows:,} rows that miss a value, summed over folds")
    return told
