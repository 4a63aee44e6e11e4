"""Where to draw the line between a call and none, chosen on validation rows.

A threshold stands halfway between the lowest score that is called and the next below it, so that the last bit
of a float, which may differ from one processor to the next, turns no call over.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.cuts import Cuts

MOST_CALLED: Final = 0.5
"""A threshold that calls more rows than this is no alarm but a constant, whatever its F1."""


def best_f1_threshold(y: NDArray[np.int8], score: NDArray[np.float64]) -> float | None:
    """The threshold of greatest F1 that calls at most half of the rows; of equally good ones the highest.

    None where no such threshold catches a spike: the rows hold none, or the score puts them all last.
    """
    cuts = Cuts.of(y, score)
    called = cuts.hits + cuts.false_alarms
    f1 = np.where(called <= MOST_CALLED * len(y), 2 * cuts.hits / np.maximum(called + cuts.spikes, 1), 0.0)
    if not np.any(f1 > 0.0):
        return None
    return _below(cuts, int(np.argmax(f1)))


def rate_threshold(score: NDArray[np.float64], rate: float = 0.10) -> float:
    """The lowest threshold that calls at most a share ``rate`` of the rows; ``score`` must not be empty.

    Where more rows than that share the highest score it stands above it and calls none.
    """
    cuts = Cuts.of(np.zeros(len(score), np.int8), score)
    within = np.flatnonzero(cuts.false_alarms <= rate * len(score))
    return _below(cuts, int(within[-1])) if len(within) else float(np.nextafter(cuts.score[0], np.inf))


def _below(cuts: Cuts, at: int) -> float:
    """Halfway from the score of a cut to the next; the lowest score has nothing below it and stands itself."""
    return float(cuts.score[at : at + 2].mean())
