"""The products of a codec's session: the venue's symbols, and the price of the last trade.

Quote streams carry no price. A ticker message of volspike has one, as Coinbase's have: that of the last trade. Until a
session has seen a trade of a product, it is the mid-price.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from math import isnan, nan

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, Frame
from volspike.feeds.messages import (
    DECODE_ERRORS,
    quote_side,
    replace_invalid_numbers,
    valid_price,
    valid_size,
    with_path_prefix,
)
from volspike.market import MISSING_ID, Kind, Side, Tick
from volspike.market.product import hyphenated, product_name, split_product

MICROSECOND_NS = 1_000
MILLISECOND_NS = 1_000_000
_LEAST_MICROSECONDS = 10**14
"""Times in microseconds are above this since 1973, those in milliseconds below it until 5138."""


class Markets:
    """The products of a session.

    Args:
        venue: the venue.
        products: the requested products; symbols of others are translated by their quote currency.
        symbol: the venue's spelling of our symbols.
        named: finds the symbol in the bytes of a damaged frame.
        is_mixed: whether a frame may have several products.
    """

    def __init__(
        self,
        venue: str,
        products: Iterable[str],
        symbol: Callable[[str], str],
        named: re.Pattern[bytes],
        *,
        is_mixed: bool = False,
    ) -> None:
        self._venue = venue
        self._named = named
        self._is_mixed = is_mixed
        self._products = {symbol(split_product(name)[1]): name for name in products}
        self._prices: dict[str, float] = {}

    def product(self, symbol: str) -> str:
        """The product of a venue's symbol; raises ``MalformedTick`` for an empty one."""
        found = self._products.get(symbol)
        if found is None:
            if not symbol:
                raise MalformedTick("required and missing", "$.symbol")
            ours = hyphenated(symbol.upper().replace("/", "-"))
            found = product_name(self._venue, ours)
            if len(self._products) < 10_000:
                self._products[symbol] = found
        return found

    def trade(
        self, symbol: str, price: float, size: float, side: Side, trade_id: int, time: int, received: int
    ) -> Tick:
        """A trade; its price is that of later quotes.

        Raises:
            MalformedTick: an invalid price or size.
        """
        if isnan(size):
            raise MalformedTick("required and missing", "$.size")
        product = self.product(symbol)
        self._prices[product] = valid_price(price, "$.price")
        return Tick(
            time=time,
            received=received,
            kind=Kind.TRADE,
            product_id=product,
            price=price,
            last_size=valid_size(size, "$.size"),
            side=side,
            trade_id=trade_id,
        )

    def quote(
        self,
        symbol: str,
        bid: tuple[float, float],
        ask: tuple[float, float],
        time: int,
        received: int,
        sequence: int = MISSING_ID,
    ) -> Tick | None:
        """The best quotes, as (price, size); None without a trade so far if a side is empty, since there is no price.

        Raises:
            MalformedTick: an invalid price or size.
        """
        product = self.product(symbol)
        best_bid, bid_size = quote_side(*bid, "$.bid", "$.bid_size")
        best_ask, ask_size = quote_side(*ask, "$.ask", "$.ask_size")
        price = self._prices.get(product, nan)
        if isnan(price):
            price = (best_bid + best_ask) / 2.0
            if isnan(price):
                return None
        return Tick(
            time=time,
            received=received,
            kind=Kind.TICKER,
            product_id=product,
            price=price,
            best_bid=best_bid,
            best_ask=best_ask,
            bid_size=bid_size,
            ask_size=ask_size,
            sequence=sequence,
        )

    def read_each(
        self, items: Sequence[msgspec.Raw], read: Callable[[msgspec.Raw], Tick | None], symbol: str = ""
    ) -> tuple[list[Tick], tuple[Damage, ...]]:
        """The ticks of the valid elements of a frame, and the damage of the others.

        ``symbol`` is that of all elements where they do not name it.

        Raises:
            MalformedTick: the fault of the first element if none is valid.
        """
        ticks: list[Tick] = []
        faults: list[Damage] = []
        for place, item in enumerate(items):
            try:
                tick = read(item)
            except MalformedTick as fault:
                named = (symbol.encode(),) if symbol else self._named.findall(bytes(item))
                names = tuple({self.product(name.decode()) for name in named if name})
                faults.append(Damage(with_path_prefix(fault, f"$.data[{place}]"), names if len(names) == 1 else (), 1))
            else:
                if tick is not None:
                    ticks.append(tick)
        if faults and not ticks:
            raise faults[0].error
        return ticks, tuple(faults)

    def damage(self, data: bytes, error: MalformedTick) -> Damage:
        """The elements of a frame that is refused, and the products that they name.

        Their number is unknown if the frame is truncated, and the products are unknown if an element names none.
        """
        found = [name.decode() for name in self._named.findall(data) if name]
        lost = _count_elements(data)
        if lost > len(found) or (lost < 0 and self._is_mixed):
            return Damage(error, lost=lost)
        return Damage(error, tuple(sorted({self.product(name) for name in found})), lost)


def frame_of(ticks: list[Tick], received: int, faults: tuple[Damage, ...] = (), *, is_past: bool = False) -> Frame:
    """The frame of ``ticks``; they are history if ``is_past``, as trades from before the subscription are."""
    if is_past:
        return Frame(time=received, history=tuple(ticks), faults=faults)
    return Frame(time=ticks[-1].time if ticks else received, ticks=tuple(ticks), faults=faults)


class _Elements(msgspec.Struct, gc=False):
    data: dict[str, msgspec.Raw] | list[msgspec.Raw]


_ELEMENTS = msgspec.json.Decoder(_Elements)


def _count_elements(data: bytes) -> int:
    """How many trades or quotes a frame has: its ``data`` is one or a list of them; -1 if that cannot be known."""
    try:
        content = _ELEMENTS.decode(replace_invalid_numbers(data) or data).data
    except DECODE_ERRORS:
        return -1
    return len(content) if isinstance(content, list) else 1


def time_of(count: int, received: int) -> int:
    """ns UTC of a time in milliseconds or microseconds; ``received`` for 0, which is none.

    >>> time_of(1_700_000_000_000, 0), time_of(1_700_000_000_000_000, 0)
    (1700000000000000000, 1700000000000000000)

    Raises:
        MalformedTick: a negative or impossible time.
    """
    if count <= 0:
        if count == 0:
            return received
        raise MalformedTick(f"Expected a time, got {count}", "$.time")
    if count < _LEAST_MICROSECONDS:
        return count * MILLISECOND_NS
    if count < _LEAST_MICROSECONDS * 1_000:
        return count * MICROSECOND_NS
    raise MalformedTick(f"Expected a time, got {count}", "$.time")
