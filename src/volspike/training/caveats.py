"""What whoever reads a model's figures has to know, as sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from volspike.training.report import ModelReport
from volspike.training.request import TrainingRequest


def caveats(models: Sequence[ModelReport], request: TrainingRequest) -> list[str]:
    """What could not be judged, what stands in for what was asked for, and what was left out for want of values."""
    named: dict[str, list[str]] = {}
    for model in models:
        for sentence in _of_one(model, request):
            named.setdefault(sentence, []).append(model.model)
    return [*(f"{', '.join(names)}: {sentence}" for sentence, names in named.items()), *_left_out(models)]


def _of_one(model: ModelReport, request: TrainingRequest) -> Iterator[str]:
    figures = model.pooled.model
    if figures.base_rate in (0.0, 1.0):
        yield (
            f"of {figures.rows:,} test rows {figures.tp + figures.fn:,} are spikes, so that "
            "areas are undefined and no curve is drawn: record for longer, or judge on other folds"
        )
    elif not model.pooled.is_judgeable:
        yield (
            f"all {figures.tp + figures.fn:,} spikes of the test rows are "
            f"{model.pooled.spike_events} event(s): figures and intervals say next to nothing; record for longer"
        )
    if helpless := [fold for fold in model.folds if fold.threshold_name != request.threshold]:
        yield (
            f"in fold {', '.join(str(fold.fold) for fold in helpless)} no threshold does what "
            f"{request.threshold} asks for on the validation rows (they hold no spike, or score it lowest), so "
            f"{' or '.join(sorted({fold.threshold_name for fold in helpless}))} stands in"
        )
    if bare := [str(fold.fold) for fold in model.folds if fold.calibration != request.calibration]:
        yield f"in fold {', '.join(bare)} the validation rows are of one class, so nothing calibrates it"
    if model.search.told:
        yield model.search.told
    if rows := sum(fold.left_out_rows for fold in model.folds):
        yield f"{rows:,} rows could not be used, summed over folds: they miss a value"


def _left_out(models: Sequence[ModelReport]) -> Iterator[str]:
    """Once for all models that do without the same columns."""
    for columns in dict.fromkeys(model.left_out for model in models if model.left_out):
        names = ", ".join(model.model for model in models if model.left_out == columns)
        without = "do" if ", " in names else "does"
        yield f"{names} {without} without {', '.join(columns)}: no value in any training row"
