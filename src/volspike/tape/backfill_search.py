"""Where a moment lies among a product's trades: its ids run with time, so it is found in a few single-trade pages."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from volspike.market import Tick

_FIRST_STRIDE = 1_000


class Place(NamedTuple):
    """One trade that is known: its id and time (ns UTC)."""

    trade_id: int
    time: int


class TradePages(Protocol):
    """Who is asked for trades; ``feeds.coinbase_rest.TradesClient`` is one."""

    @property
    def url(self) -> str:
        """Whose trades they are."""
        ...

    def trades(self, product_id: str, *, after: int | None = None, limit: int = ...) -> tuple[Tick, ...]:
        """Up to ``limit`` trades, the newest with an id below ``after`` (or of all), oldest first."""
        ...


class TradeIndex:
    """Finds moments among one product's trades, and remembers every trade seen, so that the next search is shorter.

    Trade ids must not step back in time, as the exchange's matching engine gives them out; ids may be missing.
    """

    def __init__(self, pages: TradePages, product_id: str) -> None:
        self._pages = pages
        self._product_id = product_id
        self._seen: set[Place] = set()

    def around(self, time: int) -> tuple[Place | None, Place | None]:
        """The last trade before ``time`` and the first at or after it; None where there is none."""
        if not any(place.time >= time for place in self._seen):
            newest = self._at_or_below(None)
            if newest is None or newest.time < time:
                return newest, None
        above = min(place for place in self._seen if place.time >= time)
        below = max((place for place in self._seen if place.time < time), default=None)
        floor = below.trade_id if below else -1  # whatever trade has this id or a lower one was before `time`
        turn = 0
        while above.trade_id - floor > 1:
            guess = min(max(_guess(below, above, floor, time, turn), floor + 1), above.trade_id - 1)
            turn += 1
            found = self._at_or_below(guess)
            if found is not None and found.time >= time:
                above = found
            else:
                below, floor = found, guess
        return below, above

    def _at_or_below(self, trade_id: int | None) -> Place | None:
        """The newest trade whose id is ``trade_id`` or lower; of all where that is None."""
        after = None if trade_id is None else trade_id + 1
        page = self._pages.trades(self._product_id, after=after, limit=1)
        if not page:
            return None
        place = Place(page[-1].trade_id, page[-1].time)
        self._seen.add(place)
        return place


def _guess(below: Place | None, above: Place, floor: int, time: int, turn: int) -> int:
    """Which id to look at next, where ``time`` lies above ``floor`` and at or below ``above``."""
    if floor < 0:
        # The past reaches far back and is mostly not meant: strides that grow until one steps over `time`.
        return above.trade_id - (_FIRST_STRIDE << 2 * min(turn, 20))
    if below is None or turn % 2:
        return (floor + above.trade_id) // 2
    # Where it would be if trades came evenly; every second guess only, for they come in bursts.
    share = (time - below.time) / max(above.time - below.time, 1)
    return below.trade_id + int((above.trade_id - below.trade_id) * share)
