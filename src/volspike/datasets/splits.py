"""Which rows train, which choose, and which judge, by each of the methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

from volspike.datasets.dataset import Dataset
from volspike.datasets.purging import HORIZON_NS, Rows, purged
from volspike.datasets.walk_forward import FOLD_BY, Split, WalkForward, cut_near, parted, walk_forward
from volspike.errors import NotEnoughData, UsageError
from volspike.labels import HORIZON_S, spike_threshold, spikes

__all__ = ["DEFAULT_FOLDS", "DEFAULT_FRACTIONS", "HORIZON_NS", "SPLIT_METHODS", "TRAINING", "Split", "newest", "split"]

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
    """The folds of a data set, oldest first; one fold for the methods that cut once. The newest is the final one.

    Folds of which purge and embargo leave a part empty are among them, so that they can be told. ``embargo_s`` is how
    far features look back, by default the longest window.

    Raises:
        UsageError: no such method, unit or manner of training, or shares, folds or a span that are none.
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
        raise NotEnoughData(_nothing_left(method, parts, embargo_s))
    return parts


def newest(parts: Sequence[Split]) -> Split:
    """The newest fold that has rows in every part; ``split`` has seen to it that there is one."""
    return [part for part in parts if not part.empty_parts][-1]


def time_based(dataset: Dataset, fractions: Fractions, embargo_s: int) -> Split:
    """One cut into past and test, and the past's newest rows for validation."""
    rows = np.arange(len(dataset))
    cut = cut_near(dataset, rows, fractions[0] + fractions[1], min(fractions))
    test = rows[dataset.time >= cut]
    past = purged(dataset, rows[dataset.time < cut], test, embargo_s)
    train, validation = parted(dataset, past, fractions[1] / (fractions[0] + fractions[1]), embargo_s)
    return Split(0, train, validation, test, is_final=True)


def stratified(dataset: Dataset, fractions: Fractions, seed: int) -> Split:
    """Rows drawn at random with equal spike rates: overlapping windows on both sides of the cut, so no evidence."""
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
            raise UsageError(f"no {what} {name!r}; there are {', '.join(known)}")
    if min(fractions) <= 0.0 or abs(sum(fractions) - 1.0) > 1e-9 or folds < 1:
        raise UsageError(f"shares must be positive and make 1, folds at least 1: were {fractions} and {folds}")
    if training_span_h is not None and (training != "rolling" or not 0.0 < training_span_h < float("inf")):
        raise UsageError(
            f"a training span is hours above 0, of rolling training: was {training_span_h:g} of {training} training"
        )


def _nothing_left(method: str, parts: Sequence[Split], embargo_s: int) -> str:
    if not parts:
        return f"{method}: there is one recording or day only, so nothing comes before it; fold by rows"
    return (
        f"{method}: no {parts[-1].empty_parts[0]} rows left in fold {len(parts)} once purge ({HORIZON_S} s) and "
        f"embargo ({embargo_s} s) are kept: record for longer or take fewer folds"
    )
