"""Lost trades by consecutive trade ids, and the changeover from one connection of a session to the next.

Where a venue numbers the trades of a product without holes, a jump is a loss of as many trades, on one connection and
also across connections. ``Changeover`` joins the frames of two connections that were open together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from volspike.market import SECOND_NS, Kind, Tick

RESET_AFTER: Final = 1_000
"""Trades of a product in a row, with ids at or below the highest, after which the venue has begun to count again."""


class LostTrades(NamedTuple):
    """Trades ``first`` to ``last`` of a product are missing since a trade received at ``since`` (ns UTC).

    ``first`` is above ``last`` if the venue has begun to count again: it is unknown how many are missing.
    """

    product_id: str
    first: int
    last: int
    since: int

    @property
    def lost(self) -> int:
        """The number of missing trades; -1 if it is unknown."""
        return self.last - self.first + 1 if self.first <= self.last else -1

    @property
    def detail(self) -> str:
        """The ids, for the ledger."""
        if self.lost < 0:
            return f"the trade ids were reset: {self.last + 1} after {self.first - 1}"
        return f"trade {self.first}" if self.lost == 1 else f"trades {self.first} to {self.last}"


class TradeLossCheck:
    """Finds missing trades of ``products``, whose ids are consecutive; about 0.3 µs per frame.

    Ids may begin anywhere. An id at or below the highest is a duplicate or late, which is no loss and is counted in
    ``repeated``, unless ``RESET_AFTER`` of them come in a row.
    """

    def __init__(self, products: Iterable[str]) -> None:
        self._names = frozenset(products)
        self._products: dict[str, _ProductIds] = {}
        self.repeated = 0

    def add(self, ticks: Sequence[Tick], received: int, first_ids: Sequence[int] = ()) -> Sequence[LostTrades]:
        """The losses that the trades of a frame received at ``received`` (ns UTC) show.

        Where a tick is the sum of several trades, ``first_ids`` has the id of the first of each.

        >>> def trade(number: int) -> Tick:
        ...     return Tick(time=0, received=0, kind=Kind.TRADE, product_id="A", price=1.0, trade_id=number)
        >>> check = TradeLossCheck(["A"])
        >>> check.add([trade(7), trade(8)], 100), [loss.detail for loss in check.add([trade(11)], 200)]
        ((), ['trades 9 to 10'])
        """
        found: Sequence[LostTrades] = ()
        products = self._products
        for place, tick in enumerate(ticks):
            number = tick.trade_id
            if number < 0:
                continue
            first = first_ids[place] if first_ids else number
            ids = products.get(tick.product_id)
            if ids is None:
                if tick.product_id in self._names:
                    products[tick.product_id] = _ProductIds(number + 1, received)
            elif first == ids.following:
                ids.following = number + 1
                ids.received = received
                ids.behind = 0
            else:
                loss = self._compare(ids, tick.product_id, first, number, received)
                if loss is not None:
                    found = (*found, loss)
        return found

    def highest(self, product_id: str) -> int:
        """The highest id of a product so far; -1 if it has had no trade."""
        ids = self._products.get(product_id)
        return -1 if ids is None else ids.following - 1

    def _compare(self, ids: _ProductIds, product_id: str, first: int, last: int, received: int) -> LostTrades | None:
        following, since = ids.following, ids.received
        if last < following:
            ids.behind += 1
            if ids.behind < RESET_AFTER:
                self.repeated += 1
                return None
        ids.following, ids.received, ids.behind = last + 1, received, 0
        is_complete = first < following <= last  # repeats some trades and goes on
        return None if is_complete else LostTrades(product_id, following, first - 1, since)


class _ProductIds:
    __slots__ = ("behind", "following", "received")

    def __init__(self, following: int, received: int) -> None:
        self.following = following
        self.received = received
        self.behind = 0


FILTER_NS: Final = 30 * SECOND_NS
"""How long after a changeover ticks are still compared with those of the old connection."""


class Changeover:
    """Drops from the frames of a new connection what the old one has delivered.

    Both connections receive the same data for a while. Call ``begin`` when the new one opens, ``track`` with the ticks
    of the old one, ``switch`` when the old one has delivered its last frame, and ``is_new`` for each tick of the new
    one. Trades are compared by id: where ids are ``consecutive`` with the highest, else with each; ticks without an id
    by time. Quotes are compared by their update number where the venue has one, otherwise by time, so that they do
    not step back.
    """

    def __init__(self, *, consecutive: bool) -> None:
        self._consecutive = consecutive
        self._delivered: dict[tuple[str, Kind], _Delivered] = {}
        self._joined: set[str] = set()
        self._until = 0
        self.is_tracking = False
        self.is_filtering = False
        self.began = 0
        """When the new connection was opened (ns UTC)."""

    def begin(self, now: int) -> None:
        """A new connection is open at ``now`` (ns UTC)."""
        self.is_tracking, self.is_filtering = True, False
        self.began = now
        self._delivered.clear()
        self._joined.clear()

    def cancel(self) -> None:
        """The new connection has failed."""
        self.is_tracking = False

    def track(self, ticks: Iterable[Tick]) -> None:
        """Ticks that the old connection has delivered."""
        for tick in ticks:
            place = tick.product_id, tick.kind
            delivered = self._delivered.get(place)
            if delivered is None:
                delivered = self._delivered[place] = _Delivered()
            delivered.add(tick)

    def switch(self, now: int) -> None:
        """The old connection has ended: later ticks are from the new one."""
        self.is_filtering, self.is_tracking = True, False
        self._until = now + FILTER_NS

    def is_over(self, received: int) -> bool:
        """Whether a frame received at ``received`` needs no comparison any more; ends the filter if so."""
        if received < self._until:
            return False
        self.is_filtering = False
        self._delivered.clear()
        return True

    def is_new(self, tick: Tick, *, has_updates: bool) -> bool:
        """Whether the old connection has not delivered the tick.

        ``has_updates``: the sequence of a quote is the number of its update, and not that of a connection's message.
        """
        delivered = self._delivered.get((tick.product_id, tick.kind))
        if delivered is None or delivered.is_before(tick, consecutive=self._consecutive, has_updates=has_updates):
            return True
        if tick.kind is Kind.TRADE or tick.trade_id >= 0:
            self._joined.add(tick.product_id)
        return False

    def lacks_overlap(self, tick: Tick) -> bool:
        """Whether a new trade is the first of its product, so that no trade in common shows that none is missing."""
        if self._consecutive or not (tick.kind is Kind.TRADE or tick.trade_id >= 0) or tick.product_id in self._joined:
            return False
        self._joined.add(tick.product_id)
        return True


class _Delivered:
    """The ticks of one kind of a product that the old connection has delivered."""

    __slots__ = ("highest", "ids", "sequence", "time")

    def __init__(self) -> None:
        self.ids: set[int] = set()
        self.highest = self.sequence = self.time = -1

    def add(self, tick: Tick) -> None:
        self.time = max(self.time, tick.time)
        self.sequence = max(self.sequence, tick.sequence)
        if tick.trade_id >= 0:
            self.ids.add(tick.trade_id)
            self.highest = max(self.highest, tick.trade_id)

    def is_before(self, tick: Tick, *, consecutive: bool, has_updates: bool) -> bool:
        if tick.trade_id >= 0:
            return tick.trade_id > self.highest if consecutive else tick.trade_id not in self.ids
        if has_updates and tick.sequence >= 0 and self.sequence >= 0:
            return tick.sequence > self.sequence
        return tick.time > self.time
