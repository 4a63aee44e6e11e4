"""The two Coinbase protocols: address, channels, subscribe messages, frame decoder, damage and sequence numbers.

``PROTOCOLS`` holds everything in which they differ. ``SubscriptionCheck`` compares what the exchange confirms with what
was requested.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import msgspec

from volspike.config import FeedSettings
from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, Frame
from volspike.feeds.messages import DECODE_ERRORS, Identifier, decode_json, replace_invalid_numbers
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import MISSING_ID, Kind


@dataclass(frozen=True, slots=True)
class FeedProtocol:
    """One protocol. ``url`` is the exchange's; ``sequence`` finds a frame's number without decoding the frame.

    ``damage`` is what was lost with a frame that ``decode`` refused.
    """

    url: str
    decode: Callable[[bytes, int], Frame]
    damage: Callable[[bytes, MalformedTick], Damage]
    sequence: Callable[[bytes], int]
    channels: Callable[[FeedSettings], tuple[str, ...]]
    messages: Callable[[Sequence[str], Sequence[str]], list[str]]

    def requested_products(self, settings: FeedSettings) -> dict[str, Set[str]]:
        """Channel → products requested on it; no products for a channel that has none."""
        products = frozenset(settings.products)
        return {name: frozenset() if name == "heartbeats" else products for name in self.channels(settings)}

    def subscribe_messages(self, settings: FeedSettings, products: Sequence[str]) -> list[str]:
        """The subscribe messages for ``products``, in the order in which they are sent."""
        return self.messages(self.channels(settings), products)


def decode_any(frame: bytes | str, received: int) -> Frame:
    """Decode a frame of either protocol: Advanced Trade names a ``channel``, Exchange a ``type``.

    Raises:
        MalformedTick: the frame names neither, or nothing in it fits the one it names.
    """
    head = decode_json(_HEAD, replace_invalid_numbers(frame) or frame)
    if head.channel is not None:
        return decode_advanced_trade(frame, received)
    if head.type is not None:
        return decode_exchange(frame, received)
    raise MalformedTick("neither a channel nor a type is named")


def exchange_damage(data: bytes, error: MalformedTick) -> Damage:
    """One message, of the product that it names; a truncated one may still name it."""
    names = set(_PRODUCT.findall(data))
    return Damage(error, tuple(name.decode() for name in names) if len(names) == 1 else (), 1)


def advanced_trade_damage(data: bytes, error: MalformedTick) -> Damage:
    """The tickers or trades of a frame, of the products that they name.

    Both are unknown if the frame is truncated, has elements without a product, or belongs to another channel.
    """
    try:
        frame = _NAMES.decode(replace_invalid_numbers(data) or data)
        elements = [element for event in frame.events for element in (*event.tickers, *event.trades)]
    except DECODE_ERRORS:
        return Damage(error)
    return Damage(error, tuple(sorted({each.product_id for each in elements})), len(elements) or -1)


def advanced_trade_sequence(data: bytes) -> int:
    """The number of an Advanced Trade frame, ``MISSING_ID`` if it has none or is unreadable.

    The number comes before the body, so only the start of the frame is searched, and a frame that is broken later
    still has its number. If Coinbase ever changes the order of the fields, the frame is decoded.
    """
    found = _SEQUENCE.search(data, 0, _HEAD_BYTES)
    if found is not None:
        return int(found[1])
    try:
        return _NUMBERED.decode(data).sequence_num
    except DECODE_ERRORS:
        return MISSING_ID


def exchange_sequence(_data: bytes) -> int:
    """Always ``MISSING_ID``: no number in the Exchange channels counts the messages sent.

    A ticker's ``sequence`` numbers all events of its product, most of which its channel does not carry. A heartbeat's
    ``last_trade_id`` does not help: one ticker may report a cascade of trades, so trade ids jump without a loss.
    """
    return MISSING_ID


class SubscriptionCheck:
    """The products requested on one connection that the exchange has not confirmed yet, by channel.

    An exchange may leave out an unknown product instead of refusing it, and may send data before its confirmation or
    an empty confirmation; so data of a product on a channel confirms it as well. A channel without
    products is confirmed by its name.
    """

    def __init__(self, requested: Mapping[str, Set[str]]) -> None:
        self._open = {channel: set(products) for channel, products in requested.items()}

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
        rest = {product for product in self._open[channel] if not {product, data_name(product)} & confirmed}
        if rest:
            self._open[channel] = rest
        else:
            del self._open[channel]


def data_name(product: str) -> str:
    """The name in the data of ``product``: Coinbase sends a market in USDC under its USD alias.

    >>> data_name("BTC-USDC")
    'BTC-USD'
    """
    return product.removesuffix("C") if product.endswith("-USDC") else product


def data_names(products: Iterable[str]) -> tuple[str, ...]:
    """Every name under which data of ``products`` may arrive, without duplicates."""
    return tuple(dict.fromkeys(name for product in products for name in (data_name(product), product)))


_PRODUCT = re.compile(rb'"product_id"\s*:\s*"([0-9A-Za-z-]+)"')
_CHANNELS_OF_KIND = {Kind.TICKER: ("ticker",), Kind.TRADE: ("market_trades", "matches")}
_HEAD_BYTES = 256
_SEQUENCE = re.compile(rb'"sequence_num"\s*:\s*"?([0-9]{1,18})[",}\s]')


class _Numbered(msgspec.Struct, gc=False):
    sequence_num: Identifier = MISSING_ID


class _Head(msgspec.Struct, gc=False):
    channel: str | None = None
    type: str | None = None


class _Name(msgspec.Struct):
    product_id: str


class _Names(msgspec.Struct):
    tickers: list[_Name] = []
    trades: list[_Name] = []


class _NamedEvents(msgspec.Struct):
    events: list[_Names]


_NAMES = msgspec.json.Decoder(_NamedEvents)
_NUMBERED = msgspec.json.Decoder(_Numbered, strict=False)
_HEAD = msgspec.json.Decoder(_Head)


def _subscribe_message(**fields: object) -> str:
    return msgspec.json.encode({"type": "subscribe", **fields}).decode()


def _advanced_trade_messages(channels: Sequence[str], products: Sequence[str]) -> list[str]:
    """One message per channel."""
    return [
        _subscribe_message(channel=channel)
        if channel == "heartbeats"
        else _subscribe_message(channel=channel, product_ids=products)
        for channel in channels
    ]


def _exchange_messages(channels: Sequence[str], products: Sequence[str]) -> list[str]:
    return [_subscribe_message(product_ids=products, channels=channels)]


def _advanced_trade_channels(_settings: FeedSettings) -> tuple[str, ...]:
    return ("ticker", "market_trades", "heartbeats")


def _exchange_channels(settings: FeedSettings) -> tuple[str, ...]:
    return ("ticker", "heartbeat", "matches") if settings.matches else ("ticker", "heartbeat")


PROTOCOLS: Mapping[str, FeedProtocol] = {
    "coinbase": FeedProtocol(
        url="wss://advanced-trade-ws.coinbase.com",
        decode=decode_advanced_trade,
        damage=advanced_trade_damage,
        sequence=advanced_trade_sequence,
        channels=_advanced_trade_channels,
        messages=_advanced_trade_messages,
    ),
    "coinbase-exchange": FeedProtocol(
        url="wss://ws-feed.exchange.coinbase.com",
        decode=decode_exchange,
        damage=exchange_damage,
        sequence=exchange_sequence,
        channels=_exchange_channels,
        messages=_exchange_messages,
    ),
}
"""By the values of ``FeedSettings.protocol``."""
