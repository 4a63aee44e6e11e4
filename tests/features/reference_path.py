"""The features of the price path computed from their formulas: each second's prices in NumPy, without state."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tests.features.reference import SECOND

if TYPE_CHECKING:
    from tests.features.reference_added import Seconds

NAN = math.nan
CELL = SECOND // 10
Floats = NDArray[np.float64]


def over(part: float, total: float) -> float:
    """A quotient; NaN if the total is too small to divide by."""
    return part / total if total > 1e-200 else NAN


def log_returns(prices: list[float]) -> Floats:
    """Logarithmic returns from each price to the next."""
    path = np.array(prices)
    returns: Floats = np.log1p(np.diff(path) / path[:-1])
    return returns


class PricePath:
    """What happened to the price within each finished second of a session; x[0] is its first second."""

    def __init__(self, seconds: Seconds) -> None:
        self.ticks = [(at, tick.price) for at, tick in seconds.session.ticks if at // SECOND <= seconds.newest]
        # each second begins at the price of the one before, the first one at its first tick
        opens = [self.ticks[0][1], *map(float, seconds.price[:-1])]
        prices, cells = [[price] for price in opens], [{-1: price} for price in opens]
        for at, price in self.ticks:
            prices[at // SECOND - seconds.first].append(price)
            cells[at // SECOND - seconds.first][at // CELL] = price  # the cell's newest tick replaces those before
        self.high, self.low = np.array([max(path) for path in prices]), np.array([min(path) for path in prices])
        self.tick2 = np.array([np.sum(log_returns(path) ** 2) for path in prices])
        self.cell2 = np.array([np.sum(log_returns([*ends.values()]) ** 2) for ends in cells])
        changed = [at for (_, last), (at, price) in pairwise(self.ticks) if price != last]
        self.changed_at = [self.ticks[0][0], *changed][-1]


def variance(x: Floats, h: float) -> float:
    """E_h[x²] − E_h[x]², as the weighted mean of squared distances from the mean."""
    weights = 0.5 ** (np.arange(len(x) - 1, -1, -1) / h)
    mean = weights @ x / weights.sum()
    return float(weights @ (x - mean) ** 2 / weights.sum())


def log_variances(seconds: Seconds) -> Floats:
    """ln E_10[r²] of each finished second in which it is above 1e-200."""
    decay = 0.5 ** (1 / 10)
    sums = accumulate(seconds.r[1:] ** 2, lambda before, square: before * decay + square)
    weights = accumulate(np.ones(len(seconds.r) - 1), lambda before, one: before * decay + one)
    means = [total / weight for total, weight in zip(sums, weights, strict=True)]
    logs: Floats = np.log([mean for mean in means if mean > 1e-200])
    return logs


def price_path(s: Seconds) -> dict[str, float]:
    """The features of the price path at the newest finished second."""
    path, e, r2 = PricePath(s), s.mean, s.r**2
    hour = s.deviation(3600)
    found = {"seconds_since_change": ((s.newest + 1) * SECOND - path.changed_at) / 1e9}
    for w in (10, 60, 300, 900):
        n = min(w, len(s.price) - 1)
        high, low, price = path.high[-n:].max(), path.low[-n:].min(), s.price[-1]
        span, change = math.log1p((high - low) / low), math.log1p((price - s.price[-n - 1]) / s.price[-n - 1])
        parkinson = span / math.sqrt(4 * math.log(2) * n)
        garman_klass = math.sqrt((span**2 / 2 - (2 * math.log(2) - 1) * change**2) / n)
        from_middle = abs(math.log1p((price - high) / high) + math.log1p((price - low) / low))
        found |= {
            f"parkinson_ratio_{w}s": over(parkinson, hour),
            f"garman_klass_ratio_{w}s": over(garman_klass, hour),
            f"range_efficiency_{w}s": over(parkinson, s.deviation(w)),
            f"range_position_{w}s": over(from_middle, span),
            f"largest_return_{w}s": over(float(np.abs(s.r[-w:]).max()), hour),
        }
    logs = log_variances(s)
    for h in (10, 60, 300, 1800):
        found |= {
            f"return_kurtosis_{h}s": over(e(h, r2**2), e(h, r2) ** 2),
            f"volatility_of_volatility_{h}s": math.sqrt(variance(logs, h)) if len(logs) else NAN,
            f"subsecond_ratio_{h}s": math.sqrt(over(e(h, path.cell2), e(1800, path.cell2))),
            f"subsecond_signature_{h}s": math.sqrt(over(e(h, path.cell2), e(h, r2))),
            f"tick_volatility_ratio_{h}s": math.sqrt(over(e(h, path.tick2), e(1800, path.tick2))),
            f"tick_signature_{h}s": math.sqrt(over(e(h, path.tick2), e(h, r2))),
        }
    return found
