"""Which features say the same: rank correlation, groups of features that stand for each other, and their order."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, leaves_list, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

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
