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

LEAST_ROWS: Final = 500


@dataclass(frozen=True, slots=True, eq=False)
class Fold:
    """Index arrays of a split, its τ, and the label of every row of the data set under that τ; numbered from 1."""

    number: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    tau: float
    y: NDArray[np.int8]


def labelled_folds(dataset: Dataset, request: TrainingRequest) -> tuple[list[Fold], list[str]]:
    """The folds that a model can be trained and judged on, oldest first, and a sentence for each other one.

    Raises:
        NotEnoughData: under 500 rows in all, or no fold whose training rows are of both classes.
    """
    if len(dataset.time) < LEAST_ROWS:
        raise NotEnoughData(
            f"{request.features} has {len(dataset.time):,} labelled rows, training takes {LEAST_ROWS}: "
            "record for longer, or consolidate several files"
        )
    splits = split(dataset, request.split_method, fractions=request.fractions, folds=request.folds, seed=request.seed)
    labelled = [_labelled(dataset, part, request.label_percentile) for part in splits]
    usable = [fold for fold in labelled if isinstance(fold, Fold)]
    told = [fault for fault in labelled if isinstance(fault, str)]
    if not usable:
        raise NotEnoughData(_advice(request, told))
    return usable, told


def _labelled(dataset: Dataset, part: Split, percentile: float) -> Fold | str:
    """The fold of a split, or a sentence on why it cannot be used."""
    number = part.fold + 1
    try:
        tau = spike_threshold(dataset.future_volatility[part.train], percentile)
    except NotEnoughData as error:
        return f"fold {number} is left out: {error}"
    y = spikes(dataset.future_volatility, tau)
    count, total = int(np.count_nonzero(y[part.train])), len(part.train)
    if count in (0, total):
        when = _span(dataset, part.train)
        return f"fold {number} is left out: of its {total:,} training rows ({when}) {count:,} are spikes"
    return Fold(number, part.train, part.validation, part.test, tau, y)


def _span(dataset: Dataset, rows: NDArray[np.int64]) -> str:
    return f"{instant(int(dataset.time[rows].min()))} to {instant(int(dataset.time[rows].max()))}"


def _advice(request: TrainingRequest, told: Sequence[str]) -> str:
    found = "; ".join(told)
    fewer = f"take fewer folds than {request.folds}, " if request.split_method == "walk_forward" else ""
    return (
        f"{request.features}: nothing to train on that has both spikes and calm; {found}; record for longer, "
        f"{fewer}or choose a label percentile below {request.label_percentile:g}"
    )
