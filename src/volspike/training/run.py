"""One training run: every model asked for is fitted on every fold, judged out of sample, and written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from volspike.datasets import Dataset, load_dataset
from volspike.errors import NotEnoughData, SchemaMismatch, UsageError, VolspikeError
from volspike.market import format_time
from volspike.training.evaluate import STRATIFIED_WARNING, WEIGHTS, Trained, best_of, reported
from volspike.training.fitting import fit
from volspike.training.folds import Material, baselines, gathered
from volspike.training.report import ModelReport, TrainingReport, caveats
from volspike.training.request import ALL, TrainingRequest
from volspike.training.search import searched

OnStep = Callable[[str], None]


def train(request: TrainingRequest, on_step: OnStep) -> TrainingReport:
    """Train, check and judge the models, and write ``<artifacts>/<model>`` for each.

    ``on_step`` is told what begins: a search, a fold of a model, a judgement. Nothing is written before every model is
    trained on every fold and every ONNX form is verified; a failure leaves the artifacts that were there.

    Raises:
        UsageError: something asked for that does not exist, or a folder that cannot be written.
        UnreadableFile: the feature file is none, or has no labels.
        NotEnoughData: too few rows, or rows of one class only.
        SchemaMismatch: a column asked for is not in the file, or a model named finds none that it can do with.
        ModelError: an ONNX form disagrees with its model.
    """
    request.check()
    return train_on(load_dataset(request.features), request, on_step)


def train_on(dataset: Dataset, request: TrainingRequest, on_step: OnStep) -> TrainingReport:
    """As ``train``, on rows that are loaded already."""
    request.check()
    material = gathered(request, dataset)
    trained, told = _all_trained(material, on_step)
    asked = {name: one for name, one in trained.items() if name in request.model_names()}
    best = best_of({name: one.fitted for name, one in trained.items() if name in baselines()})
    chosen = best_of({name: one.fitted for name, one in asked.items()})
    reports = {}
    for name, one in trained.items():
        on_step(f"{name}: judged beside {best}")
        reports[name] = reported(material, one, trained[best], write=name in asked)
    models = tuple(reports[name] for name in asked)
    return TrainingReport(
        request=request,
        rows=len(dataset.time),
        start=format_time(int(dataset.time.min())),
        end=format_time(int(dataset.time.max())),
        split_method=request.split_method,
        fold_by=material.fold_by,
        embargo_s=material.folds.embargo_s,
        weights=WEIGHTS,
        feature_digest=dataset.facts.digest,
        simulated=dataset.facts.simulated,
        products=dataset.products,
        has_selection=bool(material.folds.selection),
        warnings=_sentences(material, told, models),
        models=models,
        baselines=tuple(report for name, report in reports.items() if name not in asked),
        best_baseline=best,
        chosen=chosen,
    )


def _sentences(material: Material, told: Sequence[str], models: Sequence[ModelReport]) -> tuple[str, ...]:
    loud = (STRATIFIED_WARNING,) if material.request.split_method == "stratified" else ()
    return (*loud, *material.folds.told, *told, *caveats(models, material.request))


def _all_trained(material: Material, on_step: OnStep) -> tuple[dict[str, Trained], list[str]]:
    """The models asked for and the baselines, by name, and a sentence for each that cannot be had here.

    A model named is trained or the run fails; one of ``all``, or a baseline beside them, is left out.
    """
    request = material.request
    asked = request.model_names()
    trained: dict[str, Trained] = {}
    faults: dict[str, VolspikeError] = {}
    for name in (*asked, *(name for name in baselines() if name not in asked)):
        try:
            trained[name] = _trained(name, material, on_step)
        except (UsageError, NotEnoughData, SchemaMismatch) as error:
            if name in asked and ALL not in request.models:
                raise
            faults[name] = error
    for needed in (asked, baselines()):
        if not set(needed) & set(trained):
            raise faults[needed[0]]
    return trained, [f"{name} is left out: {error}" for name, error in faults.items()]


def _trained(name: str, material: Material, on_step: OnStep) -> Trained:
    began = time.perf_counter()
    trials, folds = material.request.search, material.folds.folds
    search = searched(name, material, lambda trial: on_step(f"{name}: settings {trial} of {trials}"))
    fitted = []
    for number, fold in enumerate(folds, 1):
        on_step(f"{name}: fold {number} of {len(folds)}")
        fitted.append(fit(name, material, fold, search.settings))
    return Trained(tuple(fitted), search, time.perf_counter() - began)
