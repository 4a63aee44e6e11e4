"""What the network of ``lstm`` is given of a row: the last minute second by second, on a scale of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from volspike.models.columns import STILL_VOLATILITY
from volspike.models.nodes import Nodes

SECONDS: Final = 60
SCALE: Final = "realized_volatility_300s"
RETURNS: Final = tuple(f"lag_return_{second}s" for second in range(SECONDS, 0, -1))
TICKS: Final = tuple(f"lag_ticks_{second}s" for second in range(SECONDS, 0, -1))
NEEDED: Final = (*RETURNS, *TICKS, SCALE)

_MOST_DEVIATIONS: Final = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class MinuteInput:
    """Where the columns stand in a row, and the mean and deviation of ln(1 + ticks) over the training rows."""

    returns: NDArray[np.int64]
    ticks: NDArray[np.int64]
    scale: int
    mean: np.float32
    deviation: np.float32

    @classmethod
    def fit(cls, x: NDArray[np.float32], names: Sequence[str]) -> Self:
        """Learn from complete rows how many ticks a second has."""
        returns, ticks = (np.array([names.index(name) for name in lags], np.int64) for lags in (RETURNS, TICKS))
        counted = np.log1p(np.maximum(x[:, ticks], 0.0, dtype=np.float64))
        deviation = np.float32(counted.std()) or np.float32(1.0)
        return cls(returns, ticks, names.index(SCALE), np.float32(counted.mean()), deviation)

    def apply(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The sequence of each complete row, oldest second first: (n, 60, 2).

        A return is told in the volatilities of the last five minutes, at most twenty; ticks as their logarithm.
        """
        scale = np.maximum(x[:, self.scale], np.float32(0.0)) + np.float32(STILL_VOLATILITY)
        with np.errstate(over="ignore"):
            scaled = x[:, self.returns] / scale[:, None]
        returns = np.clip(scaled, np.float32(-_MOST_DEVIATIONS), np.float32(_MOST_DEVIATIONS))
        counted = np.log(np.maximum(x[:, self.ticks], np.float32(0.0)) + np.float32(1.0))
        return np.stack([returns, (counted - self.mean) / self.deviation], axis=2)

    def to_nodes(self, nodes: Nodes) -> str:
        """Adds the sequences as the LSTM operator takes them: float32 [60, N, 2]."""
        none, last = np.float32(0.0), np.array([2])
        known = nodes.add("Max", nodes.gathered(np.array([self.scale])), none)
        scaled = nodes.add("Div", nodes.gathered(self.returns), nodes.add("Add", known, np.float32(STILL_VOLATILITY)))
        returns = nodes.add("Clip", scaled, np.float32(-_MOST_DEVIATIONS), np.float32(_MOST_DEVIATIONS))
        counted = nodes.add("Add", nodes.add("Max", nodes.gathered(self.ticks), none), np.float32(1.0))
        ticks = nodes.add("Div", nodes.add("Sub", nodes.add("Log", counted), self.mean), self.deviation)
        channels = [nodes.add("Unsqueeze", channel, last) for channel in (returns, ticks)]
        return nodes.add("Transpose", nodes.add("Concat", *channels, axis=2), perm=[1, 0, 2])
