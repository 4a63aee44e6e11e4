"""How long a series remembers: the stretch of time after which its values say nothing of each other.

The integrated autocorrelation time is 1 + 2 Σ ρ(k), summed up to the first lag that is five times the sum so far
(Sokal, "Monte Carlo Methods in Statistical Mechanics: Foundations and New Algorithms", 1989): n values that remember
for τ are worth n / τ independent ones. A short series hides how long it remembers, so that this is a lower bound there.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

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
