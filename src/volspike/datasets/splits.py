"""Which rows train, which choose, and which judge.

Features look back over the longest window and labels look forward over the horizon, so rows near a cut know each other.
Between parts that follow each other in time, rows whose label reaches into the later part are purged and the later
part begins an embargo after the cut (M. López de Prado, Advances in Financial Machine Learning, 2018, chapter 7).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.dataset import Dataset
from volspike.errors import NotEnoughData, UsageError
from volspike.labels import HORIZON_S, spike_threshold, spikes
from volspike.market import SECOND_NS

Rows: TypeAlias = NDArray[np.int64]
Fractions: TypeAlias = tuple[float, float, float]

DEFAULT_FRACTIONS: Final = (0.70, 0.15, 0.15)
DEFAULT_FOLDS: Final = 5

FIRST_TRAINING_SHARE: Final = 0.4
"""What the first of several folds is trained on; the rest is cut into one validation block and the test blocks."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row numbers of one fold's parts, ascending."""

    fold: int
    train: Rows
    validation: Rows
    test: Rows


def split(
    dataset: Dataset,
    method: str = "walk_forward",
    *,
    fractions: Fractions = DEFAULT_FRACTIONS,
    folds: int = DEFAULT_FOLDS,
    seed: int = 0,
) -> list[Split]:
    """The folds of a data set, oldest first; one fold for the methods that cut once.

    Raises:
        UsageError: no such method, or shares that are none.
        NotEnoughData: a part has no rows left.
    """
    if method not in SPLIT_METHODS:
        raise UsageError(f"no split method {method!r}; there are {', '.join(SPLIT_METHODS)}")
    if min(fractions) <= 0.0 or abs(sum(fractions) - 1.0) > 1e-9 or folds < 1:
        raise UsageError(f"shares must be positive and make 1, folds at least 1: were {fractions} and {folds}")
    parts = SPLIT_METHODS[method](dataset, fractions, folds, seed)
    for part in parts:
        for name in ("train", "validation", "test"):
            if len(getattr(part, name)) == 0:
                raise NotEnoughData(
                    f"{method}: no {name} rows left in fold {part.fold + 1} once purge ({HORIZON_S} s) and embargo "
                    f"({dataset.facts.feature_set.longest_window} s) are kept: record for longer or take fewer folds"
                )
    return parts


def walk_forward(dataset: Dataset, fractions: Fractions, folds: int, seed: int) -> list[Split]:
    """Training grows with time; each fold is judged on the block after the one that it chose its threshold on."""
    del fractions, seed
    share = (1.0 - FIRST_TRAINING_SHARE) / (folds + 1)
    cuts = [cut_near(dataset, FIRST_TRAINING_SHARE + share * block, share) for block in range(folds + 1)]
    ends = [*cuts[1:], int(dataset.time[-1]) + 1]
    return [
        Split(
            fold,
            before(dataset, cuts[fold]),
            between(dataset, cuts[fold], ends[fold]),
            between(dataset, cuts[fold + 1], ends[fold + 1], last=fold + 1 == folds),
        )
        for fold in range(folds)
    ]


def time_based(dataset: Dataset, fractions: Fractions, folds: int, seed: int) -> list[Split]:
    """One cut into past, then validation, then test."""
    del folds, seed
    share = min(fractions)
    first = cut_near(dataset, fractions[0], share)
    second = cut_near(dataset, fractions[0] + fractions[1], share)
    end = int(dataset.time[-1]) + 1
    train, validation = before(dataset, first), between(dataset, first, second)
    return [Split(0, train, validation, between(dataset, second, end, last=True))]


def stratified(dataset: Dataset, fractions: Fractions, folds: int, seed: int) -> list[Split]:
    """Rows drawn at random with equal spike rates: overlapping windows on both sides of the cut, so no evidence."""
    del folds
    rng = np.random.default_rng(seed)
    spike = spikes(dataset.future_volatility, spike_threshold(dataset.future_volatility))
    parts: list[list[Rows]] = [[], [], []]
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(spike == label))
        cuts = np.round(np.cumsum(fractions[:2]) * len(rows)).astype(int)
        for part, drawn in zip(parts, np.split(rows, cuts), strict=True):
            part.append(drawn)
    train, validation, test = (np.sort(np.concatenate(part)) for part in parts)
    return [Split(0, train, validation, test)]


def cut_near(dataset: Dataset, share: float, tolerance: float) -> int:
    """The time that ``share`` of the rows precede, moved to a session's start within a third of ``tolerance``."""
    n = len(dataset)
    wanted = min(n - 1, round(share * n))
    starts = np.flatnonzero(np.diff(dataset.session) != 0) + 1
    near = starts[np.abs(starts - wanted) <= tolerance * n / 3.0]
    row = int(near[np.argmin(np.abs(near - wanted))]) if len(near) else wanted
    return int(dataset.time[row])


def before(dataset: Dataset, cut: int) -> Rows:
    """Rows whose label is told before ``cut``."""
    return np.flatnonzero(dataset.time + HORIZON_NS < cut)


def between(dataset: Dataset, cut: int, end: int, last: bool = False) -> Rows:
    """Rows an embargo after ``cut`` whose label is told before ``end``; the last block has nothing after it."""
    embargo = dataset.facts.feature_set.longest_window * SECOND_NS
    until = end if last else end - HORIZON_NS
    return np.flatnonzero((dataset.time >= cut + embargo) & (dataset.time < until))


HORIZON_NS: Final = (HORIZON_S + 1) * SECOND_NS
"""How far a label looks: 60 seconds after the end of the row's own."""

SPLIT_METHODS: Final[dict[str, Callable[[Dataset, Fractions, int, int], list[Split]]]] = {
    "walk_forward": walk_forward,
    "time_based": time_based,
    "stratified": stratified,
}
