"""Whether two samples of a market come from one distribution, judged by whole blocks of time.

Rows of a market remember each other, so that thousands of them are worth a few dozen. A Kolmogorov-Smirnov test that
takes them for independent finds "drift" between any two halves of one stationary market. Here both samples are cut into
long blocks, and the distance between their distribution functions is held against the distances that come about when
blocks, not rows, change sides: a permutation test over blocks (Good, "Permutation, Parametric and Bootstrap Tests of
Hypotheses", 2005, for exchangeable blocks; Lahiri, "Resampling Methods for Dependent Data", 2003, for why they have
to be long). Blocks are as long as the shorter sample allows, for ten or twelve degrees of freedom cost little power
and a block that is too short costs the test its level.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
