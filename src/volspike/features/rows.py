"""Feature rows: one by name, or many as columns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.features.schema import FeatureSet

Floats: TypeAlias = NDArray[np.float64]

ROW_FLOATS: Final = ("price", "best_bid", "best_ask", "spread", "spread_bps", "time_since_last_trade", "gap_seconds")
"""The float columns of a row before its features, in the order in which the kernel writes them."""


class Every(StrEnum):
    """The row rate: a row at each tick, or at the end of each second of a session."""

    TICK = "tick"
    SECOND = "1s"


class FeatureRow(msgspec.Struct, frozen=True, gc=False):
    """One feature row; ``timestamp`` in ns UTC, ``session_id`` the Unix second in which the session began.

    ``values`` are the floats of ``ROW_FLOATS`` and then the features of the set.
    """

    timestamp: int
    product_id: str
    session_id: int
    is_warm: bool
    is_whole: bool
    values: Floats
    feature_set: FeatureSet

    @property
    def features(self) -> Floats:
        """The features alone, in the order of the set."""
        return self.values[len(ROW_FLOATS) :]

    def by_name(self) -> dict[str, float]:
        """Every float of the row under its column's name."""
        return dict(zip(ROW_FLOATS + self.feature_set.names, self.values.tolist(), strict=True))


@dataclass(frozen=True, slots=True, eq=False)
class FeatureRows:
    """n feature rows as columns. ``values`` is (n, 7 + features), its columns those of ``column_names``.

    ``event`` is the index of the tick that made the row, among those passed to ``FeatureEngine.run``.
    """

    feature_set: FeatureSet
    products: tuple[str, ...]
    timestamp: NDArray[np.int64]
    product: NDArray[np.int32]
    session_id: NDArray[np.int64]
    is_warm: NDArray[np.bool_]
    is_whole: NDArray[np.bool_]
    values: Floats
    event: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.timestamp)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Names of the columns of ``values``."""
        return ROW_FLOATS + self.feature_set.names

    @property
    def features(self) -> Floats:
        """The features alone: (n, features), in the order of the set."""
        return self.values[:, len(ROW_FLOATS) :]

    def column(self, name: str) -> Floats:
        """One float column by name."""
        return self.values[:, self.column_names.index(name)]

    def __getitem__(self, row: int) -> FeatureRow:
        return FeatureRow(
            int(self.timestamp[row]),
            self.products[int(self.product[row])],
            int(self.session_id[row]),
            bool(self.is_warm[row]),
            bool(self.is_whole[row]),
            self.values[row].copy(),
            self.feature_set,
        )

    def __iter__(self) -> Iterator[FeatureRow]:
        return (self[row] for row in range(len(self)))
