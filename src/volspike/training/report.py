"""What a training run found, for people to read, for the command line to print and for a tracker to log.

All that was found of one model on rows that it had not seen, and how an artifact keeps it.

What whoever reads a model's figures has to know, as sentences.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from volspike.evaluation import Comparison, Part
from volspike.evaluation.metrics import known
from volspike.models.metadata import Figure, FoldFigures, PartFigures
from volspike.training.request import TrainingRequest
from volspike.training.search import Search


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldReport:
    """One fold of one model: its rows, its own τ and threshold, and the figures on its test rows.

    ``block`` names the test rows, which no choice has looked at where ``is_final``. ``threshold_name`` is the threshold
    that was asked for, or what stands in where it does not exist. ``learned_rows`` of the training rows were learned
    from; ``left_out_rows`` of those, the validation and the test rows missed a value that the model needs. Only the
    final fold's ``comparison`` has intervals.
    """

    fold: int
    block: str
    is_final: bool
    tau: float
    threshold: float
    threshold_name: str
    calibration: str
    train_rows: int
    learned_rows: int
    validation_rows: int
    test_rows: int
    left_out_rows: int
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """One model beside the best baseline, and what was written.

    In ``pooled`` the test rows of the selection folds stand together, each scored by its own fold's model and judged
    with its own fold's τ and threshold; ``final`` is the final block's, and the same where there is no other fold.
    ``artifact`` and ``plots`` are None and empty for a baseline that was not asked for. ``export_difference`` is the
    largest difference between the ONNX graph and the library that trained it; ``thresholds``, ``tau`` and
    ``importance`` are those of the final fold, which is served.
    """

    model: str
    is_baseline: bool
    artifact: Path | None
    plots: tuple[Path, ...]
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    settings: Mapping[str, Any]
    search: Search
    thresholds: dict[str, float]
    threshold_name: str
    tau: float
    pooled: Comparison
    final: Comparison
    folds: tuple[FoldReport, ...]
    importance: dict[str, float]
    export_difference: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """All models of a run; ``warnings`` are sentences that whoever reads the figures has to know.

    ``baselines`` are those that ran beside the models without having been asked for. ``best_baseline`` is the best of
    all baselines and ``chosen`` the best of ``models``, both by pooled PR-AUC over the selection folds, or over the
    validation rows where ``has_selection`` is false. ``promoted`` is the folder it was promoted to,
    filled in by the caller that promoted it.
    """

    request: TrainingRequest
    rows: int
    start: str
    end: str
    split_method: str
    fold_by: str
    embargo_s: int
    weights: str
    feature_digest: str
    simulated: bool
    products: tuple[str, ...]
    has_selection: bool
    warnings: tuple[str, ...]
    models: tuple[ModelReport, ...]
    baselines: tuple[ModelReport, ...]
    best_baseline: str
    chosen: str
    promoted: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A model beside the best baseline.

    ``pooled`` is over the test rows of the selection folds, which ``products`` and ``hours`` divide; ``final`` over the
    final block alone; ``folds`` has all of them, oldest first.
    """

    pooled: Comparison
    final: Comparison
    folds: tuple[FoldReport, ...]
    products: tuple[Part, ...]
    hours: tuple[Part, ...]

    def figures(self) -> dict[str, dict[str, Figure]]:
        """Those of the pooled rows by name, and those of the final block with ``_final`` at the end of the name."""
        return self.pooled.figures() | {f"{name}_final": told for name, told in self.final.figures().items()}


def fold_figures(folds: Sequence[FoldReport]) -> tuple[FoldFigures, ...]:
    """Each fold's PR-AUC beside the best baseline's, None where undefined."""
    return tuple(_of_fold(fold) for fold in folds)


def part_figures(parts: Sequence[Part]) -> tuple[PartFigures, ...]:
    """The figures of each part that has rows."""
    return tuple(_of_part(part) for part in parts if part.rows)


def _of_fold(fold: FoldReport) -> FoldFigures:
    judged = fold.comparison
    ours, theirs = judged.model_intervals["pr_auc"], judged.baseline_intervals["pr_auc"]
    return FoldFigures(
        fold=fold.fold,
        block=fold.block,
        is_final=fold.is_final,
        test_rows=fold.test_rows,
        tau=fold.tau,
        base_rate=known(judged.model.base_rate),
        pr_auc=known(judged.model.pr_auc),
        pr_auc_low=known(ours.low),
        pr_auc_high=known(ours.high),
        baseline_pr_auc=known(judged.baseline.pr_auc),
        baseline_pr_auc_low=known(theirs.low),
        baseline_pr_auc_high=known(theirs.high),
    )


def _of_part(part: Part) -> PartFigures:
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
