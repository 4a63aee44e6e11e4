"""Rows of a market as a look for drift takes them: in time order, thinned out, cut into blocks of equal time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.market import SECOND_NS

MOST_ROWS: Final = 8_000
"""Instants of a sample that are looked at: far more than it has independent ones."""

SILENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class DriftSample:
    """n rows in time order.

    Attributes:
        names: the features, in the order of ``x``.
        products: what ``product`` counts.
        time: (n,) ns UTC.
        product: (n,) index into ``products``.
        x: (n, f) features, NaN where one is not known.
    """

    names: tuple[str, ...]
    products: tuple[str, ...]
    time: NDArray[np.int64]
    product: NDArray[np.int32]
    x: NDArray[np.float64]

    @classmethod
    def of(cls, dataset: Dataset, rows: NDArray[np.integer], names: tuple[str, ...], most: int = MOST_ROWS) -> Self:
        """The ``names`` of these ``rows`` (ascending) of a data set, thinned out to about ``most`` instants."""
        time, product = dataset.time[rows], dataset.product[rows]
        kept = spread_out(time, product, most)
        columns = np.array([dataset.names.index(name) for name in names])
        x = dataset.x[np.ix_(rows[kept], columns)]
        return cls(names, dataset.products, time[kept], product[kept], x)

    def __len__(self) -> int:
        return len(self.time)

    def columns(self, names: tuple[str, ...]) -> Self:
        """The same rows with these features alone."""
        return replace(self, names=names, x=self.x[:, [self.names.index(name) for name in names]])

    def rows(self, chosen: NDArray[np.bool_]) -> Self:
        """Those rows that a mask (n,) chooses."""
        return replace(self, time=self.time[chosen], product=self.product[chosen], x=self.x[chosen])

    def elapsed(self) -> NDArray[np.float64]:
        """(n,) seconds since the first row, on a clock that stands still after five minutes of silence."""
        if len(self.time) == 0:
            return np.empty(0)
        steps = np.minimum(np.diff(self.time, prepend=self.time[:1]) / SECOND_NS, SILENCE_S)
        return np.asarray(np.cumsum(steps))

    @property
    def span_s(self) -> float:
        """Seconds that the sample covers, silences left out."""
        return float(self.elapsed()[-1]) if len(self) else 0.0


def spread_out(time: NDArray[np.int64], product: NDArray[np.int32], most: int) -> NDArray[np.int64]:
    """Rows, ascending, evenly spread over time: the last of each product in every step of whole seconds.

    The step is the shortest that leaves about ``most`` steps; ``time`` (n) is in ns and in order.
    """
    if len(time) == 0:
        return np.empty(0, np.int64)
    gaps = np.minimum(np.diff(time, prepend=time[:1]), round(SILENCE_S * SECOND_NS))
    step_ns = max(1, -(-int(gaps.sum()) // (most * SECOND_NS))) * SECOND_NS
    slot = time // step_ns
    order = np.lexsort((np.arange(len(time)), slot, product))
    is_last = np.append((np.diff(slot[order]) != 0) | (np.diff(product[order]) != 0), True)
    return np.sort(order[is_last])
