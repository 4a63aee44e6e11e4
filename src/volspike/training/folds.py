"""How much each training row counts: labels that overlap tell of the same minute and share its weight.

Which of a part's rows a model learns from, and how much each of them counts.

All ticks of one second have one future, so of rows per tick the last of each second stands for it. Of very many seconds
every second, third … is taken: neighbours share 59 of the 60 seconds that they are to foresee, and memory and time stay
bounded. What is judged is never thinned out.

Folds with their labels: τ from a fold's own training rows, frozen for its validation and test rows.

What all models of a run share: the rows, the columns, and the folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset, Split, split
from volspike.datasets.build import row_second
from volspike.datasets.dataset import PERSISTENCE
from volspike.datasets.splits import chosen_blocks, look_back_s
from volspike.errors import NotEnoughData, SchemaMismatch
from volspike.labels import HORIZON_S, spike_threshold, spikes
from volspike.market import format_time
from volspike.models import DETECTORS, Sample
from volspike.training.request import TrainingRequest


def average_uniqueness(
    second: NDArray[np.int64], product: NDArray[np.int32], horizon: int = HORIZON_S
) -> NDArray[np.float64]:
    """The mean over each label's seconds of 1 / (labels of the same product that hold that second), scaled to mean 1.

    M. López de Prado, Advances in Financial Machine Learning, 2018, chapter 4.3. A row in second s has the seconds
    s+1 … s+horizon as its label's. Ticks of one second share one label's weight among them.

    Args:
        second: (n,) the second of each row, ascending within a product.
        product: (n,) which product it is of.
    """
    uniqueness = np.empty(len(second))
    for code in np.unique(product):
        rows = np.flatnonzero(product == code)
        uniqueness[rows] = _of_one(second[rows], horizon)
    mean = uniqueness.mean() if len(uniqueness) else 1.0
    scaled: NDArray[np.float64] = uniqueness / mean
    return scaled


def _of_one(second: NDArray[np.int64], horizon: int) -> NDArray[np.float64]:
    """Between two neighbouring ends of labels the number of labels is the same: one term a stretch, not a second."""
    edges = np.unique(np.concatenate([second + 1, second + horizon + 1]))
    opened, closed = np.searchsorted(second + 1, edges, "right"), np.searchsorted(second + horizon + 1, edges, "right")
    length = np.diff(edges)
    alive = (opened - closed)[:-1]
    share = np.divide(length, alive, out=np.zeros(len(length)), where=alive > 0)
    until = np.append(0.0, np.cumsum(share))
    total = until[np.searchsorted(edges, second + horizon + 1)] - until[np.searchsorted(edges, second + 1)]
    mean: NDArray[np.float64] = total / horizon
    return mean


MOST_ROWS: Final = 400_000


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """Rows to learn from, ascending, and their weights by average uniqueness."""

    rows: NDArray[np.int64]
    weight: NDArray[np.float64]

    @classmethod
    def of(cls, dataset: Dataset, rows: NDArray[np.int64], most: int = MOST_ROWS) -> Self:
        """One row a second and product of ``rows`` (ascending), of every k-th second where there are over ``most``."""
        second, product = row_second(dataset.time[rows], dataset.facts.every), dataset.product[rows]
        kept = _last_of_each(second, product)
        step = ceil(len(kept) / most)
        if step > 1:
            kept = kept[second[kept] % step == 0]
        return cls(rows[kept], average_uniqueness(second[kept], product[kept]))

    def sample(self, dataset: Dataset, names: tuple[str, ...], y: NDArray[np.int8], tau: float) -> Sample:
        """The rows as a detector takes them; ``y`` is the label of every row of the data set under ``tau``."""
        return Sample(
            names=names,
            x=values(dataset, self.rows, names),
            y=y[self.rows],
            volatility=dataset.future_volatility[self.rows],
            tau=tau,
            weight=self.weight,
        )


def values(dataset: Dataset, rows: NDArray[np.int64], names: tuple[str, ...]) -> NDArray[np.float64]:
    """(rows, names): these rows of these columns, and no copy of any other."""
    columns = np.array([dataset.names.index(name) for name in names])
    chosen: NDArray[np.float64] = dataset.x[np.ix_(rows, columns)]
    return chosen


def _last_of_each(second: NDArray[np.int64], product: NDArray[np.int32]) -> NDArray[np.int64]:
    """The last place of each second of each product, ascending."""
    order = np.lexsort((second, product))
    last = np.append((np.diff(second[order]) != 0) | (np.diff(product[order]) != 0), np.ones(len(order[:1]), np.bool_))
    return np.sort(order[last])


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
    return f"{format_time(int(dataset.time[rows].min()))} to {format_time(int(dataset.time[rows].max()))}"


def _advice(request: TrainingRequest, told: Sequence[str]) -> str:
    found = "; ".join(told)
    fewer = f"take fewer folds than {request.folds}, " if request.split_method == "walk_forward" else ""
    return (
        f"{request.features}: nothing to train on that has both spikes and calm; {found}; record for longer, "
        f"{fewer}or choose a label percentile below {request.label_percentile:g}"
    )


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """A request with what it stands for: ``columns`` are those that it names, ``fold_by`` what a test block is."""

    request: TrainingRequest
    dataset: Dataset
    columns: tuple[str, ...]
    folds: Folds
    fold_by: str

    def offered(self, model: str) -> tuple[str, ...]:
        """The columns that a model may choose from: a rule that a trader has finds its own wherever they are."""
        return self.dataset.names if is_baseline(model) else self.columns


def is_baseline(model: str) -> bool:
    """Whether it is one of the rules that a model has to beat."""
    return DETECTORS[model].is_baseline


def baselines() -> tuple[str, ...]:
    """The rules that every model is judged beside."""
    return tuple(name for name in DETECTORS if is_baseline(name))


def gathered(request: TrainingRequest, dataset: Dataset) -> Material:
    """The columns and folds of ``dataset`` that the request asks for.

    Raises:
        SchemaMismatch: a column is not there, or the one that persistence is judged by.
        NotEnoughData: too few rows, or rows of one class only.
    """
    columns = request.column_names(dataset.names)
    if PERSISTENCE not in dataset.names:
        raise SchemaMismatch(
            f"{request.features} has no last-minute volatility for models to be compared with",
            missing=[PERSISTENCE],
            remedy=f"featurize with {HORIZON_S} among the windows",
        )
    folds = labelled_folds(dataset, request, _embargo_s(request, dataset, columns))
    fold_by = chosen_blocks(dataset, request.fold_by) if request.split_method == "walk_forward" else "rows"
    return Material(request, dataset, columns, folds, fold_by)


def _embargo_s(request: TrainingRequest, dataset: Dataset, columns: tuple[str, ...]) -> int:
    """How far back any column looks that a model or a baseline of this run takes; at least over the longest window."""
    taken = {name for model in request.model_names() for name in DETECTORS[model].columns(columns)}
    taken |= {name for model in baselines() for name in DETECTORS[model].columns(dataset.names)}
    return max(look_back_s(taken), dataset.facts.feature_set.longest_window)
