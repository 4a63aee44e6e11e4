"""One model on one fold: fit, export to ONNX, verify, calibrate, choose thresholds, score.

Thresholds and metrics come from the calibrated probabilities of the verified ONNX graph, which is what is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from volspike.datasets import Dataset
from volspike.errors import ArtifactCorrupt, ModelError, NotEnoughData, PluginFailed, SchemaMismatch
from volspike.evaluation.scored import BLOCK_S
from volspike.evaluation.thresholds import BEST_F1, RATE_10, chosen_thresholds
from volspike.labels import TAU, TRAILING_HOUR, SpikeKind
from volspike.market import SECOND_NS
from volspike.models import DETECTORS, Detector
from volspike.models.calibration import CALIBRATIONS, Calibration
from volspike.models.detector import as_float32, is_complete
from volspike.models.scorer import Scorer
from volspike.training.folds import Fold, TrainingData

TOLERANCE: Final = 1e-5
"""Largest accepted difference between the probabilities of an ONNX graph and of the model it was exported from."""

MOSTLY_KNOWN: Final = 0.8
"""The share of values, relative to the column with the most, below which a column is left out of a model that needs
every value."""

_CHUNK: Final = 10_000
"""Rows in which values are counted at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class ScoredRows:
    """All rows of a part whose last minute's volatility is known, the same for every model, and their probabilities.

    Where ``is_scored`` is false, the row lacks a value that the model needs. Its probability is half the lowest of the
    part, or half the threshold if that is less: it ranks last, is never flagged, and its spike counts as missed.
    """

    rows: NDArray[np.int64]
    probability: NDArray[np.float64]
    is_scored: NDArray[np.bool_]

    @property
    def unscored(self) -> int:
        """The number of rows that the model cannot score."""
        return int(np.count_nonzero(~self.is_scored))


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FoldFit:
    """A model fitted on a fold: its graph, columns, thresholds and scored rows.

    ``left_out`` are columns without a value in the fold's training rows; ``left_out_rows`` counts the training,
    validation and test rows that lack a value the model needs. ``calibration`` is the one applied: ``none`` where the
    validation rows hold one class only.
    """

    model: str
    fold: Fold
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    left_out_rows: int
    settings: Mapping[str, Any]
    export: Export
    calibration: str
    thresholds: dict[str, float]
    threshold_name: str
    importance: dict[str, float]
    validation: ScoredRows
    test: ScoredRows

    @property
    def threshold(self) -> float:
        """The threshold that is evaluated and served."""
        return self.thresholds[self.threshold_name]


def fit_fold(name: str, data: TrainingData, fold: Fold, settings: Mapping[str, Any]) -> FoldFit:
    """Fit detector ``name`` with ``settings`` on those of its columns that have values in the fold's training rows.

    Raises:
        NotEnoughData: no validation or no test row can be scored.
        SchemaMismatch: the detector lacks columns that it needs.
        ModelError: the ONNX graph differs from the trained model.
    """
    dataset, request = data.dataset, data.request
    features, left_out = select_columns(name, data, fold)
    sample = fold.fit_rows.sample(dataset, features, fold.y, fold.tau)
    detector = DETECTORS[name](seed=request.seed, settings=settings).fit(sample)
    usable = len(sample) if detector.accepts_missing else int(is_complete(as_float32(sample.x)).sum())
    unused = len(sample) - usable
    importance = detector.feature_importance(features)
    del sample
    x = dataset.inputs(features, fold.tau, np.concatenate([fold.validation, fold.test]))
    raw = export_detector(detector, x)
    calibration, calibration_name = _fit_calibration(request.calibration, dataset, fold, raw)
    export = export_calibrated(detector, raw, calibration, x)
    probability = dict(zip(("validation", "test"), np.split(export.probability, [len(fold.validation)]), strict=True))
    _check_scores(name, fold, probability)
    known = np.isfinite(probability["validation"])
    rows = fold.validation[known]
    thresholds = chosen_thresholds(
        fold.y[rows], probability["validation"][known], dataset.time[rows], dataset.product[rows], request.threshold
    )
    for own_name, own in detector.thresholds().items():
        thresholds[own_name] = float(calibration.apply(np.array([own]))[0])
    threshold_name = served_threshold_name(thresholds, request.threshold)
    validation, test = (
        _score_rows(dataset, getattr(fold, part), scores, thresholds[threshold_name])
        for part, scores in probability.items()
    )
    return FoldFit(
        model=name,
        fold=fold,
        features=features,
        left_out=left_out,
        left_out_rows=unused + int(np.count_nonzero(np.isnan(export.probability))),
        settings=dict(settings),
        export=export,
        calibration=calibration_name,
        thresholds=thresholds,
        threshold_name=threshold_name,
        importance=importance,
        validation=validation,
        test=test,
    )


def served_threshold_name(thresholds: Mapping[str, float], requested: str) -> str:
    """The requested threshold; if it does not exist, ``best_f1``, and without that ``rate_10``."""
    if requested in thresholds:
        return requested
    return BEST_F1 if BEST_F1 in thresholds else RATE_10


def select_columns(name: str, data: TrainingData, fold: Fold) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns a detector uses, and those it would use if they had enough values in the fold's training rows.

    Raises:
        NotEnoughData: none of the offered columns has a value.
        SchemaMismatch: the columns that have values are not enough for the detector.
    """
    dataset, offered = data.dataset, data.offered_columns(name)
    wanted = DETECTORS[name].columns(offered)
    filled = _filled_columns(dataset, fold, offered, mostly=not DETECTORS[name].accepts_missing)
    if wanted and not filled:
        raise NotEnoughData(f"none of the columns {', '.join(offered)} has a value in the training rows")
    features = DETECTORS[name].columns(filled)
    if not features:
        raise SchemaMismatch(
            f"{data.request.features} has no columns that {name} can use",
            remedy="featurize with a wider feature set (`volspike replay --help`), or train another model",
        )
    if TAU in features and data.spike.kind is SpikeKind.JUMP and TRAILING_HOUR not in features:
        features = (TRAILING_HOUR, *features)  # clients of the model send it, so that τ is known
    return features, tuple(column for column in wanted if column not in filled)


def _filled_columns(dataset: Dataset, fold: Fold, offered: Sequence[str], *, mostly: bool) -> tuple[str, ...]:
    """The columns with a value in the fold's training rows; ``mostly``: with nearly as many as the one with the most.

    A detector that needs every value would otherwise lose all rows of the first day to a column of the day before.
    """
    rows = fold.fit_rows.rows
    counts = np.zeros(len(dataset.names), np.int64)
    for start in range(0, len(rows), _CHUNK):
        counts += np.isfinite(dataset.x[rows[start : start + _CHUNK]]).sum(axis=0)
    least = max(1.0, MOSTLY_KNOWN * float(counts.max(initial=0))) if mostly else 1.0
    known = {name for name, count in zip(dataset.names, counts.tolist(), strict=True) if count >= least}
    return tuple(column for column in offered if column == TAU or column in known)


def _fit_calibration(requested: str, dataset: Dataset, fold: Fold, raw: Export) -> tuple[Calibration, str]:
    """The calibration fitted on the scored validation rows, and its name."""
    probability = raw.probability[: len(fold.validation)]
    known = np.isfinite(probability)
    rows = fold.validation[known]
    y = fold.y[rows]
    name = requested if 0 < int(y.sum()) < len(y) else "none"
    return CALIBRATIONS[name].fit(probability[known], y, _block_weights(dataset, rows)), name


def _block_weights(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights that make the rows of one bootstrap block count as one observation."""
    block = dataset.time[rows] // round(BLOCK_S * SECOND_NS)
    _, code, count = np.unique(block, return_inverse=True, return_counts=True)
    weight: NDArray[np.float64] = 1.0 / count[code]
    return weight


def _check_scores(name: str, fold: Fold, probability: Mapping[str, NDArray[np.float64]]) -> None:
    """Raises:
    NotEnoughData: no validation row or no test row can be scored.
    """
    counts = {part: int(np.count_nonzero(np.isfinite(scores))) for part, scores in probability.items()}
    if not all(counts.values()):
        raise NotEnoughData(
            f"{name}, fold {fold.number}: only {counts['validation']:,} of {len(fold.validation):,} validation rows "
            f"and {counts['test']:,} of {len(fold.test):,} test rows are complete; leave out the columns with missing "
            "values (--columns), or train a model that accepts them (xgboost)"
        )


def _score_rows(
    dataset: Dataset, rows: NDArray[np.int64], probability: NDArray[np.float64], threshold: float
) -> ScoredRows:
    """The rows of a part, given the probability of each (NaN: none)."""
    compared = np.isfinite(dataset.persistence[rows])
    rows, probability = rows[compared], probability[compared]
    is_scored = np.isfinite(probability)
    lowest = min(float(np.min(probability[is_scored], initial=np.inf)), threshold) / 2.0
    return ScoredRows(rows, np.where(is_scored, probability, lowest), is_scored)


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """An ONNX graph, its probabilities for the rows it was verified on, and its largest difference on them."""

    graph: ModelProto
    probability: NDArray[np.float64]
    difference: float


def export_detector(detector: Detector, x: NDArray[np.float64]) -> Export:
    """The ONNX graph of a trained ``detector``, equal to it within ``TOLERANCE`` on every row of ``x`` (n, f).

    Raises:
        ModelError: the graph differs, or disagrees on which rows can be scored; the row is named.
    """
    graph = detector.to_onnx()
    scores = _score_graph(detector, graph, x)
    difference = _largest_difference(f"the ONNX graph of {detector.title}", scores, detector.probability(x), x)
    return Export(graph, scores, difference)


def export_calibrated(detector: Detector, raw: Export, calibration: Calibration, x: NDArray[np.float64]) -> Export:
    """The graph of ``raw`` followed by ``calibration``, verified on the same rows ``x``.

    Raises:
        ModelError: the graph differs from the calibration; the row is named.
    """
    graph = calibration.append_to(raw.graph)
    scores = _score_graph(detector, graph, x)
    expected = calibration.apply(raw.probability)
    difference = _largest_difference(f"the calibrated ONNX graph of {detector.title}", scores, expected, x)
    return Export(graph, scores, max(raw.difference, difference))


def _score_graph(detector: Detector, graph: ModelProto, x: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        scorer = Scorer(graph.SerializeToString(), width=x.shape[1], accepts_missing=detector.accepts_missing)
    except (ArtifactCorrupt, AttributeError) as error:
        if not detector.origin:
            raise
        raise PluginFailed(
            f"the model {detector.title} returned from to_onnx {error}; no artifact was written"
        ) from error
    return scorer.probability(x)


def _largest_difference(
    graph: str, scores: NDArray[np.float64], expected: NDArray[np.float64], x: NDArray[np.float64]
) -> float:
    difference = np.abs(scores - expected)
    agrees = (difference <= TOLERANCE) | (np.isnan(scores) & np.isnan(expected))
    if not agrees.all():
        row = int(np.flatnonzero(~agrees)[0])
        raise ModelError(
            f"{graph} gives {scores[row]:.9g} instead of {expected[row]:.9g} at row {row} of {len(x):,} "
            f"({x[row].tolist()}); no artifact was written"
        )
    return float(np.nanmax(difference, initial=0.0))
