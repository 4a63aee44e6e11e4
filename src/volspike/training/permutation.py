"""What a model loses when a feature tells of another time: importance on rows that it has not seen.

Breiman's permutation importance (Machine Learning 45, 2001), with two changes for rows that lie in time. Stretches of
ten minutes change places instead of single rows: a feature stays as smooth as it was, and repeats differ as much as so
few independent stretches let them. And features that say the same are moved together: one alone would be missed by
nobody, since the others stand in for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from volspike.evaluation.metrics import average_precision
from volspike.evaluation.scored import BLOCK_S
from volspike.market import SECOND_NS

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
