"""Permutation importance of features on held-out rows, and groups of redundant features.

Breiman's permutation importance (Machine Learning 45, 2001) with two changes for time series. Blocks of ten minutes are
permuted instead of single rows: a feature stays as autocorrelated as it was, and the spread over repeats reflects the
number of independent blocks. And redundant features are permuted together: permuting one alone costs little while the
others replace it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata
from scipy.stats import t as student

from volspike.evaluation.metrics import average_precision
from volspike.evaluation.scored import BLOCK_S
from volspike.market import SECOND_NS
from volspike.models import DETECTORS
from volspike.training.fitting import select_columns
from volspike.training.folds import FitRows, Fold, TrainingData

ONE_SIDED: Final = 0.95
"""Confidence of the lower bound of an importance."""

REDUNDANT: Final = 0.95
"""Absolute rank correlation from which two features are redundant."""

MOST_FIT_ROWS: Final = 60_000
MOST_HELD_OUT_ROWS: Final = 5_000

Probability = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class PrAucLoss:
    """PR-AUC lost by a permutation: mean and standard deviation over folds, and the lower 95 % bound of the mean.

    The bound is Student's, one-sided. With a single fold the repeats replace the folds. NaN where undefined.
    """

    mean: float
    spread: float
    low: float

    @property
    def is_significant(self) -> bool:
        """Whether the lower bound is above zero."""
        return self.low > 0.0

    @classmethod
    def of(cls, losses: NDArray[np.float64]) -> PrAucLoss:
        """From ``losses`` (folds, repeats)."""
        values = losses.mean(axis=1) if len(losses) > 1 else losses.ravel()
        if len(values) == 0:
            return UNDEFINED
        mean = float(values.mean())
        if len(values) < 2:
            return cls(mean, nan, nan)
        spread = float(values.std(ddof=1))
        bound = float(student.ppf(ONE_SIDED, len(values) - 1)) * spread / sqrt(len(values))
        return cls(mean, spread, mean - bound)


UNDEFINED: Final = PrAucLoss(nan, nan, nan)


@dataclass(frozen=True, slots=True, eq=False)
class FoldImportance:
    """Importances on one fold.

    ``lost`` is (permuted groups, repeats) PR-AUC; ``own`` (f,) the model's own importance shares; ``is_used`` (f,)
    whether the model uses the column; ``y`` and ``score`` belong to the held-out rows.
    """

    lost: NDArray[np.float64]
    own: NDArray[np.float64]
    is_used: NDArray[np.bool_]
    y: NDArray[np.int8]
    score: NDArray[np.float64]

    @property
    def has_both_classes(self) -> bool:
        """Whether its held-out rows hold spikes and calm."""
        return 0 < int(self.y.sum()) < len(self.y)


def importance_folds(data: TrainingData) -> list[tuple[Fold, NDArray[np.int64]]]:
    """Each selection fold with its test rows; without one, the final fold with its validation rows.

    The final block is never used.
    """
    final = data.fold_set.final
    return [(fold, fold.test) for fold in data.fold_set.selection] or [(final, final.validation)]


def fold_importance(
    data: TrainingData, fold: Fold, rows: NDArray[np.int64], permuted: Sequence[NDArray[np.int64]], repeats: int
) -> FoldImportance:
    """Fit the request's only model on ``fold`` and permute each group of ``permuted`` (indices of ``data.columns``)."""
    dataset, names, request = data.dataset, data.columns, data.request
    (model,) = request.model_names()
    used, _ = select_columns(model, data, fold)
    fit_rows = FitRows.select(dataset, fold.train, MOST_FIT_ROWS)
    detector = DETECTORS[model](seed=request.seed).fit(fit_rows.sample(dataset, used, fold.y, fold.tau))
    rows = FitRows.select(dataset, rows, MOST_HELD_OUT_ROWS).rows
    sample = HeldOutSample(
        dataset.time[rows], dataset.product[rows], dataset.inputs(used, fold.tau, rows), fold.y[rows]
    )
    score = detector.probability(sample.x)
    known = np.isfinite(score)
    shares = dict(zip(used, detector.importance().tolist(), strict=True))
    found = FoldImportance(
        lost=np.zeros((len(permuted), repeats)),
        own=np.array([shares.get(name, 0.0) for name in names]),
        is_used=np.array([name in shares for name in names]),
        y=sample.y[known],
        score=score[known],
    )
    if found.has_both_classes:
        places = [
            np.array([used.index(names[column]) for column in columns if names[column] in shares], np.int64)
            for columns in permuted
        ]
        present = [number for number, columns in enumerate(places) if len(columns)]
        groups = [places[number] for number in present]
        found.lost[present] = permutation_loss(
            detector.probability, sample, groups, repeats, request.seed + fold.number
        )
    return found


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutSample:
    """Held-out rows of a fold: (n, f) values with their labels, in time order."""

    time: NDArray[np.int64]
    product: NDArray[np.int32]
    x: NDArray[np.float64]
    y: NDArray[np.int8]


def permutation_loss(
    probability: Probability, sample: HeldOutSample, permuted: Sequence[NDArray[np.int64]], repeats: int, seed: int
) -> NDArray[np.float64]:
    """(len(permuted), repeats) PR-AUC lost when the columns of each index array are permuted together.

    In each repeat all groups get the same permutation. NaN if the rows hold one class only.
    """
    rng = np.random.default_rng(seed)
    complete = _pr_auc(probability, sample, sample.x)
    lost = np.empty((len(permuted), repeats))
    for repeat in range(repeats):
        order = permute_blocks(sample.time, sample.product, rng)
        for number, columns in enumerate(permuted):
            x = sample.x.copy()
            x[:, columns] = x[np.ix_(order, columns)]
            lost[number, repeat] = complete - _pr_auc(probability, sample, x)
    return lost


def permute_blocks(time: NDArray[np.int64], product: NDArray[np.int32], rng: np.random.Generator) -> NDArray[np.int64]:
    """(n,) row numbers in which the blocks of ``BLOCK_S`` seconds of each product are permuted."""
    order = np.empty(len(time), np.int64)
    block = time // round(BLOCK_S * SECOND_NS)
    for code in np.unique(product):
        rows = np.flatnonzero(product == code)
        blocks = np.split(rows, np.flatnonzero(np.diff(block[rows]) != 0) + 1)
        order[rows] = np.concatenate([blocks[place] for place in rng.permutation(len(blocks))])
    return order


def _pr_auc(probability: Probability, sample: HeldOutSample, x: NDArray[np.float64]) -> float:
    score = probability(x)
    known = np.isfinite(score)
    return average_precision(sample.y[known], score[known])


def rank_correlation(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(f, f) Spearman's correlation of the columns of ``x`` (n, f), each pair over the rows that have both values.

    Ranks are computed once per column, over its rows with a value. NaN for a column that is constant or empty.
    """
    known = np.isfinite(x)
    ranks = np.zeros(x.shape)
    for column in range(x.shape[1]):
        rows = known[:, column]
        if rows.any():
            place = rankdata(x[rows, column])
            ranks[rows, column] = (place - place.mean()) / len(place)
    both = known.astype(np.float64)
    count = both.T @ both
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (ranks.T @ both) / count
        square = ((ranks**2).T @ both) / count
        spread = np.sqrt(np.maximum(square - mean**2, 0.0))
        spread[spread < 1e-9] = np.nan
        correlation = ((ranks.T @ ranks) / count - mean * mean.T) / (spread * spread.T)
    return np.asarray(np.clip(correlation, -1.0, 1.0))


def group_redundant(correlation: NDArray[np.float64], redundant: float = REDUNDANT) -> NDArray[np.int64]:
    """(f,) the group of each feature, from 0: all pairs within a group correlate at ``redundant`` or more."""
    if len(correlation) < 2:
        return np.zeros(len(correlation), np.int64)
    tree = linkage(squareform(_distance(correlation), checks=False), "complete")
    return np.asarray(fcluster(tree, 1.0 - redundant, "distance"), np.int64) - 1


def clustered_order(correlation: NDArray[np.float64]) -> NDArray[np.int64]:
    """(f,) the features in an order that places redundant ones next to each other."""
    if len(correlation) < 2:
        return np.arange(len(correlation))
    distance = squareform(_distance(correlation), checks=False)
    return np.asarray(leaves_list(linkage(distance, "average", optimal_ordering=True)), np.int64)


def drop_redundant(ranked: list[int], correlation: NDArray[np.float64], redundant: float = REDUNDANT) -> list[int]:
    """The features of ``ranked`` (best first) that are not redundant with a better one."""
    kept: list[int] = []
    for feature in ranked:
        if all(not abs(correlation[feature, other]) > redundant for other in kept):
            kept.append(feature)
    return kept


def _distance(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 − |ρ|; an undefined correlation counts as 0."""
    distance = 1.0 - np.abs(np.nan_to_num(correlation))
    np.fill_diagonal(distance, 0.0)
    return np.maximum(distance, 0.0)
