"""A training report as what a tracker takes: parameters as text, figures by name and step, tags. Nothing of MLflow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from math import isfinite
from typing import Any, NamedTuple

from volspike.evaluation import Comparison
from volspike.training.description import STRATIFIED_WARNING
from volspike.training.report import FoldReport, ModelReport, TrainingReport


class Figure(NamedTuple):
    """A number under a name, as of a step: a fold's number, 0 for what is of no fold."""

    name: str
    value: float
    step: int = 0


def figures(model: ModelReport) -> list[Figure]:
    """All that a model was measured by, as far as it is defined.

    ``fold/…`` has one step per fold, ``pooled/…`` is over the selection folds' test rows and ``final/…`` over the final
    block's; below each, ``baseline/`` stands for the best rule's and ``gain/`` for the difference. ``_low`` and
    ``_high`` are the ends of the 95 % interval.
    """
    told = [*pooled_figures(model), *_of_folds(model.folds)]
    told += [Figure(f"threshold/{name}", value) for name, value in model.thresholds.items()]
    told += [Figure("tau", model.tau), Figure("export_difference", model.export_difference)]
    told += [Figure("seconds", model.seconds)]
    told += [Figure("search/best", model.search.best), Figure("search/defaults", model.search.defaults)]
    return _defined(told)


def pooled_figures(model: ModelReport) -> list[Figure]:
    """Those of ``pooled/…`` and ``final/…`` alone."""
    return _defined([*_compared("pooled", model.pooled), *_compared("final", model.final)])


def parameters(report: TrainingReport) -> dict[str, str]:
    """What the run was asked for, as far as it was told, and what it found out about its rows."""
    asked = {field.name: getattr(report.request, field.name) for field in fields(report.request)}
    found = {
        "rows": report.rows,
        "start": report.start,
        "end": report.end,
        "products": report.products,
        "split_method": report.split_method,
        "fold_by": report.fold_by,
        "embargo_s": report.embargo_s,
        "weights": report.weights,
        "has_selection": report.has_selection,
        "feature_columns": len({name for model in report.models for name in model.features}),
    }
    return _texts(asked | found)


def model_parameters(report: TrainingReport, model: ModelReport) -> dict[str, str]:
    """How one model was made: its settings where they differ from its defaults, its columns, and how it was judged."""
    served = model.folds[-1]
    made = {
        "model": model.model,
        "feature_columns": len(model.features),
        "left_out": model.left_out,
        "calibration": served.calibration,
        "served_threshold": model.threshold_name,
        "search_trials": model.search.trials,
        "final_block": served.block,
        "folds": len(model.folds),
        "split_method": report.split_method,
        "label_percentile": report.request.label_percentile,
        "seed": report.request.seed,
    }
    return _texts({**made, **{f"settings/{name}": value for name, value in model.settings.items()}})


def tags(report: TrainingReport) -> dict[str, str]:
    """What runs and registered models are looked for by; ``warning`` only where the split is no evidence."""
    told = {
        "simulated": str(report.simulated).lower(),
        "split_method": report.split_method,
        "feature_digest": report.feature_digest,
        "products": " ".join(report.products),
        "baseline": report.best_baseline,
        "chosen": report.chosen,
    }
    return told | ({"warning": STRATIFIED_WARNING} if report.split_method == "stratified" else {})


def _of_folds(folds: tuple[FoldReport, ...]) -> Iterator[Figure]:
    for fold in folds:
        yield from (Figure(name, value, fold.fold) for name, value, _ in _compared("fold", fold.comparison))
        for name in ("tau", "threshold", "train_rows", "learned_rows", "validation_rows", "test_rows", "left_out_rows"):
            yield Figure(f"fold/{name}", getattr(fold, name), fold.fold)


def _compared(part: str, comparison: Comparison) -> Iterator[Figure]:
    baseline = comparison.baseline_name
    groups = {"model": part, baseline: f"{part}/baseline", f"{baseline}_events": f"{part}/baseline_events"}
    for group, told in comparison.figures().items():
        place = groups.get(group, f"{part}/{group}")
        yield from (Figure(f"{place}/{name}", value) for name, value in told.items() if value is not None)


def _defined(told: list[Figure]) -> list[Figure]:
    return [Figure(name, float(value), step) for name, value, step in told if isfinite(value)]


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Without those that were not told, which are None."""
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
