"""Permutation test over blocks of time: whether two samples of a market have the same distribution.

Consecutive rows of a market are dependent, so that thousands of them are worth a few dozen. A Kolmogorov-Smirnov test
that assumes independence finds "drift" between any two halves of a stationary market. Here both samples are cut into
long blocks, and the distance between their distribution functions is compared with the distances that result when
blocks, not rows, are exchanged (Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005, for
exchangeable blocks; Lahiri, "Resampling Methods for Dependent Data", 2003, for why they have to be long). Blocks are
as long as the shorter sample allows: ten or twelve degrees of freedom cost little power, but blocks that are too short
cost the test its level.

The length of the dependence is the integrated autocorrelation time 1 + 2 Σ ρ(k), summed to the first lag that is five
times the sum so far (Sokal, "Monte Carlo Methods in Statistical Mechanics", 1989): n values with time τ are worth n / τ
independent ones. For a short series it is a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.market import SECOND_NS

SOKAL_WINDOW: Final = 5.0


def autocorrelation_time(values: NDArray[np.float64]) -> float:
    """The longer of the integrated autocorrelation times of ``values`` (n, evenly spaced) and of their deviations.

    In steps; 1 for a constant. Returns lose their sign at once but keep their size for hours, and a distribution
    depends on both, hence the absolute deviations from the median.
    """
    return max(integrated_time(values), integrated_time(np.abs(values - np.median(values))))


def integrated_time(values: NDArray[np.float64]) -> float:
    """The integrated autocorrelation time of ``values`` (n, evenly spaced), in steps; at least 1."""
    centred = values - values.mean() if len(values) else values
    if len(values) < 3 or not np.any(centred):
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * len(values))
    covariance = np.fft.irfft(spectrum * np.conj(spectrum))[: len(values)]
    partial = 1.0 + 2.0 * np.cumsum(covariance[1:]) / covariance[0]
    enough = np.flatnonzero(np.arange(1, len(values)) >= SOKAL_WINDOW * partial)
    last = int(enough[0]) if len(enough) else len(partial) - 1
    return max(1.0, float(partial[last]))


MAX_TIMES: Final = 8_000
"""Points in time of a sample: far more than it has independent ones."""

SILENCE_S: Final = 300.0


@dataclass(frozen=True, slots=True, eq=False)
class DriftSample:
    """n rows in time order, evenly spread over time.

    Attributes:
        names: the features, in the order of ``x``.
        products: the products that ``product`` indexes.
        time: (n,) ns UTC.
        product: (n,) index into ``products``.
        x: (n, f) features, NaN if unknown.
    """

    names: tuple[str, ...]
    products: tuple[str, ...]
    time: NDArray[np.int64]
    product: NDArray[np.int32]
    x: NDArray[np.float64]

    @classmethod
    def of(cls, dataset: Dataset, rows: NDArray[np.integer], names: tuple[str, ...], most: int = MAX_TIMES) -> Self:
        """The features ``names`` of ``rows`` (ascending) of a data set, thinned to about ``most`` points in time."""
        time, product = dataset.time[rows], dataset.product[rows]
        kept = thin(time, product, most)
        columns = np.array([dataset.names.index(name) for name in names], np.intp)
        x = dataset.x[np.ix_(rows[kept], columns)]
        return cls(names, dataset.products, time[kept], product[kept], x)

    def __len__(self) -> int:
        return len(self.time)

    def columns(self, names: tuple[str, ...]) -> Self:
        """The same rows with these features only."""
        return replace(self, names=names, x=self.x[:, [self.names.index(name) for name in names]])

    def rows(self, chosen: NDArray[np.bool_]) -> Self:
        """The rows selected by a mask (n,)."""
        return replace(self, time=self.time[chosen], product=self.product[chosen], x=self.x[chosen])

    def elapsed(self) -> NDArray[np.float64]:
        """(n,) seconds since the first row, counting at most five minutes of each silence."""
        if len(self.time) == 0:
            return np.empty(0)
        steps = np.minimum(np.diff(self.time, prepend=self.time[:1]) / SECOND_NS, SILENCE_S)
        return np.asarray(np.cumsum(steps))

    @property
    def span_s(self) -> float:
        """Seconds from the first to the last row, counting at most five minutes of each silence."""
        return float(self.elapsed()[-1]) if len(self) else 0.0


def thin(time: NDArray[np.int64], product: NDArray[np.int32], most: int) -> NDArray[np.int64]:
    """The last row of each product in every time step, ascending.

    A step is the smallest number of full seconds that leaves about ``most`` steps; ``time`` (n, ns) is ascending.
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
"""Levels at which the distribution functions are compared: the 1/32 … 31/32 quantiles of the pooled samples."""

PERMUTATIONS: Final = 1999


@dataclass(frozen=True, slots=True, eq=False)
class BlockShares:
    """The share of each block's values below each of the grid's quantiles.

    Attributes:
        share: (blocks, features, GRID), NaN if a block has no value of a feature.
        is_current: (blocks,) whether a block belongs to the current sample.
    """

    share: NDArray[np.float64]
    is_current: NDArray[np.bool_]


def permutation_test(
    blocks: BlockShares, permutations: int = PERMUTATIONS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(features,) the maximum distance between the two distribution functions, and its p-value.

    Every block has the same weight. p = (1 + number of permutations with at least this distance) / (1 + permutations),
    which is never 0; NaN if a feature has no value in one of the samples.
    """
    sides = _sides(blocks.is_current, permutations, seed)
    is_known = np.isfinite(blocks.share)
    share = np.where(is_known, blocks.share, 0.0).reshape(len(sides[0]), -1)
    count = is_known.reshape(len(sides[0]), -1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        current = (sides @ share) / (sides @ count)
        reference = ((1.0 - sides) @ share) / ((1.0 - sides) @ count)
    distance = np.abs(current - reference).reshape(len(sides), *blocks.share.shape[1:]).max(axis=2)
    observed = distance[0]
    # an equal distance that rounds differently must count as equal
    extreme = 1 + np.count_nonzero(~(distance[1:] < observed - 1e-9), axis=0)
    return observed, np.where(np.isfinite(observed), extreme / (1.0 + permutations), np.nan)


def _sides(is_current: NDArray[np.bool_], permutations: int, seed: int) -> NDArray[np.float64]:
    """(1 + permutations, blocks): 1 for a block of the current sample; first the observed order, then shuffled."""
    sides = np.tile(is_current.astype(np.float64), (1 + permutations, 1))
    np.random.default_rng(seed).permuted(sides[1:], axis=1, out=sides[1:])
    return sides


def adjust_p_values(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) p-values adjusted for multiple testing by the false discovery rate; NaN stays NaN and is not counted.

    Benjamini and Hochberg, "Controlling the False Discovery Rate", J. R. Statist. Soc. B 57, 1995: without any drift,
    the probability that some feature is below a level is about that level, for any number of features.
    """
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(np.isfinite(p_values))
    order = known[np.argsort(p_values[known])]
    ranked = p_values[order] * len(order) / np.arange(1, len(order) + 1)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(ranked[::-1])[::-1])
    return adjusted
