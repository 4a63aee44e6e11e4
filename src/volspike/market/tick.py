"""One event of a market: a ticker message or a trade.

Many ticks as columns: what tapes are read into and what the feature kernel runs over.
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


class Kind(IntEnum):
    """What an event is. Features count ticker messages; trades tell sizes."""

    TICKER = 0
    TRADE = 1


class Side(IntEnum):
    """The taker's side of a trade: a BUY lifted the ask."""

    SELL = -1
    UNKNOWN = 0
    BUY = 1


class Profile(StrEnum):
    """Which kinds of events a source tells; a model is served on the profile that it was trained on."""

    TICKER = "ticker"
    TICKER_AND_TRADE = "ticker+trade"
    TRADE = "trade"


MISSING_ID = -1
"""Stands where the source told no trade id or sequence number."""


class Tick(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """What the market told at one moment. What it did not tell is NaN, ``Side.UNKNOWN`` or ``MISSING_ID``.

    ``time`` is the exchange's clock and ``received`` ours, both in nanoseconds UTC; where the exchange told
    no time they are equal. Prices are in quote currency, sizes in base currency.
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
"""The columns of ``Ticks`` in order, with their types."""


@dataclass(frozen=True, slots=True, eq=False)
class Ticks:
    """n ticks as n-long arrays, in the order in which they were told.

    ``product`` holds indices into ``products``; the other columns are those of ``Tick``.
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
        """The ticks of a slice, a mask or an index array; ``products`` stays whole."""
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
        """Columns of the given ticks; products in the order of their first appearance."""
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
        """The parts one after the other, their products merged into one list."""
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
