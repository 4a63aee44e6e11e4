"""One model on one fold: fitted, exported, given its thresholds, and scored on the fold's test rows.

What is judged is what would be served: thresholds and figures come from the ONNX form's probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData
from volspike.evaluation import Comparison, best_f1_threshold, compare, rate_threshold
from volspike.models import DETECTORS
from volspike.models.rows import as_single, is_complete
from volspike.training.export import Export, verified_export
from volspike.training.folds import Fold

BEST_F1 = "best_f1"
RATE_10 = "rate_10"
"""What is served where no threshold catches a spike of the validation rows: the one that calls 10 % of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Test rows that could be scored: outcomes, the two scores, the thresholds of their fold, and time (ns).

    ``persistence`` is last-60-s volatility over the fold's τ, so that folds can be put together: 1 means that
    the last minute was itself a spike.
    """

    y: NDArray[np.int8]
    probability: NDArray[np.float64]
    persistence: NDArray[np.float64]
    threshold: NDArray[np.float64]
    persistence_threshold: NDArray[np.float64]
    time: NDArray[np.int64]

    def comparison(self, seed: int) -> Comparison:
        """The figures of model and persistence on these rows."""
        return compare(
            self.y,
            self.probability,
            self.persistence,
            self.time,
            threshold=self.threshold,
            persistence_threshold=self.persistence_threshold,
            seed=seed,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A model fitted on a fold: its graph, columns, thresholds, and its test rows.

    ``left_out`` are columns that hold nothing in the fold's training rows; ``left_out_rows`` counts the rows of
    all three parts that could not be used because they miss a value.
    """

    fold: Fold
    features: tuple[str, ...]
    left_out: tuple[str, ...]
    left_out_rows: int
    export: Export
    thresholds: dict[str, float]
    importance: dict[str, float]
    judged: Judged

    @property
    def served_threshold(self) -> str:
        """The name of the threshold that is judged and served."""
        return BEST_F1 if BEST_F1 in self.thresholds else RATE_10


def fit(name: str, dataset: Dataset, columns: tuple[str, ...], fold: Fold, seed: int) -> Fitted:
    """Detector ``name`` fitted on those ``columns`` that hold anything in the fold's training rows.

    Raises:
        NotEnoughData: no validation or test row can be scored.
        ModelError: the ONNX form differs from the trained model.
    """
    features = _columns_with_values(dataset, columns, fold)
    x = dataset.columns(features)
    detector = DETECTORS[name](seed=seed).fit(x[fold.train], fold.y[fold.train])
    export = verified_export(detector, x[np.concatenate([fold.validation, fold.test])])
    validation, test = _scored_parts(dataset, fold, export.probability, name)
    best = best_f1_threshold(fold.y[validation.rows], validation.probability)
    rate = rate_threshold(validation.probability, 0.10)
    chosen = {RATE_10: rate} if best is None else {BEST_F1: best, RATE_10: rate}
    usable = len(fold.train) if detector.accepts_missing else int(is_complete(as_single(x[fold.train])).sum())
    rows = len(fold.train) + len(fold.validation) + len(fold.test)
    return Fitted(
        fold=fold,
        features=features,
        left_out=tuple(column for column in columns if column not in features),
        left_out_rows=rows - usable - len(validation.rows) - len(test.rows),
        export=export,
        thresholds=chosen | detector.thresholds(),
        importance=dict(zip(features, detector.importance().tolist(), strict=True)),
        judged=_judged(dataset, fold, validation, test, rate if best is None else best),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The rows of a part that have both scores, and the model's."""

    rows: NDArray[np.int64]
    probability: NDArray[np.float64]


def _columns_with_values(dataset: Dataset, columns: tuple[str, ...], fold: Fold) -> tuple[str, ...]:
    x = as_single(dataset.columns(columns)[fold.train])
    has_values = np.logical_not(np.isnan(x).all(axis=0))
    features = tuple(column for column, told in zip(columns, has_values, strict=True) if told)
    if not features:
        raise NotEnoughData(f"none of the columns {', '.join(columns)} holds a value in the training rows")
    return features


def _scored_parts(dataset: Dataset, fold: Fold, probability: NDArray[np.float64], name: str) -> tuple[_Part, _Part]:
    """The validation and the test part; ``probability`` is of their rows, one part after the other."""
    parts = []
    for rows, given in zip((fold.validation, fold.test), np.split(probability, [len(fold.validation)]), strict=True):
        known = np.isfinite(given) & np.isfinite(dataset.persistence[rows])
        parts.append(_Part(rows[known], given[known]))
    validation, test = parts
    if not len(validation.rows) or not len(test.rows):
        raise NotEnoughData(
            f"{name}, fold {fold.number}: {len(validation.rows):,} of {len(fold.validation):,} validation rows and "
            f"{len(test.rows):,} of {len(fold.test):,} test rows miss no value; "
            "leave out the columns that miss values, or take a model that accepts them (xgboost)"
        )
    return validation, test


def _judged(dataset: Dataset, fold: Fold, validation: _Part, test: _Part, threshold: float) -> Judged:
    persistence = dataset.persistence / fold.tau
    best = best_f1_threshold(fold.y[validation.rows], persistence[validation.rows])
    own = rate_threshold(persistence[validation.rows]) if best is None else best
    return Judged(
        y=fold.y[test.rows],
        probability=test.probability,
        persistence=persistence[test.rows],
        threshold=np.full(len(test.rows), threshold),
        persistence_threshold=np.full(len(test.rows), own),
        time=dataset.time[test.rows],
    )


def pooled(parts: Sequence[Judged]) -> Judged:
    """The test rows of several folds put together, each with its own fold's thresholds."""
    return Judged(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Judged)}
    )
