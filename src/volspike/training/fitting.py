"""A detector's ONNX form, checked row by row against the library that trained it, before and after calibration.

One model on one fold: fitted, exported, calibrated, given its thresholds, and scored on the fold's test rows.

What is judged is what would be served: thresholds and figures come from the ONNX form's calibrated probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from volspike.datasets import Dataset
from volspike.errors import ModelError, NotEnoughData, SchemaMismatch
from volspike.evaluation.scored import BLOCK_S
from volspike.evaluation.thresholds import BEST_F1, RATE_10, named_thresholds
from volspike.market import SECOND_NS
from volspike.models import DETECTORS, Detector
from volspike.models.calibration import CALIBRATIONS, Calibration
from volspike.models.detector import as_single, is_complete
from volspike.models.scorer import Scorer
from volspike.training.folds import Fold, Material, values

TOLERANCE: Final = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """The graph, what it gives for the rows that it was checked on, and its largest difference there."""

    graph: ModelProto
    probability: NDArray[np.float64]
    difference: float


def verified_export(detector: Detector, x: NDArray[np.float64]) -> Export:
    """The graph of a trained ``detector``, having agreed with it on every row of ``x`` (n, f) to 1e-5.

    Raises:
        ModelError: it did not, or the two disagree on which rows can be scored; the row is named.
    """
    graph = detector.to_onnx()
    served = _scored(detector, graph, x)
    return Export(graph, served, _difference(f"the ONNX form of {detector.name}", served, detector.probability(x), x))


def calibrated_export(detector: Detector, raw: Export, calibration: Calibration, x: NDArray[np.float64]) -> Export:
    """The graph of ``raw`` with ``calibration`` at its end, checked on the same rows ``x``.

    Raises:
        ModelError: the two disagree; the row is named.
    """
    graph = calibration.append_to(raw.graph)
    served = _scored(detector, graph, x)
    wanted = calibration.apply(raw.probability)
    difference = _difference(f"the calibrated ONNX form of {detector.name}", served, wanted, x)
    return Export(graph, served, max(raw.difference, difference))


def _scored(detector: Detector, graph: ModelProto, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return Scorer(graph.SerializeToString(), width=x.shape[1], accepts_missing=detector.accepts_missing).probability(x)


def _difference(what: str, served: NDArray[np.float64], trained: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    difference = np.abs(served - trained)
    agrees = (difference <= TOLERANCE) | (np.isnan(served) & np.isnan(trained))
    if not agrees.all():
        row = int(np.flatnonzero(~agrees)[0])
        raise ModelError(
            f"{what} gives {served[row]:.9g} where the trained model gives {trained[row]:.9g}, at row {row} of "
            f"{len(x):,} ({x[row].tolist()}); nothing was written"
        )
    return float(np.nanmax(difference, initial=0.0))


_LOOKED_AT: Final = 10_000
"""Rows at a time: nearly every column holds a value in the first of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The rows of a part that could be scored, and their probabilities."""

    rows: NDArray[np.int64]
    probability: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Fitted:
    """A model fitted on a fold: its graph, columns, thresholds, and its scored rows.

    ``left_out`` are columns that hold nothing in the fold's training rows; ``left_out_rows`` counts the rows of
    all three parts that could not be used because they miss a value. ``calibration`` is what was put on, which is
    ``none`` where the validation rows are of one class.
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
    validation: Part
    test: Part

    @property
    def threshold(self) -> float:
        """The threshold that is judged and served."""
        return self.thresholds[self.threshold_name]


def fit(name: str, material: Material, fold: Fold, settings: Mapping[str, Any]) -> Fitted:
    """Detector ``name`` with these ``settings``, fitted on its columns that hold anything in the fold's training rows.

    Raises:
        NotEnoughData: no validation or test row can be scored.
        SchemaMismatch: the detector needs columns that are not there.
        ModelError: the ONNX form differs from the trained model.
    """
    dataset, request = material.dataset, material.request
    features, left_out = taken_columns(name, material, fold)
    sample = fold.learned.sample(dataset, features, fold.y, fold.tau)
    detector = DETECTORS[name](seed=request.seed, settings=settings).fit(sample)
    usable = len(sample) if detector.accepts_missing else int(is_complete(as_single(sample.x)).sum())
    unused = len(sample) - usable
    importance = dict(zip(features, detector.importance().tolist(), strict=True))
    del sample
    x = values(dataset, np.concatenate([fold.validation, fold.test]), features)
    raw = verified_export(detector, x)
    calibration, calibrated_by = _calibration(request.calibration, dataset, fold, raw)
    export = calibrated_export(detector, raw, calibration, x)
    validation, test = _scored_parts(dataset, fold, export.probability, name)
    thresholds = _thresholds(dataset, fold, validation, request.threshold) | _own_thresholds(detector, calibration)
    return Fitted(
        model=name,
        fold=fold,
        features=features,
        left_out=left_out,
        left_out_rows=unused + len(x) - len(validation.rows) - len(test.rows),
        settings=dict(settings),
        export=export,
        calibration=calibrated_by,
        thresholds=thresholds,
        threshold_name=served_name(thresholds, request.threshold),
        importance=importance,
        validation=validation,
        test=test,
    )


def served_name(thresholds: Mapping[str, float], asked: str) -> str:
    """The threshold asked for, or what stands in where it does not exist."""
    return asked if asked in thresholds else RATE_10 if asked == BEST_F1 or BEST_F1 not in thresholds else BEST_F1


def taken_columns(name: str, material: Material, fold: Fold) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns that a detector takes of those that hold a value in the fold's training rows, and those without any.

    Raises:
        NotEnoughData: none of those offered holds a value.
        SchemaMismatch: the detector cannot do with those that do.
    """
    dataset, offered = material.dataset, material.offered(name)
    wanted = DETECTORS[name].columns(offered)
    told = tuple(column for column in offered if _has_values(dataset, fold, column))
    if wanted and not told:
        raise NotEnoughData(f"none of the columns {', '.join(offered)} holds a value in the training rows")
    features = DETECTORS[name].columns(told)
    if not features:
        raise SchemaMismatch(
            f"{material.request.features} has no columns that {name} can do with",
            remedy="featurize with a wider feature set (`volspike replay --help`), or train another model",
        )
    return features, tuple(column for column in wanted if column not in told)


def _has_values(dataset: Dataset, fold: Fold, column: str) -> bool:
    rows, place = fold.learned.rows, dataset.names.index(column)
    parts = (rows[start : start + _LOOKED_AT] for start in range(0, len(rows), _LOOKED_AT))
    return any(np.isfinite(dataset.x[part, place]).any() for part in parts)


def _calibration(asked: str, dataset: Dataset, fold: Fold, raw: Export) -> tuple[Calibration, str]:
    """Fitted on the validation rows that could be scored; none where those are of one class."""
    probability = raw.probability[: len(fold.validation)]
    known = np.isfinite(probability)
    rows = fold.validation[known]
    y = fold.y[rows]
    name = asked if 0 < int(y.sum()) < len(y) else "none"
    return CALIBRATIONS[name].fit(probability[known], y, _independence(dataset, rows)), name


def _independence(dataset: Dataset, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights by which the rows of ten minutes, as a block of the bootstrap is long, are one observation."""
    block = dataset.time[rows] // round(BLOCK_S * SECOND_NS)
    _, code, count = np.unique(block, return_inverse=True, return_counts=True)
    weight: NDArray[np.float64] = 1.0 / count[code]
    return weight


def _scored_parts(dataset: Dataset, fold: Fold, probability: NDArray[np.float64], name: str) -> tuple[Part, Part]:
    """The validation and the test part; ``probability`` is of their rows, one part after the other."""
    parts = []
    for rows, given in zip((fold.validation, fold.test), np.split(probability, [len(fold.validation)]), strict=True):
        known = np.isfinite(given) & np.isfinite(dataset.persistence[rows])
        parts.append(Part(rows[known], given[known]))
    validation, test = parts
    if not len(validation.rows) or not len(test.rows):
        raise NotEnoughData(
            f"{name}, fold {fold.number}: {len(validation.rows):,} of {len(fold.validation):,} validation rows and "
            f"{len(test.rows):,} of {len(fold.test):,} test rows miss no value; "
            "leave out the columns that miss values, or take a model that accepts them (xgboost)"
        )
    return validation, test


def _thresholds(dataset: Dataset, fold: Fold, validation: Part, asked: str) -> dict[str, float]:
    rows = validation.rows
    return named_thresholds(fold.y[rows], validation.probability, dataset.time[rows], dataset.product[rows], asked)


def _own_thresholds(detector: Detector, calibration: Calibration) -> dict[str, float]:
    """Thresholds that belong to the detector, as they read once it is calibrated."""
    return {name: float(calibration.apply(np.array([own]))[0]) for name, own in detector.thresholds().items()}
