"""The cuts that a score allows: what is called at each distinct score, from the highest down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Cuts:
    """For each distinct score, descending: the score, and the hits and false alarms of calling all from it up.

    Rows of equal score are called together, so that their order in the data cannot flatter a model.
    """

    score: NDArray[np.float64]
    hits: NDArray[np.int64]
    false_alarms: NDArray[np.int64]

    @classmethod
    def of(cls, y: NDArray[np.int8], score: NDArray[np.float64]) -> Self:
        """The cuts of ``score`` (n, no NaN) against outcomes ``y`` (n, 1 is a spike)."""
        order = np.argsort(-score, kind="stable")
        ranked = score[order]
        last_of_score = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), np.bool_)))
        hits = np.cumsum(y[order], dtype=np.int64)[last_of_score]
        return cls(ranked[last_of_score], hits, last_of_score + 1 - hits)

    @property
    def spikes(self) -> int:
        """How many rows are spikes."""
        return int(self.hits[-1]) if len(self.hits) else 0

    @property
    def calm(self) -> int:
        """How many rows are none."""
        return int(self.false_alarms[-1]) if len(self.false_alarms) else 0

    def precision(self) -> NDArray[np.float64]:
        """Share of spikes among what is called, at each cut."""
        return self.hits / (self.hits + self.false_alarms)

    def recall(self) -> NDArray[np.float64]:
        """Share of the spikes that are called, at each cut; there must be one."""
        return self.hits / self.spikes

    def false_alarm_rate(self) -> NDArray[np.float64]:
        """Share of the calm rows that are called, at each cut; there must be one."""
        return self.false_alarms / self.calm
