"""Walk-forward and other splits of a data set into training, validation and test rows.

Labels use prices of the horizon after a row, features prices of the windows before it, so rows on both sides of a cut
share prices. Purging drops the earlier rows whose label ends after the first price used by the later rows, which is the
embargo before the first of them (M. López de Prado, Advances in Financial Machine Learning, 2018, chapter 7). Test
rows are never purged. In a walk-forward split each fold is evaluated on a block of time and trained only on rows before
it; the newest block is final, and comparisons of models, settings and thresholds use the blocks before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.dataset import Dataset
from volspike.errors import NotEnoughData, UsageError
from volspike.labels import spike_threshold, spikes
from volspike.market import SECOND_NS, format_time

DAY_NS = 86_400 * SECOND_NS


def recordings(dataset: Dataset) -> NDArray[np.int64]:
    """The first row of each recording, ascending.

    Sessions that overlap in time belong to one recording, also those of different products: markets move together.
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


Rows: TypeAlias = NDArray[np.int64]


def label_length(dataset: Dataset) -> int:
    """The time (ns) from a row to the end of its label: the horizon after the end of the row's second."""
    return (dataset.facts.horizon_s + 1) * SECOND_NS


FIRST_PRICE_NS: Final = 2 * SECOND_NS
"""A window's first return starts at the last price of the second before it, and the row's own second counts as well."""


def lookback_s(names: Iterable[str]) -> int:
    """The longest lookback of the named columns in seconds: the largest number of seconds in a name.

    An exponential mean counts with the number of seconds in its name, its half-life, although older prices still
    contribute a little. The memory of a day (``yesterday_to_day_ratio`` and its siblings) does not count: an embargo of
    a day would cost most recordings their training rows. It reads past prices only, so no outcome leaks, but a test row
    and a training label may share some.

    >>> lookback_s(["spread_mean_60s", "realized_volatility_3600s", "time_of_day_sin"])
    3600
    """
    matches = (re.search(r"_(\d+)s$", name) for name in names)
    return max((int(match[1]) for match in matches if match), default=0)


def earliest_input(dataset: Dataset, rows: Rows, embargo_s: int) -> int:
    """The earliest time (ns) of an input of ``rows``: the embargo before a row, or the start of its session.

    Windows start again with each session, so none reaches into the session before.
    """
    reach = dataset.time[rows] - (embargo_s * SECOND_NS + FIRST_PRICE_NS)
    return int(np.maximum(reach, dataset.session[rows] * SECOND_NS).min())


def select_labelled_before(dataset: Dataset, rows: Rows, moment: int) -> Rows:
    """The ``rows`` whose label ends before ``moment`` (ns)."""
    return rows[dataset.time[rows] + label_length(dataset) < moment]


def purge(dataset: Dataset, earlier: Rows, later: Rows, embargo_s: int) -> Rows:
    """The ``earlier`` rows whose label ends before the first input of ``later``; none if ``later`` is empty."""
    if len(later) == 0:
        return earlier[:0]
    return select_labelled_before(dataset, earlier, earliest_input(dataset, later, embargo_s))


FIRST_PAST_SHARE: Final = 0.4
"""The first fold trains on this share of the rows plus one block; the rest is split into test blocks."""

VALIDATION_SHARE: Final = 0.15
"""The share of a fold's past for validation: its newest rows, used for calibration and thresholds."""

LEAST_DAYS: Final = 4
LEAST_RECORDINGS: Final = 3
LARGEST_SHARE: Final = 0.5
"""Days or recordings are not used as blocks if one has more than this share of the rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Row indices of the parts of one fold, ascending; purge and embargo may leave a part empty.

    ``block`` names the test block, ``is_final`` marks the newest, which no selection uses.
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
    """Options of a walk-forward split: the newest ``folds`` blocks of rows, recordings (``session``) or UTC days.

    ``rolling`` training uses only the ``training_span_h`` hours before the test block, by default
    the time span of the first fold's past; otherwise training uses all earlier rows.
    """

    folds: int
    fold_by: str = "auto"
    rolling: bool = False
    training_span_h: float | None = None
    embargo_s: int


def resolve_fold_by(dataset: Dataset, fold_by: str) -> str:
    """The unit for ``auto``: at least four days, else at least three recordings, else equal shares of rows.

    A unit is not used if one day or recording has more than half of the rows.
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
    fold_by = resolve_fold_by(dataset, walk.fold_by)
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
    past = purge(dataset, np.arange(oldest, start), test, walk.embargo_s)
    train, validation = split_rows(dataset, past, VALIDATION_SHARE, walk.embargo_s)
    if not is_final:
        test = select_labelled_before(dataset, test, int(dataset.time[end]))
    return Split(number, train, validation, test, is_final, name)


def split_rows(dataset: Dataset, past: Rows, share: float, embargo_s: int) -> tuple[Rows, Rows]:
    """Splits ``past`` (ascending) into older rows, purged, and the newest ``share``.

    The cut moves to the start of a recording if one is nearby.
    """
    if len(past) == 0:
        return past, past
    cut = cut_near(dataset, past, 1.0 - share, share)
    later = past[dataset.time[past] >= cut]
    return purge(dataset, past[dataset.time[past] < cut], later, embargo_s), later


def cut_near(dataset: Dataset, rows: Rows, share: float, tolerance: float) -> int:
    """The time of the cut after ``share`` of ``rows``, or of a recording start within a third of ``tolerance``."""
    n = len(rows)
    wanted = min(n - 1, round(share * n))
    starts = np.searchsorted(rows, recordings(dataset))
    near = starts[(np.abs(starts - wanted) <= tolerance * n / 3.0) & (starts > 0) & (starts < n)]
    row = int(near[np.argmin(np.abs(near - wanted))]) if len(near) else wanted
    return int(dataset.time[rows[row]])


def _shares(dataset: Dataset, folds: int) -> NDArray[np.int64]:
    """First rows of ``folds`` blocks of equal size, moved to nearby starts of recordings."""
    share = (1.0 - FIRST_PAST_SHARE) / (folds + 1)
    rows = np.arange(len(dataset))
    cuts = [cut_near(dataset, rows, FIRST_PAST_SHARE + share * block, share) for block in range(1, folds + 1)]
    return np.unique(np.searchsorted(dataset.time, cuts))


def _newest(starts: NDArray[np.int64], folds: int) -> NDArray[np.int64]:
    """The newest units as test blocks; the oldest unit is always training data."""
    return starts[1:][-folds:]


def _span_ns(dataset: Dataset, walk: WalkForward, first: int) -> int | None:
    if not walk.rolling:
        return None
    if walk.training_span_h is not None:
        return round(walk.training_span_h * 3600 * SECOND_NS)
    return int(dataset.time[first] - dataset.time[0])


def _name(dataset: Dataset, fold_by: str, start: int) -> str:
    moment = format_time(int(dataset.time[start]))
    return moment[:10] if fold_by == "day" else f"from {moment[:19]}Z"


UNITS: Final[dict[str, Callable[[Dataset], NDArray[np.int64]]]] = {"session": recordings, "day": days}
FOLD_BY: Final = ("auto", "rows", *UNITS)


Fractions: TypeAlias = tuple[float, float, float]

DEFAULT_FRACTIONS: Final = (0.70, 0.15, 0.15)
DEFAULT_FOLDS: Final = 5

SPLIT_METHODS: Final = ("walk_forward", "time_based", "stratified")
TRAINING: Final = ("expanding", "rolling")


def split(
    dataset: Dataset,
    method: str = "walk_forward",
    *,
    fractions: Fractions = DEFAULT_FRACTIONS,
    folds: int = DEFAULT_FOLDS,
    seed: int = 0,
    fold_by: str = "auto",
    training: str = "expanding",
    training_span_h: float | None = None,
    embargo_s: int | None = None,
) -> list[Split]:
    """The folds of a data set, oldest first; the newest is final. ``time_based`` and ``stratified`` give one fold.

    The result includes folds with an empty part, so that callers can report them. ``embargo_s`` is the lookback of the
    features, by default the longest window.

    Raises:
        UsageError: an argument is unknown or out of range.
        NotEnoughData: no fold has rows in every part.
    """
    _check(method, fractions, folds, fold_by, training, training_span_h)
    embargo_s = dataset.facts.feature_set.longest_window if embargo_s is None else embargo_s
    if method == "stratified":
        return [stratified(dataset, fractions, seed)]
    if method == "time_based":
        parts = [time_based(dataset, fractions, embargo_s)]
    else:
        walk = WalkForward(
            folds=folds,
            fold_by=fold_by,
            rolling=training == "rolling",
            training_span_h=training_span_h,
            embargo_s=embargo_s,
        )
        parts = walk_forward(dataset, walk)
    if all(part.empty_parts for part in parts):
        raise NotEnoughData(_empty_split_message(method, parts, embargo_s))
    return parts


def newest_fold(parts: Sequence[Split]) -> Split:
    """The newest fold that has rows in every part; ``split`` guarantees that one exists."""
    return [part for part in parts if not part.empty_parts][-1]


def time_based(dataset: Dataset, fractions: Fractions, embargo_s: int) -> Split:
    """Splits rows by time into training, validation and test."""
    rows = np.arange(len(dataset))
    cut = cut_near(dataset, rows, fractions[0] + fractions[1], min(fractions))
    test = rows[dataset.time >= cut]
    past = purge(dataset, rows[dataset.time < cut], test, embargo_s)
    train, validation = split_rows(dataset, past, fractions[1] / (fractions[0] + fractions[1]), embargo_s)
    return Split(0, train, validation, test, is_final=True)


def stratified(dataset: Dataset, fractions: Fractions, seed: int) -> Split:
    """Random rows with equal spike rates. Windows overlap between the parts, so scores are too optimistic."""
    rng = np.random.default_rng(seed)
    spike = spikes(dataset.future_volatility, spike_threshold(dataset.future_volatility))
    parts: list[list[Rows]] = [[], [], []]
    for label in (0, 1):
        rows = rng.permutation(np.flatnonzero(spike == label))
        cuts = np.round(np.cumsum(fractions[:2]) * len(rows)).astype(int)
        for part, drawn in zip(parts, np.split(rows, cuts), strict=True):
            part.append(drawn)
    train, validation, test = (np.sort(np.concatenate(part)) for part in parts)
    return Split(0, train, validation, test, is_final=True)


def _check(
    method: str, fractions: Fractions, folds: int, fold_by: str, training: str, training_span_h: float | None
) -> None:
    named = (
        ("split method", method, SPLIT_METHODS),
        ("unit to fold by", fold_by, FOLD_BY),
        ("training", training, TRAINING),
    )
    for what, name, known in named:
        if name not in known:
            raise UsageError(f"unknown {what} {name!r}; use one of {', '.join(known)}")
    if min(fractions) <= 0.0 or abs(sum(fractions) - 1.0) > 1e-9 or folds < 1:
        raise UsageError(f"shares must be positive with sum 1, folds at least 1; were {fractions} and {folds}")
    if training_span_h is not None and (training != "rolling" or not 0.0 < training_span_h < float("inf")):
        raise UsageError(
            f"a training span needs rolling training and more than 0 hours; was {training_span_h:g}, {training}"
        )


def _empty_split_message(method: str, parts: Sequence[Split], embargo_s: int) -> str:
    if not parts:
        return f"{method}: there is only one recording or day, so no training data precede it; fold by rows"
    return (
        f"{method}: no {parts[-1].empty_parts[0]} rows left in fold {len(parts)} after purge of a horizon and "
        f"embargo ({embargo_s} s); record for longer or use fewer folds"
    )
