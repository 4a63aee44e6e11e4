"""Rows as each product's own story, fold by fold, and the runs in it: of spikes, and of alarms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from volspike.labels import HORIZON_S
from volspike.market import SECOND_NS

HORIZON_NS = HORIZON_S * SECOND_NS


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """n rows put in order: those of one fold and product after each other, by time.

    Attributes:
        order: (n,) row numbers; a row's place here is its position.
        time: (n,) ns, by position.
        begins: (n,) whether the position begins another fold or product.
    """

    order: NDArray[np.int64]
    time: NDArray[np.int64]
    begins: NDArray[np.bool_]

    @classmethod
    def of(cls, time: NDArray[np.int64], product: NDArray[np.int32], fold: NDArray[np.int32] | None = None) -> Self:
        """The tracks of rows in any order; all arrays are (n,)."""
        fold = np.zeros(len(time), np.int32) if fold is None else fold
        order = np.lexsort((time, product, fold))
        begins = np.ones(len(time), np.bool_)
        begins[1:] = (np.diff(product[order]) != 0) | (np.diff(fold[order]) != 0)
        return cls(order, time[order], begins)

    def seconds(self) -> NDArray[np.float64]:
        """(n,) by position: how long a row's second or tick lasts, until the track's next row.

        0 for a track's last row and before a silence as long as the horizon, which nobody watched.
        """
        steps = np.zeros(len(self.time))
        steps[:-1] = np.where(self.begins[1:], 0, np.diff(self.time))
        return np.where(steps < HORIZON_NS, steps / SECOND_NS, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Stretches of a track that do not overlap, ascending: first and last position of each, both included."""

    first: NDArray[np.int64]
    last: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.first)

    def covered(self, n: int) -> NDArray[np.bool_]:
        """Which of ``n`` positions lie in a run."""
        steps = np.bincount(self.first, minlength=n + 1) - np.bincount(self.last + 1, minlength=n + 1)
        return np.cumsum(steps)[:-1] > 0

    def met_by(self, others: Runs) -> NDArray[np.int64]:
        """Of each run the number of the earliest among ``others`` that shares a position with it; −1 for none."""
        if len(others) == 0:
            return np.full(len(self), -1)
        candidate = np.searchsorted(others.last, self.first)
        met = others.first[np.minimum(candidate, len(others) - 1)] <= self.last
        return np.where((candidate < len(others)) & met, candidate, -1)


def spike_runs(tracks: Tracks, y: NDArray[np.int8]) -> Runs:
    """The spike episodes: rows labelled as spikes (``y``, (n,) in the rows' order), joined when under a horizon apart.

    A label tells of the 60 seconds after its row, so two spike rows closer than that share seconds of their future.
    """
    spike = np.flatnonzero(y[tracks.order] == 1)
    if len(spike) == 0:
        return Runs(spike, spike)
    track = np.cumsum(tracks.begins)
    apart = (np.diff(tracks.time[spike]) >= HORIZON_NS) | (np.diff(track[spike]) != 0)
    return Runs(spike[np.append(True, apart)], spike[np.append(apart, True)])
