"""What was asked of an exchange, and what of it was granted.

How the two Coinbase sockets differ: address, what to ask and how, where the count of messages stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

import msgspec

from volspike.config import FeedSettings
from volspike.errors import MalformedTick
from volspike.feeds.events import Frame
from volspike.feeds.fields import DECODE_ERRORS, Identifier, read
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode_exchange
from volspike.market import MISSING_ID, Kind

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


_HEAD_BYTES = 256
_SEQUENCE = re.compile(rb'"sequence_num"\s*:\s*"?([0-9]{1,18})[",}\s]')


class _Numbered(msgspec.Struct, gc=False):
    sequence_num: Identifier = MISSING_ID


_NUMBERED = msgspec.json.Decoder(_Numbered, strict=False)


@dataclass(frozen=True, slots=True)
class FeedProtocol:
    """One way of speaking. ``url`` is the exchange's own; ``sequence`` finds a frame's number without decoding it."""

    url: str
    decode: Callable[[bytes, int], Frame]
    sequence: Callable[[bytes], int]
    channels: Callable[[FeedSettings], tuple[str, ...]]
    requests: Callable[[Sequence[str], Sequence[str]], list[str]]

    def asked(self, settings: FeedSettings) -> dict[str, Set[str]]:
        """Channel → the products that are asked on it; none where the channel is the whole socket's."""
        products = frozenset(settings.products)
        return {name: frozenset() if name == "heartbeats" else products for name in self.channels(settings)}

    def subscribe(self, settings: FeedSettings) -> list[str]:
        """The messages that ask for it, in the order in which they are sent."""
        return self.requests(self.channels(settings), settings.products)


def advanced_trade_sequence(data: bytes) -> int:
    """The number of an Advanced Trade frame, ``MISSING_ID`` where there is none or it cannot be read.

    It stands before the body, so that a look at the head is enough (and works on a frame that is broken further
    on); should the order of the fields ever change, the frame is read through.
    """
    found = _SEQUENCE.search(data, 0, _HEAD_BYTES)
    if found is not None:
        return int(found[1])
    try:
        return _NUMBERED.decode(data).sequence_num
    except DECODE_ERRORS:
        return MISSING_ID


def exchange_sequence(_data: bytes) -> int:
    """Always ``MISSING_ID``: nothing in the Exchange's channels counts what was sent.

    A ticker's ``sequence`` numbers all events of its product, most of which its channel does not carry. A
    heartbeat's ``last_trade_id`` cannot stand in: one ticker may stand for a cascade of trades, so that the ids of
    its tickers jump without a loss.
    """
    return MISSING_ID


def _request(**fields: object) -> str:
    return msgspec.json.encode({"type": "subscribe", **fields}).decode()


def _advanced_trade_requests(channels: Sequence[str], products: Sequence[str]) -> list[str]:
    """One channel a message."""
    return [
        _request(channel=channel) if channel == "heartbeats" else _request(channel=channel, product_ids=products)
        for channel in channels
    ]


def _exchange_requests(channels: Sequence[str], products: Sequence[str]) -> list[str]:
    return [_request(product_ids=products, channels=channels)]


def _advanced_trade_channels(_settings: FeedSettings) -> tuple[str, ...]:
    return ("ticker", "market_trades", "heartbeats")


def _exchange_channels(settings: FeedSettings) -> tuple[str, ...]:
    return ("ticker", "heartbeat", "matches") if settings.matches else ("ticker", "heartbeat")


PROTOCOLS: Mapping[str, FeedProtocol] = {
    "coinbase": FeedProtocol(
        url="wss://advanced-trade-ws.coinbase.com",
        decode=decode_advanced_trade,
        sequence=advanced_trade_sequence,
        channels=_advanced_trade_channels,
        requests=_advanced_trade_requests,
    ),
    "coinbase-exchange": FeedProtocol(
        url="wss://ws-feed.exchange.coinbase.com",
        decode=decode_exchange,
        sequence=exchange_sequence,
        channels=_exchange_channels,
        requests=_exchange_requests,
    ),
}
"""By the names that ``FeedSettings.protocol`` takes."""


class _Head(msgspec.Struct, gc=False):
    channel: str | None = None
    type: str | None = None


_HEAD = msgspec.json.Decoder(_Head)


def decode_any(frame: bytes | str, received: int) -> Frame:
    """Decode a frame of either protocol: Advanced Trade names a ``channel``, Exchange a ``type``.

    Raises:
        MalformedTick: the frame names neither, or does not have the shape of the one it names.
    """
    head = read(_HEAD, frame)
    if head.channel is not None:
        return decode_advanced_trade(frame, received)
    if head.type is not None:
        return decode_exchange(frame, received)
    raise MalformedTick("neither a channel nor a type is named")
