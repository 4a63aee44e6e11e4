"""Training data of a run: the columns, and the folds with their labels, fit rows and weights.

A τ that is a percentile comes from the fold's own training rows and is frozen for its validation and test rows; every
other τ is known at its row. Models are fitted on at most one row per second and product, because all ticks of one
second share one future; validation and test rows are never thinned out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset, Split, split
from volspike.datasets.build import row_second
from volspike.datasets.dataset import PERSISTENCE
from volspike.datasets.splits import lookback_s, resolve_fold_by
from volspike.errors import NotEnoughData, SchemaMismatch
from volspike.labels import HORIZON_S, TAU, SpikeDefinition, SpikeKind, spike_threshold, spikes
from volspike.market import format_time
from volspike.models import DETECTORS, Sample
from volspike.models.detector import as_float32
from volspike.training.request import TrainingRequest

LEAST_ROWS: Final = 500
"""Labelled rows that a training run needs."""

LEAST_KEPT: Final = 0.5
"""Share of its training rows that the final fold must keep under the longer embargo; otherwise the shorter is used."""

MOST_ROWS: Final = 400_000
"""Rows that a model is fitted on; of more seconds every second, third, … is used. Neighbouring seconds share 59 of the
60 seconds of their label, so that little is lost, and memory and time stay bounded."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingData:
    """A request with the rows, columns and folds it resolves to; ``fold_by`` is the kind of test block."""

    request: TrainingRequest
    dataset: Dataset
    columns: tuple[str, ...]
    fold_set: FoldSet
    fold_by: str

    @property
    def spike(self) -> SpikeDefinition:
        """The definition of a spike."""
        return self.request.spike_definition(self.dataset.facts)

    def offered_columns(self, model: str) -> tuple[str, ...]:
        """The columns that a model may choose from: the requested ones; for a baseline every column of the file.

        τ is one of them, the last, if it differs from row to row.
        """
        columns = self.dataset.names if is_baseline(model) else self.columns
        return (*columns, TAU) if self.spike.is_adaptive else columns


def prepare_training_data(request: TrainingRequest, dataset: Dataset) -> TrainingData:
    """The columns and folds of ``dataset`` for the request.

    Raises:
        SchemaMismatch: a requested column is missing, or the one that the persistence baseline needs.
        NotEnoughData: too few rows, or rows of one class only.
    """
    spike = request.spike_definition(dataset.facts)
    if spike.kind is not SpikeKind.PERCENTILE:
        dataset = dataset.only(np.isfinite(dataset.thresholds(spike)))
    columns = request.column_names(dataset.names)
    if PERSISTENCE not in dataset.names:
        raise SchemaMismatch(
            f"{request.features} lacks the last minute's volatility, which every model is compared with",
            missing=[PERSISTENCE],
            remedy=f"featurize with {HORIZON_S} among the windows",
        )
    fold_set = build_folds(dataset, request, _embargo_s(request, dataset, columns))
    fold_by = resolve_fold_by(dataset, request.fold_by) if request.split_method == "walk_forward" else "rows"
    return TrainingData(request, dataset, columns, fold_set, fold_by)


def is_baseline(model: str) -> bool:
    """Whether the detector is a baseline that models have to beat."""
    return DETECTORS[model].is_baseline


def baseline_names() -> tuple[str, ...]:
    """The baselines that every model is compared with."""
    built_in = ((name, DETECTORS[name]) for name in DETECTORS.built_in)
    return tuple(name for name, detector in built_in if detector.is_baseline and detector.is_always_compared)


def _embargo_s(request: TrainingRequest, dataset: Dataset, columns: tuple[str, ...]) -> int:
    """The longest look-back of any column used by a model or baseline of the run; at least the longest window."""
    used = {name for model in request.model_names() for name in DETECTORS[model].columns(columns)}
    used |= {name for model in baseline_names() for name in DETECTORS[model].columns(dataset.names)}
    return max(lookback_s(used), dataset.facts.feature_set.longest_window)


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Row indices of a split, and τ and label of every row of the data set; numbered from 1.

    ``fit_rows`` are the training rows that models are fitted on. ``is_final`` marks the newest fold, whose test rows
    (the final block) influence no choice; ``block`` describes the test rows.
    """

    number: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    tau: NDArray[np.float64]
    y: NDArray[np.int8]
    fit_rows: FitRows
    is_final: bool
    block: str

    @property
    def typical_tau(self) -> float:
        """The median τ of the training rows; τ itself where it is the same for all."""
        return float(np.median(self.tau[self.train]))


@dataclass(frozen=True, slots=True, eq=False)
class FoldSet:
    """The usable folds, oldest first, the final one last; ``warnings`` explain the folds that were left out."""

    folds: tuple[Fold, ...]
    warnings: tuple[str, ...]
    embargo_s: int

    @property
    def final(self) -> Fold:
        """The newest fold; its model is served."""
        return self.folds[-1]

    @property
    def selection(self) -> tuple[Fold, ...]:
        """The folds that models are compared on: all but the final one."""
        return self.folds[:-1]


def build_folds(dataset: Dataset, request: TrainingRequest, embargo_s: int) -> FoldSet:
    """The folds that a model can be trained and evaluated on.

    If an embargo of ``embargo_s`` would cost the final fold most of its training rows, the embargo is the longest
    window, with a warning. Labels never cross a cut in either case.

    Raises:
        NotEnoughData: under 500 rows in all, or no fold whose training rows hold both classes.
    """
    if len(dataset.time) < LEAST_ROWS:
        raise NotEnoughData(
            f"{request.features} has {len(dataset.time):,} labelled rows, training needs {LEAST_ROWS}: "
            "record for longer, or consolidate several files"
        )
    window_s = dataset.facts.feature_set.longest_window
    if embargo_s <= window_s:
        return _usable_folds(dataset, request, embargo_s)
    shorter = _usable_folds(dataset, request, window_s)
    try:
        longer = _usable_folds(dataset, request, embargo_s)
    except NotEnoughData:
        longer = None
    if longer is not None and len(longer.final.train) >= LEAST_KEPT * len(shorter.final.train):
        return longer
    warning = (
        f"embargo {window_s} s instead of {embargo_s} s, which would remove too many training rows: no label crosses a "
        "cut, but the longest windows of test rows overlap prices that training labels used; record for longer"
    )
    return FoldSet(shorter.folds, (warning, *shorter.warnings), window_s)


def _usable_folds(dataset: Dataset, request: TrainingRequest, embargo_s: int) -> FoldSet:
    splits = split(
        dataset,
        request.split_method,
        fractions=request.fractions,
        folds=request.folds,
        seed=request.seed,
        fold_by=request.fold_by,
        training=request.training,
        training_span_h=request.training_span_h,
        embargo_s=embargo_s,
    )
    newest = max(number for number, part in enumerate(splits) if not part.empty_parts)
    labelled = [
        _label_fold(dataset, part, request.spike_definition(dataset.facts), is_final=number == newest)
        for number, part in enumerate(splits)
    ]
    usable = tuple(fold for fold in labelled if isinstance(fold, Fold))
    warnings = tuple(problem for problem in labelled if isinstance(problem, str))
    if not usable or not usable[-1].is_final:
        fewer = f"use fewer --folds than {request.folds}, " if request.split_method == "walk_forward" else ""
        raise NotEnoughData(
            f"{request.features}: no training rows with both spikes and calm; {'; '.join(warnings)}; record for "
            f"longer, {fewer}or choose a --spike definition with more spikes"
        )
    return FoldSet(usable, warnings, embargo_s)


def _label_fold(dataset: Dataset, part: Split, spike: SpikeDefinition, *, is_final: bool) -> Fold | str:
    """The fold of a split, or a sentence on why it cannot be used."""
    name = f"fold {part.fold + 1}{f' ({part.block})' if part.block else ''}"
    if part.empty_parts:
        return f"{name} is left out: purge and embargo leave it no {' and no '.join(part.empty_parts)} rows"
    try:
        tau = _thresholds(dataset, part.train, spike)
    except NotEnoughData as error:
        return f"{name} is left out: {error}"
    y = spikes(dataset.future_volatility, tau)
    fit_rows = FitRows.select(dataset, part.train)
    count, total = int(np.count_nonzero(y[fit_rows.rows])), len(fit_rows.rows)
    if count in (0, total):
        times = dataset.time[part.train]
        span = f"{format_time(int(times.min()))} to {format_time(int(times.max()))}"
        return f"{name} is left out: of its {total:,} training rows ({span}) {count:,} are spikes"
    return Fold(
        part.fold + 1, part.train, part.validation, part.test, tau, y, fit_rows, is_final=is_final, block=part.block
    )


@dataclass(frozen=True, slots=True, eq=False)
class FitRows:
    """Rows that a model is fitted on, ascending, and their weights by average uniqueness."""

    rows: NDArray[np.int64]
    weight: NDArray[np.float64]

    @classmethod
    def select(cls, dataset: Dataset, rows: NDArray[np.int64], most: int = MOST_ROWS) -> Self:
        """The last of ``rows`` (ascending) in each second of each product; of over ``most``, every k-th second's."""
        second, product = row_second(dataset.time[rows], dataset.facts.every), dataset.product[rows]
        kept = last_of_each_second(second, product)
        step = ceil(len(kept) / most)
        if step > 1:
            kept = kept[second[kept] % step == 0]
        return cls(rows[kept], average_uniqueness(second[kept], product[kept], dataset.facts.horizon_s))

    def sample(self, dataset: Dataset, names: tuple[str, ...], y: NDArray[np.int8], tau: NDArray[np.float64]) -> Sample:
        """The rows as input of ``Detector.fit``; ``y`` and ``tau`` are those of every row of the data set."""
        return Sample(
            names=names,
            x=as_float32(dataset.inputs(names, tau, self.rows)),
            y=y[self.rows],
            volatility=dataset.future_volatility[self.rows],
            tau=tau[self.rows],
            weight=self.weight,
        )


def _thresholds(dataset: Dataset, train: NDArray[np.int64], spike: SpikeDefinition) -> NDArray[np.float64]:
    """τ of every row; a percentile is that of the training rows.

    Raises:
        NotEnoughData: no training row has a known future, or prices did not move.
    """
    if spike.kind is SpikeKind.PERCENTILE:
        return np.full(len(dataset), spike_threshold(dataset.future_volatility[train], spike.value))
    return dataset.thresholds(spike)


def last_of_each_second(second: NDArray[np.int64], product: NDArray[np.int32]) -> NDArray[np.int64]:
    """The position of the last row in each second of each product, ascending."""
    order = np.lexsort((second, product))
    last = np.append((np.diff(second[order]) != 0) | (np.diff(product[order]) != 0), np.ones(len(order[:1]), np.bool_))
    return np.sort(order[last])


def average_uniqueness(
    second: NDArray[np.int64], product: NDArray[np.int32], horizon: int = HORIZON_S
) -> NDArray[np.float64]:
    """Weight of each row: the mean of 1 / (labels of the product that contain a second) over its label's seconds.

    M. López de Prado, Advances in Financial Machine Learning, 2018, chapter 4.3; scaled to mean 1. The label of a row
    in second s spans the seconds s+1 … s+horizon, so that overlapping labels share their weight.

    Args:
        second: (n,) the second of each row, ascending within a product.
        product: (n,) the product of each row.
    """
    uniqueness = np.empty(len(second))
    for code in np.unique(product):
        rows = np.flatnonzero(product == code)
        uniqueness[rows] = _product_uniqueness(second[rows], horizon)
    mean = uniqueness.mean() if len(uniqueness) else 1.0
    scaled: NDArray[np.float64] = uniqueness / mean
    return scaled


def _product_uniqueness(second: NDArray[np.int64], horizon: int) -> NDArray[np.float64]:
    """Sums over intervals in which the number of open labels is constant, not over single seconds."""
    edges = np.unique(np.concatenate([second + 1, second + horizon + 1]))
    opened, closed = np.searchsorted(second + 1, edges, "right"), np.searchsorted(second + horizon + 1, edges, "right")
    length = np.diff(edges)
    concurrent = (opened - closed)[:-1]
    share = np.divide(length, concurrent, out=np.zeros(len(length)), where=concurrent > 0)
    cumulative = np.append(0.0, np.cumsum(share))
    total = cumulative[np.searchsorted(edges, second + horizon + 1)] - cumulative[np.searchsorted(edges, second + 1)]
    mean: NDArray[np.float64] = total / horizon
    return mean
