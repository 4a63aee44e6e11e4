"""What was asked of an exchange, and what of it was granted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from volspike.feeds.frame import Frame
from volspike.market import Kind

CHANNELS_OF_KIND: dict[Kind, tuple[str, ...]] = {Kind.TICKER: ("ticker",), Kind.TRADE: ("market_trades", "matches")}
"""The channels that a tick of this kind can have come through."""


def told_as(product: str) -> str:
    """The name under which data of ``product`` comes back: a market in USDC may be an alias of the one in USD.

    >>> told_as("BTC-USDC")
    'BTC-USD'
    """
    return product.removesuffix("C") if product.endswith("-USDC") else product


def names_of(products: Iterable[str]) -> tuple[str, ...]:
    """Every name under which data of ``products`` may come, each once."""
    return tuple(dict.fromkeys(name for product in products for name in (told_as(product), product)))


class Subscription:
    """One connection's: which products were asked on which channel, and which have not been granted yet.

    An exchange may leave out what it does not know instead of refusing it, and may send data before its ack or an
    empty ack: so data of a product on a channel grants it as well. A channel without products stands for itself.
    """

    def __init__(self, asked: Mapping[str, Set[str]]) -> None:
        self._open = {channel: set(products) for channel, products in asked.items()}

    @property
    def is_granted(self) -> bool:
        """Whether all that was asked is granted."""
        return not self._open

    def see(self, frame: Frame) -> None:
        """Take note of what a frame grants."""
        if frame.ack is not None:
            for channel, products in frame.ack.channels.items():
                self._grant(channel, products)
        if frame.heartbeats:
            told = [beat.product_id for beat in frame.heartbeats if beat.product_id is not None]
            self._grant("heartbeat" if told else "heartbeats", told)
        for tick in (*frame.history, *frame.ticks):
            for channel in CHANNELS_OF_KIND[tick.kind]:
                self._grant(channel, (tick.product_id,))

    def missing(self) -> dict[str, tuple[str, ...]]:
        """Channel → products that were asked and not granted, sorted; no products where the channel has none."""
        return {channel: tuple(sorted(products)) for channel, products in self._open.items()}

    def _grant(self, channel: str, products: Iterable[str]) -> None:
        if channel not in self._open:
            return
        granted = set(products)
        rest = {product for product in self._open[channel] if not {product, told_as(product)} & granted}
        if rest:
            self._open[channel] = rest
        else:
            del self._open[channel]
