"""One venue's websocket protocol as a value: address, limits, subscribe messages, codec, sequence numbers.

``FeedProtocol`` holds everything in which protocols differ; ``feeds.venues`` lists them. ``SubscriptionCheck`` compares
what an exchange confirms with what was requested.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from volspike.config import FeedSettings
from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, Frame
from volspike.market import MISSING_ID, Kind
from volspike.market.product import split_product


class VenueCodec(Protocol):
    """Frames of one session → content.

    A codec may keep what a frame leaves out and an earlier one stated (the unchanged side of a book, the last price).
    """

    def decode(self, data: bytes | str, received: int) -> Frame:
        """Decode one frame received at ``received`` (ns UTC).

        Raises:
            MalformedTick: the frame does not have the shape of its type, or nothing in it is valid.
        """
        ...

    def damage(self, data: bytes, error: MalformedTick) -> Damage:
        """The loss with a frame that ``decode`` refused."""
        ...


@dataclass(frozen=True, slots=True)
class CodecFunctions:
    """A codec without state."""

    decode: Callable[[bytes | str, int], Frame]
    damage: Callable[[bytes, MalformedTick], Damage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """A venue's limits on clients; None where it states none.

    ``subscribe_within_s`` is the time from connecting to having subscribed, ``lifetime_s`` how long a connection lasts,
    ``arguments_per_message`` how many streams one subscribe message may name.
    """

    connections_per_s: int = 8
    messages_per_s: int = 8
    subscribe_within_s: float | None = None
    lifetime_s: float | None = None
    streams_per_connection: int | None = None
    arguments_per_message: int | None = None


@dataclass(frozen=True, slots=True)
class Ping:
    """A message that the client sends every ``every_s`` seconds; its answer is a sign of life like any frame."""

    message: str
    every_s: float


class TradeIds(Enum):
    """How a venue numbers the trades of a product."""

    CONSECUTIVE = "consecutive"
    """By one from trade to trade: a jump is a loss."""
    UNORDERED = "unordered"
    """Otherwise, or the feed skips some: a loss cannot be noticed."""


def no_sequence(_data: bytes) -> int:
    """The number of a frame in a protocol that does not number frames: always ``MISSING_ID``."""
    return MISSING_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedProtocol:
    """One protocol.

    Attributes:
        name: the value of ``FeedSettings.protocol`` and of ``--source``.
        venue: the venue of its products.
        url: the venue's own address.
        codec: makes the codec of a session from the products that it requests.
        channels: the channels to subscribe to.
        messages: the subscribe messages for channels and venue symbols, within the venue's limits.
        symbol: the venue's spelling of a symbol of ours (``BTC-USDT``).
        data_symbol: the symbol, in our spelling, under which data of a requested one arrives.
        sequence: the number of a frame, found without decoding it; ``MISSING_ID`` if it has none.
        kinds: the kinds of ticks that it sends.
        limits: the venue's limits.
        ping: what the client sends regularly; None if websocket pings suffice.
        trade_ids: how trades are numbered.
        verifiable: whether a lost message can be noticed.
    """

    name: str
    venue: str
    url: str
    codec: Callable[[Sequence[str]], VenueCodec]
    channels: Callable[[FeedSettings], tuple[str, ...]]
    messages: Callable[[Sequence[str], Sequence[str]], list[str]]
    symbol: Callable[[str], str] = str
    data_symbol: Callable[[str], str] = str
    sequence: Callable[[bytes], int] = no_sequence
    kinds: Callable[[FeedSettings], frozenset[Kind]] = field(default=lambda _: frozenset(Kind))
    limits: Limits = Limits()
    ping: Ping | None = None
    trade_ids: TradeIds = TradeIds.UNORDERED
    verifiable: bool = False

    def address(self, settings: FeedSettings) -> str:
        """The address of the settings, or else the venue's own."""
        return settings.url or self.url

    def requested_products(self, settings: FeedSettings) -> dict[str, Set[str]]:
        """Channel → products requested on it; no products for a channel that has none."""
        products = frozenset(settings.products)
        return {name: frozenset() if name == "heartbeats" else products for name in self.channels(settings)}

    def subscribe_messages(self, settings: FeedSettings, products: Sequence[str]) -> list[str]:
        """The subscribe messages for ``products``, in the order in which they are sent."""
        return self.messages(self.channels(settings), [self.symbol(split_product(name)[1]) for name in products])

    def data_name(self, product: str) -> str:
        """The name in the data of ``product``.

        >>> from volspike.feeds.venues import all_protocols
        >>> all_protocols()["coinbase"].data_name("BTC-USDC")
        'BTC-USD'
        """
        venue, separator, symbol = product.rpartition(":")
        return f"{venue}{separator}{self.data_symbol(symbol)}"

    def data_names(self, products: Iterable[str]) -> tuple[str, ...]:
        """Every name under which data of ``products`` may arrive, without duplicates."""
        return tuple(dict.fromkeys(name for product in products for name in (self.data_name(product), product)))


class SubscriptionCheck:
    """The products requested on one connection that the exchange has not confirmed yet, by channel.

    An exchange may leave out an unknown product instead of refusing it, and may send data before its confirmation or
    an empty confirmation; so data of a product on a channel confirms it as well. A channel without
    products is confirmed by its name. ``data_name`` is that of the protocol.
    """

    def __init__(self, requested: Mapping[str, Set[str]], data_name: Callable[[str], str] = str) -> None:
        self._open = {channel: set(products) for channel, products in requested.items()}
        self._data_name = data_name

    def leave_out(self, products: Set[str]) -> None:
        """Expect no confirmation of ``products``."""
        for channel, open_products in list(self._open.items()):
            if open_products and open_products <= products:
                del self._open[channel]
            else:
                self._open[channel] = open_products - products

    @property
    def is_confirmed(self) -> bool:
        """Whether everything requested is confirmed."""
        return not self._open

    def update(self, frame: Frame) -> None:
        """Confirm what a frame acknowledges or contains."""
        if frame.ack is not None:
            for channel, products in frame.ack.channels.items():
                self._confirm(channel, products)
        if frame.heartbeats:
            beating = [beat.product_id for beat in frame.heartbeats if beat.product_id is not None]
            self._confirm("heartbeat" if beating else "heartbeats", beating)
        for tick in (*frame.history, *frame.ticks):
            for channel in _CHANNELS_OF_KIND[tick.kind]:
                self._confirm(channel, (tick.product_id,))

    def missing(self) -> dict[str, tuple[str, ...]]:
        """Channel → products requested and not confirmed, sorted; no products for a channel that has none."""
        return {channel: tuple(sorted(products)) for channel, products in self._open.items()}

    def _confirm(self, channel: str, products: Iterable[str]) -> None:
        if channel not in self._open:
            return
        confirmed = set(products)
        rest = {product for product in self._open[channel] if not {product, self._data_name(product)} & confirmed}
        if rest:
            self._open[channel] = rest
        else:
            del self._open[channel]


_CHANNELS_OF_KIND = {
    Kind.TICKER: ("ticker", "bookTicker", "bbo-tbt", "orderbook.1"),
    Kind.TRADE: ("market_trades", "matches", "trade", "trades", "publicTrade"),
}


def batched(items: Sequence[str], most: int) -> list[Sequence[str]]:
    """The items in groups of at most ``most``."""
    return [items[start : start + most] for start in range(0, len(items), most)]
