"""Trades for the simulated market: each of its ticks is one, and trades excite further ones.

What it is not: nobody meets in a book here. A trade breeds others at the quotes that stand (a Hawkes process,
drawn by its clusters as in ``simulated_mood``), mostly on its own side, and moves no price itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from volspike.feeds.simulated_market import LATENCY_NS, simulate_market
from volspike.feeds.simulated_mood import CHUNK_S
from volspike.market import SECOND_NS, Kind, Side, Ticks

_CHILDREN = 0.4
_CHILD_DELAY_NS = 300_000_000
_SAME_SIDE = 0.85
_NOTIONAL = 300.0
_MOST_MESSAGES_BETWEEN = 12
_FIRST_TRADE_ID = 1_000_000
_FIRST_SEQUENCE = 10_000_000
_MICROSECOND_NS = 1000
_QUOTES = ("best_bid", "best_ask", "bid_size", "ask_size")


def simulate_trades(products: Sequence[str], seconds: int, seed: int, start: int) -> Iterator[Ticks]:
    """The market of ``simulate_market`` with its trades told, in chunks of up to ten minutes.

    Each tick is one trade and the touch it leaves, as Exchange's ``ticker`` tells it: ``price`` is the trade's and
    stands at the touch of the taker's ``side``, ``trade_id`` counts by one in each product, ``sequence`` only rises
    (an order book's messages lie between). Times are whole microseconds. Repeatable, extensible and bounded in
    memory like ``simulate_market``, and its chunks are of the same length.
    """
    flows = [_Flow(name) for name in products]
    chunks = -(-seconds // CHUNK_S)
    end = start + seconds * SECOND_NS
    for chunk, quoted in enumerate(simulate_market(products, chunks * CHUNK_S, seed, start)):
        chunk_end = start + (chunk + 1) * CHUNK_S * SECOND_NS
        parts = [
            flow.next(
                np.random.default_rng([seed, chunk, crc32(flow.name.encode()), 1]),
                quoted[quoted.product == code],
                chunk_end,
            )
            for code, flow in enumerate(flows)
        ]
        ticks = Ticks.join(parts)
        ticks = ticks[np.argsort(ticks.time, kind="stable")]
        yield ticks[ticks.time < end]


@dataclass(frozen=True, slots=True)
class _Orders:
    """When takers trade (ns UTC) and on which side (+1 buys)."""

    time: NDArray[np.int64]
    side: NDArray[np.int8]

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> _Orders:
        return _Orders(self.time[rows], self.side[rows])

    @classmethod
    def join(cls, parts: Sequence[_Orders]) -> Self:
        return cls(np.concatenate([part.time for part in parts]), np.concatenate([part.side for part in parts]))


class _Flow:
    """The trades of one product, chunk after chunk."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._pending = _Orders(np.empty(0, np.int64), np.empty(0, np.int8))
        self._touch = {quote: np.empty(0) for quote in _QUOTES}
        self._trade_id = _FIRST_TRADE_ID
        self._sequence = _FIRST_SEQUENCE

    def next(self, rng: np.random.Generator, quoted: Ticks, end: int) -> Ticks:
        """The trades around one product's ``quoted`` ticks, whose chunk ends at ``end``."""
        orders = self._orders(rng, quoted, end)
        row = np.searchsorted(quoted.time // _MICROSECOND_NS * _MICROSECOND_NS, orders.time, side="right")
        carried = len(self._touch["best_bid"])  # the last touch of the chunk before, for what comes before the first
        touch = {name: np.concatenate([self._touch[name], getattr(quoted, name)]) for name in _QUOTES}
        quotes = {name: column[row - 1 + carried] for name, column in touch.items()}
        self._touch = {name: column[-1:] for name, column in touch.items()}
        price = np.where(orders.side == Side.BUY, quotes["best_ask"], quotes["best_bid"])
        n = len(price)
        trade_id = self._trade_id + np.arange(1, n + 1)
        sequence = self._sequence + np.cumsum(rng.integers(1, _MOST_MESSAGES_BETWEEN, n))
        if n:
            self._trade_id, self._sequence = int(trade_id[-1]), int(sequence[-1])
        lots = np.rint(_NOTIONAL / price * np.exp(1.3 * rng.normal(size=n)) * 1e8)
        return Ticks(
            products=(self.name,),
            time=orders.time,
            received=orders.time + LATENCY_NS,
            kind=np.full(n, Kind.TICKER, np.int8),
            product=np.zeros(n, np.int32),
            price=price,
            last_size=np.maximum(lots, 1) / 1e8,
            side=orders.side,
            trade_id=trade_id,
            sequence=sequence,
            **quotes,
        )

    def _orders(self, rng: np.random.Generator, quoted: Ticks, end: int) -> _Orders:
        """All orders before ``end`` in the order of time; those set off for later are kept for the next chunk."""
        side = np.where(quoted.price == quoted.best_ask, Side.BUY, Side.SELL).astype(np.int8)
        generations = [self._pending, _Orders(quoted.time // _MICROSECOND_NS * _MICROSECOND_NS, side)]
        parents = _Orders.join(generations)
        while len(parents.time):
            parents = parents[parents.time < end]
            parents = parents[np.repeat(np.arange(len(parents.time)), rng.poisson(_CHILDREN, len(parents.time)))]
            n = len(parents.time)
            delay = 1 + (rng.exponential(_CHILD_DELAY_NS, n) // _MICROSECOND_NS).astype(np.int64)
            turned = np.where(rng.random(n) < _SAME_SIDE, parents.side, -parents.side).astype(np.int8)
            parents = _Orders(parents.time + delay * _MICROSECOND_NS, turned)
            generations.append(parents)
        orders = _Orders.join(generations)
        orders = orders[np.argsort(orders.time, kind="stable")]
        self._pending = orders[orders.time >= end]
        return orders[orders.time < end]
