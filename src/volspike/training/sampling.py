"""Which of a part's rows a model learns from, and how much each of them counts.

All ticks of one second have one future, so of rows per tick the last of each second stands for it. Of very many seconds
every second, third … is taken: neighbours share 59 of the 60 seconds that they are to foresee, and memory and time stay
bounded. What is judged is never thinned out.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.datasets.build import row_second
from volspike.models import Sample
from volspike.training.weights import average_uniqueness

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
