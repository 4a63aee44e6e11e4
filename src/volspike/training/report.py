"""The report of a training run: results per fold and per model, and the warnings a reader needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from volspike.evaluation import Comparison
    from volspike.training.request import TrainingRequest
    from volspike.training.search import SearchResult

STRATIFIED_WARNING: Final = (
    "STRATIFIED SPLIT: NO EVIDENCE OF SKILL. Its training and test rows overlap in time, so that the test leaks into "
    "training: on pure noise such a split scores PR-AUC 0.92-0.95, an honest one the base rate (0.10). "
    "Evaluate with --split-method walk_forward or time_based."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldResult:
    """One fold of one model: its rows, its own τ and threshold, and the comparison with the baseline on its test rows.

    ``block`` describes the test rows; where ``is_final``, they can only overrule a choice. ``threshold_name`` is the
    requested threshold or its substitute. ``learned_rows`` of the training rows were used for fitting.
    ``left_out_rows`` of the three parts lack a value the model needs, ``unscored_rows`` of the compared test rows. Only
    the final fold's ``comparison`` has intervals.
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
    unscored_rows: int
    comparison: Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResult:
    """One model compared with the best baseline on the same test rows, and the files written.

    ``pooled`` joins the test rows of the selection folds, each scored by its own fold's model under that fold's τ and
    threshold; ``final`` covers the final block, where another baseline may be best. With a single fold both are the
    same. ``artifact`` and ``plots`` are None and empty for a baseline that was neither requested nor the best.
    ``export_difference`` is the largest difference between the ONNX graph and the trained model. ``thresholds``,
    ``tau`` and ``importance`` belong to the final fold, whose model is served. ``limitations`` say that
    its threshold is degenerate.
    """

    model: str
    is_baseline: bool
    artifact: Path | None
    plots: tuple[Path, ...]
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    settings: Mapping[str, Any]
    search: SearchResult
    thresholds: dict[str, float]
    threshold_name: str
    tau: float
    pooled: Comparison
    final: Comparison
    folds: tuple[FoldResult, ...]
    importance: dict[str, float]
    export_difference: float
    seconds: float
    limitations: tuple[str, ...] = ()

    @property
    def unscored_rows(self) -> int:
        """The number of rows of ``pooled`` that it could not score."""
        return unscored_rows(self.folds)


def unscored_rows(folds: Sequence[FoldResult]) -> int:
    """The number of test rows without a score in the selection folds; in the only fold, if there is one."""
    return sum(fold.unscored_rows for fold in (folds[:-1] or folds))


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingReport:
    """All models of a run, and the ``warnings`` a reader of its metrics needs.

    ``baselines`` were trained for comparison without being requested. ``best_baseline`` has the greatest PR-AUC of all
    baselines on the pooled test rows, ``final_baseline`` on the final block; with a single fold both are the same.
    ``chosen`` is the model to use and ``reason`` the reason (see ``selection.choose``). ``promoted`` is the folder that
    it was promoted to, filled in by the caller that promoted it.
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
    models: tuple[ModelResult, ...]
    baselines: tuple[ModelResult, ...]
    best_baseline: str
    final_baseline: str
    chosen: str
    reason: str
    promoted: Path | None = None

    def result(self, name: str) -> ModelResult:
        """The result of a model or baseline."""
        return next(result for result in (*self.models, *self.baselines) if result.model == name)


def collect_warnings(models: Sequence[ModelResult], request: TrainingRequest) -> list[str]:
    """Warnings of undefined metrics, substituted thresholds, and rows and columns with missing values.

    A sentence that applies to several models names them all.
    """
    models_by_warning: dict[str, list[str]] = {}
    for model in models:
        for sentence in _model_warnings(model, request):
            models_by_warning.setdefault(sentence, []).append(model.model)
    shared = [f"{', '.join(names)}: {sentence}" for sentence, names in models_by_warning.items()]
    return [*shared, *_left_out_columns(models)]


def _model_warnings(model: ModelResult, request: TrainingRequest) -> Iterator[str]:
    metrics = model.pooled.model
    if metrics.base_rate in (0.0, 1.0):
        yield (
            f"of {metrics.rows:,} test rows {metrics.tp + metrics.fn:,} are spikes, so that PR-AUC and ROC-AUC are "
            "undefined and no curve is drawn: record for longer, or use other folds"
        )
    elif not model.pooled.is_judgeable:
        yield (
            f"all {metrics.tp + metrics.fn:,} spikes of the test rows belong to {model.pooled.spike_events} spike "
            "event(s), too few for any conclusion: record for longer"
        )
    yield from model.limitations
    if substituted := [fold for fold in model.folds if fold.threshold_name != request.threshold]:
        yield (
            f"in fold {', '.join(str(fold.fold) for fold in substituted)} no threshold satisfies {request.threshold} "
            "on the validation rows (they hold no spike, or score it lowest); "
            f"{' or '.join(sorted({fold.threshold_name for fold in substituted}))} is used instead"
        )
    if uncalibrated := [str(fold.fold) for fold in model.folds if fold.calibration != request.calibration]:
        yield f"not calibrated in fold {', '.join(uncalibrated)}, whose validation rows hold one class only"
    if model.search.warning:
        yield model.search.warning
    if rows := sum(fold.left_out_rows for fold in model.folds):
        yield (
            f"{rows:,} rows of all folds lack a value: training leaves them out, test rows get the lowest score, and "
            "their spikes count as missed"
        )


def _left_out_columns(models: Sequence[ModelResult]) -> Iterator[str]:
    """One sentence for all models that exclude the same columns."""
    for columns in dict.fromkeys(model.left_out for model in models if model.left_out):
        names = [model.model for model in models if model.left_out == columns]
        verb = "exclude" if len(names) > 1 else "excludes"
        yield f"{', '.join(names)} {verb} {', '.join(columns)}: too few values in the training rows"
