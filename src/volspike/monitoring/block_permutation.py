"""How long a series remembers: the stretch of time after which its values say nothing of each other.

The integrated autocorrelation time is 1 + 2 Σ ρ(k), summed up to the first lag that is five times the sum so far
(Sokal, "Monte Carlo Methods in Statistical Mechanics: Foundations and New Algorithms", 1989): n values that remember
for τ are worth n / τ independent ones. A short series hides how long it remembers, so that this is a lower bound there.

Rows of a market as a look for drift takes them: in time order, thinned out, cut into blocks of equal time.

Whether two samples of a market come from one distribution, judged by whole blocks of time.

Rows of a market remember each other, so that thousands of them are worth a few dozen. A Kolmogorov-Smirnov test that
takes them for independent finds "drift" between any two halves of one stationary market. Here both samples are cut into
long blocks, and the distance between their distribution functions is held against the distances that come about when
blocks, not rows, change sides: a permutation test over blocks (Good, "Permutation, Parametric and Bootstrap Tests of
Hypotheses", 2005, for exchangeable blocks; Lahiri, "Resampling Methods for Dependent Data", 2003, for why they have
to be long). Blocks are as long as the shorter sample allows, for ten or twelve degrees of freedom cost little power
and a block that is too short costs the test its level.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.market import SECOND_NS

WINDOW: Final = 5.0


def memory(values: NDArray[np.float64]) -> float:
    """The longer of the memories of ``values`` (n, evenly spaced) and of their distance from the median, in steps.

    A return forgets its sign at once and its size for hours; a distribution moves with both. 1 for a constant.
    """
    return max(integrated_time(values), integrated_time(np.abs(values - np.median(values))))


def integrated_time(values: NDArray[np.float64]) -> float:
    """The integrated autocorrelation time of ``values`` (n, evenly spaced), in steps; at least 1."""
    centred = values - values.mean() if len(values) else values
    if len(values) < 3 or not np.any(centred):
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * len(values))
    covariance = np.fft.irfft(spectrum * np.conj(spectrum))[: len(values)]
    reached = 1.0 + 2.0 * np.cumsum(covariance[1:]) / covariance[0]
    enough = np.flatnonzero(np.arange(1, len(values)) >= WINDOW * reached)
    last = int(enough[0]) if len(enough) else len(reached) - 1
    return max(1.0, float(reached[last]))


MOST_ROWS: Final = 8_000
"""Instants of a sample that are looked at: far more than it has independent ones."""

SILENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class DriftSample:
    """n rows in time order.

    Attributes:
        names: the features, in the order of ``x``.
        products: what ``product`` counts.
        time: (n,) ns UTC.
        product: (n,) index into ``products``.
        x: (n, f) features, NaN where one is not known.
    """

    names: tuple[str, ...]
    products: tuple[str, ...]
    time: NDArray[np.int64]
    product: NDArray[np.int32]
    x: NDArray[np.float64]

    @classmethod
    def of(cls, dataset: Dataset, rows: NDArray[np.integer], names: tuple[str, ...], most: int = MOST_ROWS) -> Self:
        """The ``names`` of these ``rows`` (ascending) of a data set, thinned out to about ``most`` instants."""
        time, product = dataset.time[rows], dataset.product[rows]
        kept = spread_out(time, product, most)
        columns = np.array([dataset.names.index(name) for name in names])
        x = dataset.x[np.ix_(rows[kept], columns)]
        return cls(names, dataset.products, time[kept], product[kept], x)

    def __len__(self) -> int:
        return len(self.time)

    def columns(self, names: tuple[str, ...]) -> Self:
        """The same rows with these features alone."""
        return replace(self, names=names, x=self.x[:, [self.names.index(name) for name in names]])

    def rows(self, chosen: NDArray[np.bool_]) -> Self:
        """Those rows that a mask (n,) chooses."""
        return replace(self, time=self.time[chosen], product=self.product[chosen], x=self.x[chosen])

    def elapsed(self) -> NDArray[np.float64]:
        """(n,) seconds since the first row, on a clock that stands still after five minutes of silence."""
        if len(self.time) == 0:
            return np.empty(0)
        steps = np.minimum(np.diff(self.time, prepend=self.time[:1]) / SECOND_NS, SILENCE_S)
        return np.asarray(np.cumsum(steps))

    @property
    def span_s(self) -> float:
        """Seconds that the sample covers, silences left out."""
        return float(self.elapsed()[-1]) if len(self) else 0.0


def spread_out(time: NDArray[np.int64], product: NDArray[np.int32], most: int) -> NDArray[np.int64]:
    """Rows, ascending, evenly spread over time: the last of each product in every step of whole seconds.

    The step is the shortest that leaves about ``most`` steps; ``time`` (n) is in ns and in order.
    """
    if len(time) == 0:
        return np.empty(0, np.int64)
    gaps = np.minimum(np.diff(time, prepend=time[:1]), round(SILENCE_S * SECOND_NS))
    step_ns = max(1, -(-int(gaps.sum()) // (most * SECOND_NS))) * SECOND_NS
    slot = time // step_ns
    order = np.lexsort((np.arange(len(time)), slot, product))
    is_last = np.append((np.diff(slot[order]) != 0) | (np.diff(product[order]) != 0), True)
    return np.sort(order[is_last])


GRID: Final = 31
"""Levels at which distribution functions are compared: the 1/32 … 31/32 quantiles of both samples together."""

PERMUTATIONS: Final = 1999


@dataclass(frozen=True, slots=True, eq=False)
class BlockShares:
    """What share of each block's values lies below each of the grid's quantiles.

    Attributes:
        share: (blocks, features, GRID), NaN where a block has no value of a feature.
        is_current: (blocks,) which sample a block is of.
    """

    share: NDArray[np.float64]
    is_current: NDArray[np.bool_]


def distances(
    blocks: BlockShares, permutations: int = PERMUTATIONS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(features,) the greatest distance between the two distribution functions, and its p-value.

    A block counts as a block, however many rows it has. p is (1 + the permutations that reach the distance) /
    (1 + permutations), which is never 0; NaN where a feature has no value in one of the samples.
    """
    sides = _sides(blocks.is_current, permutations, seed)
    told = np.isfinite(blocks.share)
    share = np.where(told, blocks.share, 0.0).reshape(len(sides[0]), -1)
    count = told.reshape(len(sides[0]), -1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        current = (sides @ share) / (sides @ count)
        reference = ((1.0 - sides) @ share) / ((1.0 - sides) @ count)
    apart = np.abs(current - reference).reshape(len(sides), *blocks.share.shape[1:]).max(axis=2)
    found = apart[0]
    # an equal distance reached by another order of additions must count as reached
    reached = 1 + np.count_nonzero(~(apart[1:] < found - 1e-9), axis=0)
    return found, np.where(np.isfinite(found), reached / (1.0 + permutations), np.nan)


def _sides(is_current: NDArray[np.bool_], permutations: int, seed: int) -> NDArray[np.float64]:
    """(1 + permutations, blocks): 1 for a block of the current sample; as it is first, then shuffled."""
    sides = np.tile(is_current.astype(np.float64), (1 + permutations, 1))
    np.random.default_rng(seed).permuted(sides[1:], axis=1, out=sides[1:])
    return sides


def discoveries(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) p-values made to hold for all features together; NaN stays NaN and is not counted.

    Benjamini and Hochberg, "Controlling the False Discovery Rate", J. R. Statist. Soc. B 57, 1995: on data that did
    not drift at all the chance that any feature is called at a level is about that level, however many there are.
    """
    adjusted = np.full(len(p_values), np.nan)
    told = np.flatnonzero(np.isfinite(p_values))
    order = told[np.argsort(p_values[told])]
    ranked = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(ranked[::-1])[::-1])
    return adjusted
