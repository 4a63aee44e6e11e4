"""Walk forward: each fold is judged on a block of time, and all that it learned and chose from lies before it.

The newest block is the final one. Whoever compares models, settings or thresholds does so on the blocks before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.dataset import Dataset
from volspike.datasets.purging import Rows, purged, told_before
from volspike.datasets.recordings import days, recordings
from volspike.market import SECOND_NS, instant

FIRST_PAST_SHARE: Final = 0.4
"""Of the rows, the first fold's past has this share and one block besides; the rest is cut into the test blocks."""

VALIDATION_SHARE: Final = 0.15
"""Of a fold's past, the newest rows: they calibrate and choose thresholds."""

LEAST_DAYS: Final = 4
LEAST_RECORDINGS: Final = 3
LARGEST_SHARE: Final = 0.5
"""A day or recording that holds more of the rows than this leaves the others too little to learn from."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row numbers of one fold's parts, ascending; a part that purge and embargo have emptied has none.

    ``block`` names the test block, ``is_final`` marks the newest, which no choice ever looks at.
    """

    fold: int
    train: Rows
    validation: Rows
    test: Rows
    is_final: bool = False
    block: str = ""

    @property
    def empty_parts(self) -> tuple[str, ...]:
        """The parts without rows."""
        return tuple(name for name in ("train", "validation", "test") if len(getattr(self, name)) == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkForward:
    """How to walk: ``folds`` test blocks of rows, recordings (``session``) or UTC days, the newest ones.

    ``rolling`` training forgets what is older than ``training_span_h`` hours before the test block, or older than the
    first fold's past was long; ``expanding`` forgets nothing.
    """

    folds: int
    fold_by: str = "auto"
    rolling: bool = False
    training_span_h: float | None = None
    embargo_s: int


def chosen_blocks(dataset: Dataset, fold_by: str) -> str:
    """What ``auto`` means here: days from four on, else recordings from three on, else equal shares of rows.

    Days or recordings of which one holds more than half of the rows are no blocks to walk over.
    """
    if fold_by != "auto":
        return fold_by
    for name, least in (("day", LEAST_DAYS), ("session", LEAST_RECORDINGS)):
        starts = UNITS[name](dataset)
        largest = np.diff(np.append(starts, len(dataset))).max()
        if len(starts) >= least and largest <= LARGEST_SHARE * len(dataset):
            return name
    return "rows"


def walk_forward(dataset: Dataset, walk: WalkForward) -> list[Split]:
    """The folds, oldest first."""
    fold_by = chosen_blocks(dataset, walk.fold_by)
    starts = _shares(dataset, walk.folds) if fold_by == "rows" else _newest(UNITS[fold_by](dataset), walk.folds)
    if len(starts) == 0:
        return []
    span_ns = _span_ns(dataset, walk, int(starts[0]))
    ends = np.append(starts[1:], len(dataset))
    return [
        _fold(dataset, walk, number, (int(start), int(end)), span_ns, _name(dataset, fold_by, int(start)))
        for number, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def _fold(
    dataset: Dataset, walk: WalkForward, number: int, block: tuple[int, int], span_ns: int | None, name: str
) -> Split:
    start, end = block
    is_final = end == len(dataset)
    test = np.arange(start, end)
    oldest = 0 if span_ns is None else int(np.searchsorted(dataset.time, dataset.time[start] - span_ns))
    past = purged(dataset, np.arange(oldest, start), test, walk.embargo_s)
    train, validation = parted(dataset, past, VALIDATION_SHARE, walk.embargo_s)
    if not is_final:
        test = told_before(dataset, test, int(dataset.time[end]))
    return Split(number, train, validation, test, is_final, name)


def parted(dataset: Dataset, past: Rows, share: float, embargo_s: int) -> tuple[Rows, Rows]:
    """``past`` (ascending) cut into its older rows, purged, and its newest ``share``, which begin with a recording
    where one begins nearby.
    """
    if len(past) == 0:
        return past, past
    cut = cut_near(dataset, past, 1.0 - share, share)
    later = past[dataset.time[past] >= cut]
    return purged(dataset, past[dataset.time[past] < cut], later, embargo_s), later


def cut_near(dataset: Dataset, rows: Rows, share: float, tolerance: float) -> int:
    """The time that ``share`` of ``rows`` precede, moved to a recording's start within a third of ``tolerance``."""
    n = len(rows)
    wanted = min(n - 1, round(share * n))
    starts = np.searchsorted(rows, recordings(dataset))
    near = starts[(np.abs(starts - wanted) <= tolerance * n / 3.0) & (starts > 0) & (starts < n)]
    row = int(near[np.argmin(np.abs(near - wanted))]) if len(near) else wanted
    return int(dataset.time[rows[row]])


def _shares(dataset: Dataset, folds: int) -> NDArray[np.int64]:
    """First rows of ``folds`` blocks of as many rows each, near recordings' starts."""
    share = (1.0 - FIRST_PAST_SHARE) / (folds + 1)
    rows = np.arange(len(dataset))
    cuts = [cut_near(dataset, rows, FIRST_PAST_SHARE + share * block, share) for block in range(1, folds + 1)]
    return np.unique(np.searchsorted(dataset.time, cuts))


def _newest(starts: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """The newest units as test blocks; the oldest of all is there to learn from."""
    return starts[1:][-folds:]


def _span_ns(dataset: Dataset, walk: WalkForward, first: int) -> int | None:
    if not walk.rolling:
        return None
    if walk.training_span_h is not None:
        return round(walk.training_span_h * 3600 * SECOND_NS)
    return int(dataset.time[first] - dataset.time[0])


def _name(dataset: Dataset, fold_by: str, start: int) -> str:
    moment = instant(int(dataset.time[start]))
    return moment[:10] if fold_by == "day" else f"from {moment[:19]}Z"


UNITS: Final[dict[str, Callable[[Dataset], NDArray[np.int64]]]] = {"session": recordings, "day": days}
FOLD_BY: Final = ("auto", "rows", *UNITS)
