"""Coinbase Exchange (``wss://ws-feed.exchange.coinbase.com``): frame bytes → ``Frame``.

One message per frame, with its kind in ``type``. A ``ticker`` has the taker's side, a ``match`` the maker's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import isnan, nan
from typing import Annotated, Literal, TypeAlias

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.messages import (
    DECODE_ERRORS,
    SIDES,
    TAKER_OF_MAKER,
    DetailedMessage,
    Identifier,
    TickMessage,
    decode_json,
    decode_with_valid_numbers,
    decode_without_empty_fields,
    malformed_from,
    quote_side,
    read_time,
    valid_price,
    valid_size,
)
from volspike.feeds.protocol import CodecFunctions, FeedProtocol, Limits, TradeIds
from volspike.feeds.venues.coinbase_advanced_trade import usd_alias
from volspike.market import MISSING_ID, Kind, Tick
from volspike.market.product import COINBASE

_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class _Ticker(msgspec.Struct, gc=False, tag_field="type", tag="ticker"):
    product_id: _Name
    price: float
    time: str = ""
    best_bid: float = nan
    best_ask: float = nan
    best_bid_size: float = nan
    best_ask_size: float = nan
    last_size: float = nan
    side: Literal["buy", "sell", ""] = ""
    trade_id: Identifier = MISSING_ID
    sequence: Identifier = MISSING_ID


class _Match(msgspec.Struct, gc=False, tag_field="type", tag="match"):
    product_id: _Name
    price: float
    size: float
    side: Literal["buy", "sell"]
    time: str
    trade_id: Identifier
    sequence: Identifier = MISSING_ID


class _LastMatch(_Match, gc=False, tag_field="type", tag="last_match"):
    pass


class _Heartbeat(msgspec.Struct, gc=False, tag_field="type", tag="heartbeat"):
    product_id: _Name
    time: str
    last_trade_id: Identifier = MISSING_ID


class _Channel(msgspec.Struct):
    name: str
    product_ids: list[str] | None = None


class _Subscriptions(msgspec.Struct, tag_field="type", tag="subscriptions"):
    channels: list[_Channel]


class _Error(msgspec.Struct, gc=False, tag_field="type", tag="error"):
    message: str = ""
    reason: str = ""


class _Head(msgspec.Struct, gc=False):
    type: str


class _Detailed(DetailedMessage, gc=False, kw_only=True):
    """A ticker or match with every field that a tape keeps; none of them may be empty."""

    type: Literal["ticker", "match"]
    product_id: _Name
    price: float
    side: Literal["buy", "sell", ""] = ""

    @property
    def lacks_trade(self) -> bool:
        """Whether a field is missing that a match must have."""
        return isnan(self.size) or not self.time or not self.side or self.trade_id == MISSING_ID


_Message: TypeAlias = _Ticker | _Match | _LastMatch | _Heartbeat | _Subscriptions | _Error

_DETAILED = msgspec.json.Decoder(_Detailed, strict=False)
_MESSAGE = msgspec.json.Decoder[_Message](_Message, strict=False)
_HEAD = msgspec.json.Decoder(_Head)
_TYPES = {"ticker", "match", "last_match", "heartbeat", "subscriptions", "error"}


def decode_exchange(frame: bytes | str, received: int) -> Frame:
    """Decode one frame received at ``received`` (nanoseconds UTC).

    A frame of any other type (order book, unknown ones) has its name in ``ignored``; its body is not decoded.

    Raises:
        MalformedTick: the frame does not have the shape of its type.
    """
    return decode_with_valid_numbers(_decode, frame, received)


def _decode(frame: bytes | str, received: int) -> Frame:
    try:
        detailed = _DETAILED.decode(frame)
    except DECODE_ERRORS:  # another type, an empty field, or a fault
        return _decode_any_type(frame, received, None)
    if detailed.type == "match" and detailed.lacks_trade:
        return _decode_any_type(frame, received, detailed)
    tick = _ticker(detailed, received) if detailed.type == "ticker" else _trade(detailed, received)
    return Frame(time=tick.time, ticks=(tick,), messages=_messages(frame, detailed))


def _decode_any_type(frame: bytes | str, received: int, detailed: _Detailed | None) -> Frame:
    try:
        decoded = _frame(_MESSAGE.decode(frame), received)
    except DECODE_ERRORS as error:
        decoded = _decode_unusual(frame, received, error)
    return msgspec.structs.replace(decoded, messages=_messages(frame, detailed)) if decoded.ticks else decoded


def _messages(frame: bytes | str, detailed: _Detailed | None) -> tuple[TickMessage]:
    return (TickMessage(frame.encode() if isinstance(frame, str) else frame, detailed),)


def _decode_unusual(frame: bytes | str, received: int, error: Exception) -> Frame:
    """Decode what the typed decoder rejected: another type, an empty field, or a malformed frame."""
    head = decode_json(_HEAD, frame)
    if head.type not in _TYPES:
        return Frame(time=received, ignored=head.type)
    if not isinstance(error, msgspec.ValidationError):
        raise malformed_from(error) from error
    return _frame(decode_without_empty_fields(_MESSAGE, frame), received)


def _frame(message: _Message, received: int) -> Frame:
    if isinstance(message, _Ticker):
        tick = _ticker(message, received)
        return Frame(time=tick.time, ticks=(tick,))
    if isinstance(message, _LastMatch):
        trade = _trade(message, received)
        return Frame(time=trade.time, history=(trade,))
    if isinstance(message, _Match):
        trade = _trade(message, received)
        return Frame(time=trade.time, ticks=(trade,))
    if isinstance(message, _Heartbeat):
        beat = _heartbeat(message)
        return Frame(time=beat.time, heartbeats=(beat,))
    if isinstance(message, _Subscriptions):
        return Frame(time=received, ack=_ack(message))
    return Frame(time=received, error=ExchangeError(message=message.message, reason=message.reason))


def _ticker(message: _Ticker | _Detailed, received: int) -> Tick:
    bid, bid_size = quote_side(message.best_bid, message.best_bid_size, "$.best_bid", "$.best_bid_size")
    ask, ask_size = quote_side(message.best_ask, message.best_ask_size, "$.best_ask", "$.best_ask_size")
    return Tick(
        time=read_time(message.time, "$.time") if message.time else received,
        received=received,
        kind=Kind.TICKER,
        product_id=message.product_id,
        price=valid_price(message.price, "$.price"),
        best_bid=bid,
        best_ask=ask,
        bid_size=bid_size,
        ask_size=ask_size,
        last_size=valid_size(message.last_size, "$.last_size"),
        side=SIDES[message.side],
        trade_id=message.trade_id,
        sequence=message.sequence,
    )


def _trade(message: _Match | _Detailed, received: int) -> Tick:
    return Tick(
        time=read_time(message.time, "$.time"),
        received=received,
        kind=Kind.TRADE,
        product_id=message.product_id,
        price=valid_price(message.price, "$.price"),
        last_size=valid_size(message.size, "$.size"),
        side=TAKER_OF_MAKER[message.side],
        trade_id=message.trade_id,
        sequence=message.sequence,
    )


def _heartbeat(message: _Heartbeat) -> Heartbeat:
    return Heartbeat(
        time=read_time(message.time, "$.time"),
        product_id=message.product_id,
        last_trade_id=message.last_trade_id,
    )


def _ack(message: _Subscriptions) -> Subscriptions:
    return Subscriptions(channels={channel.name: tuple(channel.product_ids or ()) for channel in message.channels})


def exchange_damage(data: bytes, error: MalformedTick) -> Damage:
    """One message, of the product that it names; a truncated one may still name it."""
    names = set(_PRODUCT.findall(data))
    return Damage(error, tuple(name.decode() for name in names) if len(names) == 1 else (), 1)


_PRODUCT = re.compile(rb'"product_id"\s*:\s*"([0-9A-Za-z-]+)"')


def _subscribe(channels: Sequence[str], symbols: Sequence[str]) -> list[str]:
    request = {"type": "subscribe", "product_ids": list(symbols), "channels": list(channels)}
    return [msgspec.json.encode(request).decode()]


# No number in these channels counts the messages sent: a ticker's ``sequence`` numbers all events of its product, most
# of which its channel does not carry. A heartbeat's ``last_trade_id`` does not help either: one ticker may report a
# cascade of trades, so trade ids jump without a loss.
PROTOCOL = FeedProtocol(
    name="coinbase-exchange",
    venue=COINBASE,
    url="wss://ws-feed.exchange.coinbase.com",
    codec=lambda _: CodecFunctions(decode_exchange, exchange_damage),
    channels=lambda settings: ("ticker", "heartbeat", *(("matches",) if settings.matches else ())),
    messages=_subscribe,
    data_symbol=usd_alias,
    kinds=lambda settings: frozenset(Kind) if settings.matches else frozenset({Kind.TICKER}),
    limits=Limits(subscribe_within_s=5.0),
    trade_ids=TradeIds.UNORDERED,
    verifiable=False,
)
