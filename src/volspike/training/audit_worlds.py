"""The data as it is, and data like it of which features tell nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from volspike.datasets import Dataset
from volspike.datasets.build import row_second
from volspike.training.audit_request import AuditRequest
from volspike.training.null_market import NullMarket, null_dataset, one_second_returns

WORLDS: Final = {
    "yours": "the data as it is",
    "turned": "its labels turned round in time: as like their neighbours as before, but of other moments",
    "shuffled": "its labels in an order drawn by lot, unlike their neighbours, so that no leak is found",
    "null market": "independent returns as large as yours, through the same kernel: nothing can be foreseen",
}
"""Name → what it is."""

MOST_SECONDS: Final = 50_000
MOST_TICKS_PER_SECOND: Final = 20.0


def worlds(yours: Dataset, null: Dataset, seed: int) -> Iterator[tuple[str, Dataset]]:
    """The data sets of ``WORLDS``, in its order."""
    yield from zip(WORLDS, (yours, turned(yours, seed), shuffled(yours, seed), null), strict=True)


def every_nth_second(dataset: Dataset, step: int) -> Dataset:
    """The rows of the seconds that ``step`` divides."""
    kept = row_second(dataset.time, dataset.facts.every) % step == 0
    columns = ("time", "product", "session", "x", "future_volatility", "persistence")
    return replace(dataset, **{name: getattr(dataset, name)[kept] for name in columns})


def turned(dataset: Dataset, seed: int) -> Dataset:
    """Each product's future volatilities moved on by the same quarter to three quarters of its rows, the last ones to
    the beginning: features tell nothing of them but by chance, and each is as like its neighbours as before.

    Turned over all sessions and not within each: there a wild session's features would stand beside a wild session's
    future still.
    """
    share = np.random.default_rng([seed, 2]).uniform(0.25, 0.75)
    future = dataset.future_volatility.copy()
    for product in np.unique(dataset.product):
        rows = np.flatnonzero(dataset.product == product)
        future[rows] = np.roll(future[rows], round(share * len(rows)))
    return replace(dataset, future_volatility=future)


def shuffled(dataset: Dataset, seed: int) -> Dataset:
    """The future volatilities in an order drawn by lot."""
    rng = np.random.default_rng([seed, 3])
    return replace(dataset, future_volatility=rng.permutation(dataset.future_volatility))


def null_like(dataset: Dataset, request: AuditRequest) -> Dataset:
    """A null market as long as the recording, up to ``MOST_SECONDS``, and with as many ticks a second.

    Raises:
        NotEnoughData: the recording has no returns to draw from.
    """
    returns = one_second_returns(request.features, dataset.facts)
    window = dataset.facts.feature_set.longest_window
    counts = dataset.x[:, dataset.names.index(f"trade_intensity_{window}s")]
    market = NullMarket(
        returns=returns,
        seconds=min(len(returns), MOST_SECONDS),
        ticks_per_second=min(float(np.nanmean(counts)) / window, MOST_TICKS_PER_SECOND),
        start=int(row_second(dataset.time[:1], dataset.facts.every)[0]),
        seed=request.seed,
    )
    return null_dataset(dataset.facts, market, request.rows)
