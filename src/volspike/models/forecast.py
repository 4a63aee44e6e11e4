"""Forecasts of volatility itself, which ``lightgbm`` and ``lstm`` start from and a curve turns into a probability.

Whether a minute reaches τ depends on the level of the market, and that level shifts from day to day. A model that
learns spike or no spike learns the level of its training days with it; one that learns the logarithm of volatility
learns how the next minute compares with those before it, and τ comes in afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from volspike.models.columns import plain_volatilities
from volspike.models.nodes import Nodes
from volspike.models.standard import Standard

STILL_SHARE: Final = 0.05
"""Of τ: what is added to volatility before its logarithm is taken. A still minute and a nearly still one are alike."""

_PENALTY: Final = 1e-3
_MOSTLY_FILLED: Final = 0.99


def log_target(volatility: NDArray[np.float64], tau: float) -> NDArray[np.float64]:
    """ln((volatility + 0.05 τ) / τ): near 0 where volatility is near τ, never below −3."""
    target: NDArray[np.float64] = np.log(volatility / tau + STILL_SHARE)
    return target


def filled_volatilities(x: NDArray[np.float32], names: Sequence[str]) -> tuple[str, ...]:
    """Those of the volatilities in ``names`` that hold nearly as many values as the one that holds most.

    At the start of a session all of them are missing together, which says nothing against any of them; one that goes
    on missing when the others do not would take every such row with it.
    """
    offered = plain_volatilities(names)
    counts = np.array([np.isfinite(x[:, names.index(name)]).sum() for name in offered])
    return tuple(name for name, count in zip(offered, counts, strict=True) if count >= _MOSTLY_FILLED * counts.max())


@dataclass(frozen=True, slots=True, eq=False)
class LinearForecast:
    """The logarithm of volatility over τ as a weighted sum of the logarithms of volatilities past.

    Corsi's HAR (2009) with exponentially weighted volatilities beside the realized ones, shrunk by an L2 penalty
    since they overlap. Without any volatility it is the mean.
    """

    standard: Standard
    coefficients: NDArray[np.float64]
    intercept: float

    @classmethod
    def fit(
        cls,
        x: NDArray[np.float32],
        names: Sequence[str],
        chosen: Sequence[str],
        target: NDArray[np.float64],
        weight: NDArray[np.float64],
    ) -> Self:
        """Ridge regression on the ``chosen`` columns of rows ``x``, which are complete in these."""
        standard = Standard.fit(x, names, weight, chosen=chosen)
        if not chosen:
            return cls(standard, np.zeros(0), float(np.average(target, weights=weight)))
        ridge = Ridge(alpha=_PENALTY * float(weight.sum())).fit(standard.apply(x), target, sample_weight=weight)
        return cls(standard, np.asarray(ridge.coef_, np.float64), float(ridge.intercept_))

    @property
    def needed(self) -> list[int]:
        """The columns without which a row cannot be scored."""
        columns: list[int] = self.standard.columns.tolist()
        return columns

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """The forecast for each row of ``x`` (n, f)."""
        forecast: NDArray[np.float64] = self.standard.apply(x) @ self.coefficients + self.intercept
        return forecast

    def to_nodes(self, nodes: Nodes) -> str:
        """Adds the forecast: float64 [N], or [1] where it is the mean."""
        return self.standard.weighted_sum(nodes, self.coefficients, self.intercept)
