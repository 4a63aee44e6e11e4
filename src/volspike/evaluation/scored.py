"""Rows with what was foreseen and what came: all that a judgement needs, of one fold or of several put together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scored:
    """n rows, in any order, that a model and a baseline both scored. No value is NaN.

    Attributes:
        time: (n,) ns UTC.
        product: (n,) the product's code.
        fold: (n,) number of the fold whose model scored the row.
        y: (n,) 1 = spike under the fold's own τ.
        past_volatility: (n,) last-60-s volatility over the fold's τ: 1 means that the last minute was itself a spike.
        probability: (n,) the model's.
        threshold: (n,) from which the model's probability is an alarm: its fold's.
        baseline: (n,) the score that the model has to beat.
        baseline_threshold: (n,) from which the baseline's score is an alarm.
    """

    time: NDArray[np.int64]
    product: NDArray[np.int32]
    fold: NDArray[np.int32]
    y: NDArray[np.int8]
    past_volatility: NDArray[np.float64]
    probability: NDArray[np.float64]
    threshold: NDArray[np.float64]
    baseline: NDArray[np.float64]
    baseline_threshold: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time)

    def only(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> Self:
        """The rows of an index or a mask."""
        return replace(self, **{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def with_baseline(self, score: NDArray[np.float64], threshold: NDArray[np.float64]) -> Self:
        """The same rows beside another baseline; both arrays are (n,)."""
        return replace(self, baseline=score, baseline_threshold=threshold)


def pooled(parts: Sequence[Scored]) -> Scored:
    """The rows of several folds put together, each with its own fold's thresholds; there must be a part."""
    names = [field.name for field in fields(Scored)]
    return Scored(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})
