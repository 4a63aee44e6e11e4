"""``Har``: the heterogeneous autoregression of log volatility over several windows, with weights that sum to one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from volspike.models.detector import Detector, TrainingRows
from volspike.models.volatility_curve import VolatilityCurve, WeightedLogarithms, log_volatility, with_tau

_LAST_MINUTE: Final = "realized_volatility_60s"
_WINDOWS: Final = tuple(f"realized_volatility_{window}s" for window in (30, 60, 300, 900, 3600))
_ROUNDING: Final = 1e-9


class Har(Detector):
    """A forecast of log volatility from those over 30 s to an hour, and a logistic curve over it relative to τ.

    Corsi, "A Simple Approximate Long-Memory Model of Realized Volatility" (2009), on logarithms and on minutes instead
    of days. The weights are least squares under two conditions: none is negative, and their sum is 1. So a market
    twice as volatile is forecast to stay so, and more volatility in any window never lowers the probability.
    """

    name: ClassVar[str] = "har"
    is_baseline: ClassVar[bool] = True
    requirement: ClassVar[str] = f"the column {_LAST_MINUTE}"

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        """The realized volatilities of its windows, and τ; () without that of the last minute."""
        return with_tau(_WINDOWS, offered) if _LAST_MINUTE in offered else ()

    def learn(self, rows: TrainingRows) -> VolatilityCurve:
        """See ``Detector.learn``."""
        columns = np.array([rows.names.index(name) for name in rows.names if name in _WINDOWS])
        past, future = log_volatility(rows.x[:, columns]), log_volatility(rows.volatility)
        shares, constant = fit_shares(past, future, rows.weight)
        return VolatilityCurve.fit(rows, WeightedLogarithms(columns, shares, constant))


def fit_shares(
    x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]
) -> tuple[NDArray[np.float64], float]:
    """Weights (k,) of the columns of ``x`` (n, k), none negative, with sum 1, and a constant: least squares for ``y``.

    The optimum is the least-squares solution on those columns whose weight is above 0, so the best of all subsets of
    columns whose own solution has no negative weight is exact. ``weight`` (n,) is that of each row.
    """
    rows = weight / weight.sum()
    mean, level = rows @ x, float(rows @ y)
    centred, error = x - mean, y - level
    gram, moment = (centred.T * rows) @ centred, (centred.T * rows) @ error
    best, least = np.eye(x.shape[1])[0], np.inf
    for size in range(1, x.shape[1] + 1):
        for subset in combinations(range(x.shape[1]), size):
            shares = np.zeros(x.shape[1])
            shares[list(subset)] = _solve_sum_to_one(gram[np.ix_(subset, subset)], moment[list(subset)])
            loss = float(shares @ gram @ shares - 2.0 * shares @ moment)
            if (shares >= -_ROUNDING).all() and loss < least:
                best, least = np.maximum(shares, 0.0), loss
    return best, level - float(best @ mean)


def _solve_sum_to_one(gram: NDArray[np.float64], moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """The weights w with sum 1 that minimize w·gram·w − 2 w·moment, relative to the first column."""
    others = np.arange(1, len(moment))
    difference = gram[1:, 1:] - gram[1:, :1] - gram[:1, 1:] + gram[0, 0]
    pull = moment[others] - moment[0] - gram[others, 0] + gram[0, 0]
    rest, *_ = np.linalg.lstsq(difference, pull)
    return np.concatenate([[1.0 - rest.sum()], rest])
