"""Stretches of time that a data set falls into by itself: recordings, and days."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.dataset import Dataset
from volspike.market import SECOND_NS

DAY_NS = 86_400 * SECOND_NS


def recordings(dataset: Dataset) -> NDArray[np.int64]:
    """The row at which each recording begins, ascending.

    A recording is a stretch in which at least one product's session goes on: sessions of several products that overlap
    in time belong to one, since markets move together.
    """
    _, code = np.unique(dataset.session * len(dataset.products) + dataset.product, return_inverse=True)
    last = np.zeros(int(code.max()) + 1, np.int64)
    np.maximum.at(last, code, np.arange(len(code)))
    # Up to each row: the last row of any session that has begun by then.
    reached = np.maximum.accumulate(last[code])
    return np.append(0, np.flatnonzero(reached[:-1] < np.arange(1, len(code))) + 1)


def days(dataset: Dataset) -> NDArray[np.int64]:
    """The first row of each UTC day that has rows, ascending."""
    return np.append(0, np.flatnonzero(np.diff(dataset.time // DAY_NS) != 0) + 1)
