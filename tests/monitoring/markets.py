"""Quick markets whose volatility remembers, and of which it is known whether they changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from volspike.monitoring.block_permutation import DriftSample

SECOND = 10**9
NAMES = ("volatility_60s", "volatility_300s", "return_60s", "return_300s", "spread", "imbalance")


def wandering(n: int, memory_s: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(n,) a stationary AR(1) of variance 1 that forgets with ``memory_s``; begun in its own distribution."""
    kept = np.exp(-1.0 / memory_s)
    noise = rng.normal(size=n) * np.sqrt(1.0 - kept**2)
    noise[0] = rng.normal()
    return np.asarray(lfilter([1.0], [1.0, -kept], noise))


def stochastic_volatility(hours: float, memory_s: float, seed: int, step_s: int = 20) -> DriftSample:
    """One stationary market of a single product: returns of wandering volatility, seen every ``step_s`` seconds."""
    rng = np.random.default_rng(seed)
    n = round(hours * 3600) + 300
    returns = np.exp(0.8 * wandering(n, memory_s, rng)) * rng.normal(size=n) * 1e-4
    squares, moves = np.append(0.0, np.cumsum(returns**2)), np.append(0.0, np.cumsum(returns))
    ends = np.arange(300, n + 1)
    x = np.column_stack(
        [
            *(np.sqrt((squares[ends] - squares[ends - w]) / w) for w in (60, 300)),
            *(moves[ends] - moves[ends - w] for w in (60, 300)),
            np.exp(0.5 * wandering(n, memory_s / 2, rng)[299:]),
            wandering(n, 60.0, rng)[299:],
        ]
    )[::step_s]
    time = np.arange(len(x), dtype=np.int64) * step_s * SECOND
    return DriftSample(NAMES, ("BTC-USD",), time, np.zeros(len(x), np.int32), x)


def halves(market: DriftSample, *, scale: float = 1.0, cut: float = 0.5) -> tuple[DriftSample, DriftSample]:
    """The market up to its ``cut`` and from there on, everything but the imbalance ``scale`` times as large there."""
    early = np.arange(len(market)) < round(cut * len(market))
    late = market.rows(~early)
    factor = np.append(np.full(len(NAMES) - 1, scale), 1.0)
    changed = DriftSample(late.names, late.products, late.time, late.product, late.x * factor)
    return market.rows(early), changed
