"""A training run: fit every model on every fold, compare them with the best baseline, write their artifacts.

The steps, in order: split and label the rows (``folds``), search settings (``search``), fit, export and calibrate each
model on each fold (``fitting``), compare with the best baseline on held-out rows and write (``evaluate``), choose the
model to use (a baseline unless another proves better), and report (``report``).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

import numpy as np

from volspike.datasets import Dataset, load_dataset
from volspike.errors import NotEnoughData, SchemaMismatch, UsageError, VolspikeError
from volspike.evaluation import Comparison
from volspike.evaluation.metrics import average_precision
from volspike.market import format_time
from volspike.progress import OnStep, counted
from volspike.training.evaluate import WEIGHTS, BestBaselines, ModelFits, evaluate_model
from volspike.training.fitting import FoldFit, ScoredRows, fit_fold
from volspike.training.folds import TrainingData, baseline_names, is_baseline, prepare_training_data
from volspike.training.report import STRATIFIED_WARNING, ModelResult, TrainingReport, collect_warnings
from volspike.training.request import ALL, TrainingRequest
from volspike.training.search import search_settings

LEAST_EVENTS: Final = 20
"""Separate spike events in the pooled test rows that a learned model needs to be chosen."""


def train(request: TrainingRequest, on_step: OnStep) -> TrainingReport:
    """Train and evaluate the requested models on a feature file, and write ``<artifacts>/<model>`` for each.

    The best baseline is written as well.

    ``on_step`` receives the name of each step as it begins. No artifact is written until every model is fitted on every
    fold and every ONNX graph is verified, so that a failure leaves existing artifacts unchanged.

    Raises:
        UsageError: an unknown option value, or a folder that cannot be written.
        UnreadableFile: the file is not a feature file, or has no labels.
        NotEnoughData: too few rows, or rows of one class only.
        SchemaMismatch: the file lacks a requested column, or every column that a requested model can use.
        ModelError: an ONNX graph disagrees with its model.
    """
    request.check()
    return train_on(load_dataset(request.features), request, on_step)


def train_on(dataset: Dataset, request: TrainingRequest, on_step: OnStep) -> TrainingReport:
    """As ``train``, on rows in memory."""
    request.check()
    data = prepare_training_data(request, dataset)
    names = dict.fromkeys((*request.model_names(), *baseline_names()))
    trials = request.search * len(request.model_names())
    on_step = counted(on_step, len(names) * (len(data.fold_set.folds) + 1) + trials)
    fitted, skipped = _fit_models(data, on_step)

    requested = [name for name in request.model_names() if name in fitted]
    best = _best_baselines(fitted)
    best_baseline = best.pooled.served.model

    results = {}
    for name, model in fitted.items():
        on_step(f"{name}: comparing with {best_baseline}")
        results[name] = evaluate_model(data, model, best, write=name in (*requested, best_baseline))
    candidate = _candidate([fitted[name] for name in requested], has_selection=bool(data.fold_set.selection))
    choice = choose(results[candidate], best_baseline, [results[name] for name in requested])

    models = tuple(results[name] for name in requested)
    stratified = (STRATIFIED_WARNING,) if request.split_method == "stratified" else ()
    return TrainingReport(
        request=request,
        rows=len(dataset.time),
        start=format_time(int(dataset.time.min())),
        end=format_time(int(dataset.time.max())),
        split_method=request.split_method,
        fold_by=data.fold_by,
        embargo_s=data.fold_set.embargo_s,
        weights=WEIGHTS,
        feature_digest=dataset.facts.digest,
        simulated=dataset.facts.simulated,
        products=dataset.products,
        has_selection=bool(data.fold_set.selection),
        warnings=(*stratified, *data.fold_set.warnings, *skipped, *collect_warnings(models, request)),
        models=models,
        baselines=tuple(result for name, result in results.items() if name not in requested),
        best_baseline=best_baseline,
        final_baseline=best.final.served.model,
        chosen=choice.model,
        reason=choice.reason,
    )


def _best_baselines(fitted: Mapping[str, ModelFits]) -> BestBaselines:
    """The best baselines on the test rows of the selection folds and of the final one."""
    fits = {name: fitted[name].fits for name in fitted if is_baseline(name)}
    final = best_on_test_rows({name: folds[-1:] for name, folds in fits.items()})
    pooled = best_on_test_rows({name: folds[:-1] or folds for name, folds in fits.items()})
    return BestBaselines(fitted[pooled], fitted[final])


def _candidate(requested: Sequence[ModelFits], *, has_selection: bool) -> str:
    """The best of the requested models on the selection folds, of the learned ones if there are any."""
    fits = {model.served.model: model.fits for model in requested}
    eligible = {name: folds for name, folds in fits.items() if not is_baseline(name)} or fits
    if has_selection:
        return best_on_test_rows({name: folds[:-1] for name, folds in eligible.items()})
    return best_on_validation_rows(eligible)


def _fit_models(data: TrainingData, on_step: OnStep) -> tuple[dict[str, ModelFits], list[str]]:
    """The requested models and all baselines, fitted, and a sentence for each that had to be skipped.

    The run fails if a model that was requested by name cannot be fitted. A model that is included through ``all``, or a
    baseline that is only compared with, is skipped instead, as long as another one can be fitted.
    """
    requested = data.request.model_names()
    fitted: dict[str, ModelFits] = {}
    failures: dict[str, VolspikeError] = {}
    for name in dict.fromkeys((*requested, *baseline_names())):
        try:
            fitted[name] = _fit_model(name, data, on_step)
        except (UsageError, NotEnoughData, SchemaMismatch) as error:
            if name in requested and ALL not in data.request.models:
                raise
            failures[name] = error
    for needed in (requested, baseline_names()):
        if not set(needed) & set(fitted):
            raise failures[needed[0]]
    return fitted, [f"{name} is left out: {error}" for name, error in failures.items()]


def _fit_model(name: str, data: TrainingData, on_step: OnStep) -> ModelFits:
    """Search settings, then fit on every fold with them."""
    began = time.perf_counter()
    trials, folds = data.request.search, data.fold_set.folds
    search = search_settings(name, data, lambda trial: on_step(f"{name}: settings {trial} of {trials}"))
    fits = []
    for number, fold in enumerate(folds, 1):
        on_step(f"{name}: fold {number} of {len(folds)}")
        fits.append(fit_fold(name, data, fold, search.settings))
    return ModelFits(tuple(fits), search, time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Choice:
    """The model of a run to use, and the reason in one sentence."""

    model: str
    reason: str


def best_on_test_rows(models: Mapping[str, Sequence[FoldFit]]) -> str:
    """The name with the greatest PR-AUC, pooled over the test rows of these folds. Of equals the first is best."""
    return _best({name: [(fit, fit.test) for fit in fits] for name, fits in models.items()})


def best_on_validation_rows(models: Mapping[str, Sequence[FoldFit]]) -> str:
    """The same on the validation rows."""
    return _best({name: [(fit, fit.validation) for fit in fits] for name, fits in models.items()})


def _best(parts: Mapping[str, Sequence[tuple[FoldFit, ScoredRows]]]) -> str:
    scores = {
        name: average_precision(
            np.concatenate([fit.fold.y[scored.rows] for fit, scored in folds]),
            np.concatenate([scored.probability for _, scored in folds]),
        )
        for name, folds in parts.items()
    }
    return max(scores, key=lambda name: np.nan_to_num(scores[name], nan=-1.0))


def choose(candidate: ModelResult, best_baseline: str, requested: Sequence[ModelResult] = ()) -> Choice:
    """The ``candidate``, the best of the requested models, or the best baseline if the rule is not met.

    A learned model is chosen if the pooled test rows hold at least ``LEAST_EVENTS`` separate spike events, the interval
    of its gain in PR-AUC over the best baseline excludes zero, and the final block does not contradict it. The final
    block contradicts a gain if its own interval is entirely below zero, or if the loss there is greater than the gain.
    A baseline, if no learned model was requested, needs no evidence. If none of the ``requested`` models gains
    anything, the reason names the one that loses least.
    """
    name = candidate.model
    if is_baseline(name):
        return Choice(name, "the best of the requested baselines")
    nearest = max(
        (model for model in (candidate, *requested) if model.model != best_baseline and not isnan(model.pooled.gain)),
        key=lambda model: model.pooled.gain,
        default=candidate,
    )
    if nearest.pooled.gain <= 0.0:
        gain = nearest.pooled.gain
        return Choice(best_baseline, f"no model is better on these rows (nearest: {nearest.model}, {gain:+.3f})")
    objection = _objection(candidate.pooled, candidate.final)
    if objection is not None:
        return Choice(best_baseline, f"{name}'s {objection}")
    pooled = candidate.pooled
    return Choice(
        name,
        f"its gain over {pooled.baseline_name} is {_describe(pooled)} with {pooled.spike_events} separate spike "
        "events, and the final block does not contradict it",
    )


def _objection(pooled: Comparison, final: Comparison) -> str | None:
    """The condition that is not met; None if all are."""
    if isnan(pooled.gain):
        return "gain is undefined: the test rows are of one class"
    gain = f"gain {_describe(pooled)}"
    if pooled.gain <= 0.0:
        return f"{gain} is not above zero"
    if pooled.spike_events < LEAST_EVENTS:
        return f"{gain} rests on {pooled.spike_events} separate spike event(s), {LEAST_EVENTS} are needed"
    if not pooled.gain_intervals["pr_auc"].low > 0.0:
        return f"{gain} does not exclude zero"
    if final.gain_intervals["pr_auc"].high < 0.0 or final.gain < -pooled.gain:
        return f"{gain} is contradicted by the final block: {_describe(final)}"
    return None


def _describe(compared: Comparison) -> str:
    interval = compared.gain_intervals["pr_auc"]
    between = "no interval" if isnan(interval.low) else f"{interval.low:+.3f} … {interval.high:+.3f}"
    return f"{compared.gain:+.3f} ({between})"
