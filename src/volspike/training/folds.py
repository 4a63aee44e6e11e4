"""Folds with their labels: τ from a fold's own training rows, frozen for its validation and test rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset, Split, split
from volspike.errors import NotEnoughData
from volspike.labels import spike_threshold, spikes
from volspike.market import instant
from volspike.training.request import TrainingRequest
from volspike.training.sampling import Learned

LEAST_ROWS: Final = 500

LEAST_KEPT: Final = 0.5
"""Of its training rows, the final fold must keep this share under the longer embargo."""


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Index arrays of a split, its τ, and the label of every row of the data set under that τ; numbered from 1.

    ``learned`` are those of the training rows that models see. ``is_final`` marks the newest fold, whose test rows no
    choice looks at; ``block`` names them.
    """

    number: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    tau: float
    y: NDArray[np.int8]
    learned: Learned
    is_final: bool
    block: str


@dataclass(frozen=True, slots=True, eq=False)
class Folds:
    """The folds that can be used, oldest first, the last of them the final one; a sentence for each other one."""

    folds: tuple[Fold, ...]
    told: tuple[str, ...]
    embargo_s: int

    @property
    def final(self) -> Fold:
        """The newest, whose model is served."""
        return self.folds[-1]

    @property
    def selection(self) -> tuple[Fold, ...]:
        """Those by which models are compared; none where there is but the final one."""
        return self.folds[:-1]


def labelled_folds(dataset: Dataset, request: TrainingRequest, embargo_s: int) -> Folds:
    """The folds that a model can be trained and judged on.

    Where an embargo of ``embargo_s`` would cost most of the final fold's training rows, it is that of the longest
    window, and said: labels never reach over a cut in either case.

    Raises:
        NotEnoughData: under 500 rows in all, or no fold whose training rows are of both classes.
    """
    if len(dataset.time) < LEAST_ROWS:
        raise NotEnoughData(
            f"{request.features} has {len(dataset.time):,} labelled rows, training takes {LEAST_ROWS}: "
            "record for longer, or consolidate several files"
        )
    window_s = dataset.facts.feature_set.longest_window
    if embargo_s <= window_s:
        return _usable(dataset, request, embargo_s)
    shorter = _usable(dataset, request, window_s)
    try:
        found = _usable(dataset, request, embargo_s)
    except NotEnoughData:
        found = None
    if found is not None and len(found.final.train) >= LEAST_KEPT * len(shorter.final.train):
        return found
    told = (
        f"embargo {window_s} s instead of {embargo_s} s, which so short recordings cannot spare: labels never reach "
        "over a cut, but the longest windows of test rows look back at prices that training labels knew: record longer"
    )
    return Folds(shorter.folds, (told, *shorter.told), window_s)


def _usable(dataset: Dataset, request: TrainingRequest, embargo_s: int) -> Folds:
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
        _labelled(dataset, part, request.label_percentile, is_final=number == newest)
        for number, part in enumerate(splits)
    ]
    usable = tuple(fold for fold in labelled if isinstance(fold, Fold))
    told = tuple(fault for fault in labelled if isinstance(fault, str))
    if not usable or not usable[-1].is_final:
        raise NotEnoughData(_advice(request, told))
    return Folds(usable, told, embargo_s)


def _labelled(dataset: Dataset, part: Split, percentile: float, *, is_final: bool) -> Fold | str:
    """The fold of a split, or a sentence on why it cannot be used."""
    name = f"fold {part.fold + 1}{f' ({part.block})' if part.block else ''}"
    if part.empty_parts:
        return f"{name} is left out: purge and embargo leave it no {' and no '.join(part.empty_parts)} rows"
    try:
        tau = spike_threshold(dataset.future_volatility[part.train], percentile)
    except NotEnoughData as error:
        return f"{name} is left out: {error}"
    y = spikes(dataset.future_volatility, tau)
    learned = Learned.of(dataset, part.train)
    count, total = int(np.count_nonzero(y[learned.rows])), len(learned.rows)
    if count in (0, total):
        return f"{name} is left out: of its {total:,} training rows ({_span(dataset, part.train)}) {count:,} are spikes"
    return Fold(
        part.fold + 1, part.train, part.validation, part.test, tau, y, learned, is_final=is_final, block=part.block
    )


def _span(dataset: Dataset, rows: NDArray[np.int64]) -> str:
    return f"{instant(int(dataset.time[rows].min()))} to {instant(int(dataset.time[rows].max()))}"


def _advice(request: TrainingRequest, told: Sequence[str]) -> str:
    found = "; ".join(told)
    fewer = f"take fewer folds than {request.folds}, " if request.split_method == "walk_forward" else ""
    return (
        f"{request.features}: nothing to train on that has both spikes and calm; {found}; record for longer, "
        f"{fewer}or choose a label percentile below {request.label_percentile:g}"
    )
