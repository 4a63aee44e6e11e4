"""What a model loses when a feature tells of another time: importance on rows that it has not seen.

Breiman's permutation importance (Machine Learning 45, 2001), with two changes for rows that lie in time. Stretches of
ten minutes change places instead of single rows: a feature stays as smooth as it was, and repeats differ as much as so
few independent stretches let them. And features that say the same are moved together: one alone would be missed by
nobody, since the others stand in for it.

One fold's model, and what it loses on rows that it has not seen when features tell of another time.

Which features say the same: rank correlation, groups of features that stand for each other, and their order.
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
from volspike.training.fitting import taken_columns
from volspike.training.folds import Fold, Learned, Material, values

ONE_SIDED: Final = 0.95

Probability = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Drop:
    """PR-AUC lost: its mean over folds, its spread (standard deviation) over them, and its lower 95 % end.

    Student's one-sided bound of the mean; where there is one fold only the repeats stand in for folds. NaN where
    there is one value only.
    """

    mean: float
    spread: float
    low: float

    @property
    def is_real(self) -> bool:
        """Whether it can be told from zero."""
        return self.low > 0.0

    @classmethod
    def of(cls, lost: NDArray[np.float64]) -> Drop:
        """``lost`` is (folds, repeats)."""
        values = lost.mean(axis=1) if len(lost) > 1 else lost.ravel()
        if len(values) == 0:
            return UNTOLD
        mean = float(values.mean())
        if len(values) < 2:
            return cls(mean, nan, nan)
        spread = float(values.std(ddof=1))
        bound = float(student.ppf(ONE_SIDED, len(values) - 1)) * spread / sqrt(len(values))
        return cls(mean, spread, mean - bound)


UNTOLD: Final = Drop(nan, nan, nan)


@dataclass(frozen=True, slots=True, eq=False)
class Unseen:
    """Rows of a fold that its model has not seen, (n, f) with their labels, in time order."""

    time: NDArray[np.int64]
    product: NDArray[np.int32]
    x: NDArray[np.float64]
    y: NDArray[np.int8]


def lost_pr_auc(
    probability: Probability, unseen: Unseen, moved: Sequence[NDArray[np.int64]], repeats: int, seed: int
) -> NDArray[np.float64]:
    """(len(moved), repeats) how much PR-AUC falls when the columns of each index array are moved together.

    The same stretches change places for all of them. NaN where rows are of one class only.
    """
    rng = np.random.default_rng(seed)
    whole = _score(probability, unseen, unseen.x)
    lost = np.empty((len(moved), repeats))
    for repeat in range(repeats):
        order = stretches_moved(unseen.time, unseen.product, rng)
        for number, columns in enumerate(moved):
            x = unseen.x.copy()
            x[:, columns] = x[np.ix_(order, columns)]
            lost[number, repeat] = whole - _score(probability, unseen, x)
    return lost


def stretches_moved(
    time: NDArray[np.int64], product: NDArray[np.int32], rng: np.random.Generator, block_s: float = BLOCK_S
) -> NDArray[np.int64]:
    """(n,) row numbers in which stretches of ``block_s`` seconds of each product have changed places."""
    order = np.empty(len(time), np.int64)
    block = time // round(block_s * SECOND_NS)
    for code in np.unique(product):
        rows = np.flatnonzero(product == code)
        stretches = np.split(rows, np.flatnonzero(np.diff(block[rows]) != 0) + 1)
        order[rows] = np.concatenate([stretches[place] for place in rng.permutation(len(stretches))])
    return order


def _score(probability: Probability, unseen: Unseen, x: NDArray[np.float64]) -> float:
    score = probability(x)
    known = np.isfinite(score)
    return average_precision(unseen.y[known], score[known])


MOST_LEARNED: Final = 60_000
MOST_JUDGED: Final = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class FoldFinding:
    """What was found on one fold.

    ``lost`` is (moved, repeats) PR-AUC, ``own`` (f,) the shares that the model itself gives, ``is_taken`` (f,) whether
    it takes the column at all; ``y`` and ``score`` are the rows that were judged.
    """

    lost: NDArray[np.float64]
    own: NDArray[np.float64]
    is_taken: NDArray[np.bool_]
    y: NDArray[np.int8]
    score: NDArray[np.float64]

    @property
    def is_judgeable(self) -> bool:
        """Whether its rows are of both classes."""
        return 0 < int(self.y.sum()) < len(self.y)


def unseen_rows(material: Material) -> list[tuple[Fold, NDArray[np.int64]]]:
    """Each fold but the final one with its test rows; where that is alone, with its validation rows: the final block is
    never looked at.
    """
    folds = material.folds
    return [(fold, fold.test) for fold in folds.selection] or [(folds.final, folds.final.validation)]


def judge_fold(
    material: Material, fold: Fold, rows: NDArray[np.int64], moved: Sequence[NDArray[np.int64]], repeats: int
) -> FoldFinding:
    """The one model of the request fitted on ``fold``; ``moved`` are groups of places in ``material.columns``."""
    dataset, names, request = material.dataset, material.columns, material.request
    (model,) = request.model_names()
    taken, _ = taken_columns(model, material, fold)
    learned = Learned.of(dataset, fold.train, MOST_LEARNED)
    detector = DETECTORS[model](seed=request.seed).fit(learned.sample(dataset, taken, fold.y, fold.tau))
    rows = Learned.of(dataset, rows, MOST_JUDGED).rows
    unseen = Unseen(dataset.time[rows], dataset.product[rows], values(dataset, rows, taken), fold.y[rows])
    score = detector.probability(unseen.x)
    known = np.isfinite(score)
    shares = dict(zip(taken, detector.importance().tolist(), strict=True))
    finding = FoldFinding(
        lost=np.zeros((len(moved), repeats)),
        own=np.array([shares.get(name, 0.0) for name in names]),
        is_taken=np.array([name in shares for name in names]),
        y=unseen.y[known],
        score=score[known],
    )
    if finding.is_judgeable:
        places = [np.array([taken.index(names[column]) for column in columns if names[column] in shares], np.int64)
                  for columns in moved]  # fmt: skip
        used = [number for number, columns in enumerate(places) if len(columns)]
        seed = request.seed + fold.number
        finding.lost[used] = lost_pr_auc(detector.probability, unseen, [places[n] for n in used], repeats, seed)
    return finding


SAME: Final = 0.95
"""From this rank correlation on, of either sign, two features say the same."""


def rank_correlation(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(f, f) Spearman's correlation of the columns of ``x`` (n, f), each pair over the rows that tell both.

    Ranks are taken once, over all rows that tell a column. NaN for a column that never changes or is never told.
    """
    told = np.isfinite(x)
    ranks = np.zeros(x.shape)
    for column in range(x.shape[1]):
        rows = told[:, column]
        if rows.any():
            place = rankdata(x[rows, column])
            ranks[rows, column] = (place - place.mean()) / len(place)
    both = told.astype(np.float64)
    count = both.T @ both
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = (ranks.T @ both) / count
        square = ((ranks**2).T @ both) / count
        spread = np.sqrt(np.maximum(square - mean**2, 0.0))
        spread[spread < 1e-9] = np.nan
        correlation = ((ranks.T @ ranks) / count - mean * mean.T) / (spread * spread.T)
    return np.asarray(np.clip(correlation, -1.0, 1.0))


def groups(correlation: NDArray[np.float64], same: float = SAME) -> NDArray[np.int64]:
    """(f,) the group of each feature, from 0: all pairs of a group are correlated at ``same`` or above."""
    if len(correlation) < 2:
        return np.zeros(len(correlation), np.int64)
    tree = linkage(squareform(_distance(correlation), checks=False), "complete")
    return np.asarray(fcluster(tree, 1.0 - same, "distance"), np.int64) - 1


def clustered_order(correlation: NDArray[np.float64]) -> NDArray[np.int64]:
    """(f,) the features in an order in which those that say the same stand side by side."""
    if len(correlation) < 2:
        return np.arange(len(correlation))
    distance = squareform(_distance(correlation), checks=False)
    return np.asarray(leaves_list(linkage(distance, "average", optimal_ordering=True)), np.int64)


def chosen(ranked: list[int], correlation: NDArray[np.float64], same: float = SAME) -> list[int]:
    """Of features in order of merit those that no earlier chosen one says already."""
    taken: list[int] = []
    for feature in ranked:
        if all(not abs(correlation[feature, other]) > same for other in taken):
            taken.append(feature)
    return taken


def _distance(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 − |ρ|; what has no correlation is far from everything."""
    distance = 1.0 - np.abs(np.nan_to_num(correlation))
    np.fill_diagonal(distance, 0.0)
    return np.maximum(distance, 0.0)
