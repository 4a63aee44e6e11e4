"""PR-AUC and ROC-AUC of the same rows under many weights: sorted once, then one pass over the rows each."""

from __future__ import annotations

from math import nan

import numpy as np
from numpy.typing import NDArray

from volspike.compiled import compiled


class Ranking:
    """The order in which a score (n, no NaN) calls its rows; rows of equal score are called together."""

    def __init__(self, y: NDArray[np.int8], score: NDArray[np.float64]) -> None:
        self._order = np.argsort(-score, kind="stable").astype(np.int32)
        ranked = score[self._order]
        self._spike = y[self._order] == 1
        self._is_last = np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), np.bool_))

    def areas(self, weight: NDArray[np.int16]) -> tuple[float, float]:
        """PR-AUC and ROC-AUC where row i counts ``weight[i]`` times; NaN where one class weighs nothing.

        As ``average_precision`` and ``roc_auc`` of the rows repeated so often.
        """
        pr_auc, roc_auc = weighted_areas(self._order, self._spike, self._is_last, weight)
        return pr_auc, roc_auc


@compiled
def weighted_areas(
    order: NDArray[np.int32], spike: NDArray[np.bool_], is_last: NDArray[np.bool_], weight: NDArray[np.int16]
) -> tuple[float, float]:
    """``spike`` and ``is_last`` (of its score) are in rank order, ``weight`` in the rows' own."""
    hits = misses = tied_hits = tied = 0
    precision_sum = pairs = 0.0
    for rank in range(len(order)):
        drawn = int(weight[order[rank]])
        tied_hits += drawn * spike[rank]
        tied += drawn
        if is_last[rank]:
            if tied_hits > 0:
                precision_sum += tied_hits * ((hits + tied_hits) / (hits + misses + tied))
            pairs += (tied - tied_hits) * (hits + 0.5 * tied_hits)
            hits += tied_hits
            misses += tied - tied_hits
            tied_hits = tied = 0
    if hits == 0 or misses == 0:
        return nan, nan
    return precision_sum / hits, pairs / (float(hits) * misses)
