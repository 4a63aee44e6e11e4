"""A tick: one ticker message or trade of a market; and many ticks as columns.

``Tick`` is one event in the live path. ``Ticks`` holds many as NumPy arrays: tapes are read into it and the feature
kernel runs over it. Both have the same fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from math import nan
from typing import Any, Self, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

MISSING_ID = -1
"""The trade id or sequence number of a tick that has none."""


class Kind(IntEnum):
    """Ticker message or trade. Six feature families count ticker messages; trades add sizes to ``volume_velocity``."""

    TICKER = 0
    TRADE = 1


class Side(IntEnum):
    """The taker's side of a trade: BUY takes from the ask."""

    SELL = -1
    UNKNOWN = 0
    BUY = 1


class Profile(StrEnum):
    """The kinds of events that a source sends; a model is served where its features have values."""

    TICKER = "ticker"
    TICKER_AND_TRADE = "ticker+trade"
    TRADE = "trade"


class Tick(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One event of a market; a missing value is NaN, ``Side.UNKNOWN`` or ``MISSING_ID``, never 0.

    ``time`` is the exchange's clock and ``received`` ours, both in nanoseconds UTC; they are equal where the exchange
    sends no time. ``product_id`` is the exchange's name, such as ``BTC-USD``. Prices are in the quote currency, sizes
    in the base currency.
    """

    time: int
    received: int
    kind: Kind
    product_id: str
    price: float
    best_bid: float = nan
    best_ask: float = nan
    bid_size: float = nan
    ask_size: float = nan
    last_size: float = nan
    side: Side = Side.UNKNOWN
    trade_id: int = MISSING_ID
    sequence: int = MISSING_ID


Column: TypeAlias = NDArray[Any]

DTYPES: dict[str, type[np.generic]] = {
    "time": np.int64,
    "received": np.int64,
    "kind": np.int8,
    "product": np.int32,
    "price": np.float64,
    "best_bid": np.float64,
    "best_ask": np.float64,
    "bid_size": np.float64,
    "ask_size": np.float64,
    "last_size": np.float64,
    "side": np.int8,
    "trade_id": np.int64,
    "sequence": np.int64,
}
"""The columns of ``Ticks`` in their order, with their types."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticks:
    """n ticks as arrays of length n, in the order of arrival.

    ``product`` holds indices into ``products``; the other columns are the fields of ``Tick``.
    """

    products: tuple[str, ...]
    time: Column
    received: Column
    kind: Column
    product: Column
    price: Column
    best_bid: Column
    best_ask: Column
    bid_size: Column
    ask_size: Column
    last_size: Column
    side: Column
    trade_id: Column
    sequence: Column

    def __len__(self) -> int:
        return len(self.time)

    def __getitem__(self, rows: slice | Column) -> Ticks:
        """The ticks of a slice, a mask or an index array; ``products`` is unchanged."""
        return Ticks(self.products, **{name: column[rows] for name, column in self.columns()})

    def columns(self) -> Iterator[tuple[str, Column]]:
        """Name and array of each column, in the order of ``DTYPES``."""
        return ((name, getattr(self, name)) for name in DTYPES)

    def tick(self, row: int) -> Tick:
        """One row as a ``Tick``."""
        return Tick(
            time=int(self.time[row]),
            received=int(self.received[row]),
            kind=Kind(int(self.kind[row])),
            product_id=self.products[int(self.product[row])],
            price=float(self.price[row]),
            best_bid=float(self.best_bid[row]),
            best_ask=float(self.best_ask[row]),
            bid_size=float(self.bid_size[row]),
            ask_size=float(self.ask_size[row]),
            last_size=float(self.last_size[row]),
            side=Side(int(self.side[row])),
            trade_id=int(self.trade_id[row]),
            sequence=int(self.sequence[row]),
        )

    def __iter__(self) -> Iterator[Tick]:
        return (self.tick(row) for row in range(len(self)))

    @classmethod
    def of(cls, ticks: Iterable[Tick]) -> Self:
        """Columns of the given ticks; ``products`` is in the order of first appearance."""
        rows = list(ticks)
        codes: dict[str, int] = {}
        product = [codes.setdefault(tick.product_id, len(codes)) for tick in rows]
        columns = {
            name: np.array([getattr(tick, name) for tick in rows], dtype)
            for name, dtype in DTYPES.items()
            if name != "product"
        }
        return cls(tuple(codes), product=np.array(product, np.int32), **columns)

    @classmethod
    def join(cls, parts: Sequence[Ticks]) -> Self:
        """The parts one after another, with their ``products`` merged."""
        codes: dict[str, int] = {}
        for part in parts:
            for name in part.products:
                codes.setdefault(name, len(codes))
        recoded = [
            np.array([codes[name] for name in part.products], np.int32)[part.product] if len(part) else part.product
            for part in parts
        ]
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts]) if parts else np.empty(0, dtype)
            for name, dtype in DTYPES.items()
            if name != "product"
        }
        product = np.concatenate(recoded) if parts else np.empty(0, np.int32)
        return cls(tuple(codes), product=product, **columns)
