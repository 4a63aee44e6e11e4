"""How much each training row counts: labels that overlap tell of the same minute and share its weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volspike.labels import HORIZON_S


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
