"""What a detector learns from: rows, what followed each of them, and how much each of them counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from volspike.errors import UsageError


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """Rows in time order; ``names`` are the columns of ``x`` (n, f), in which NaN stands for what was not told.

    ``volatility`` (n,) is the future volatility of each row, ``y`` (n,) is 1 where it reached ``tau``. ``weight`` (n,)
    is above 0 and 1 on average: rows that share their future with others count less.

    Raises:
        UsageError: lengths that do not fit together, a ``tau`` or a weight that is not above 0.
    """

    names: tuple[str, ...]
    x: NDArray[np.float64]
    y: NDArray[np.int8]
    volatility: NDArray[np.float64]
    tau: float
    weight: NDArray[np.float64]

    def __post_init__(self) -> None:
        rows = len(self.y)
        shapes = {"x": (rows, len(self.names)), "volatility": (rows,), "weight": (rows,)}
        for what, shape in shapes.items():
            if getattr(self, what).shape != shape:
                raise UsageError(f"{what} of a sample must be {shape}, was {getattr(self, what).shape}")
        if not self.tau > 0.0 or not (self.weight > 0.0).all():
            raise UsageError("tau and the weights of a sample must be above 0")

    def __len__(self) -> int:
        return len(self.y)

    def rows(self, kept: NDArray[np.int64] | NDArray[np.bool_]) -> Self:
        """The rows of these numbers, or those where ``kept`` is true, with the weights that they had."""
        return type(self)(self.names, self.x[kept], self.y[kept], self.volatility[kept], self.tau, self.weight[kept])
