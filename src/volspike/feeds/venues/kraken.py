"""Kraken websocket v2 (``wss://ws.kraken.com/v2``): ``trade`` and ``ticker`` → ``Frame``.

Numbers are JSON numbers, sides the taker's, times RFC 3339. A snapshot of trades repeats old ones and is history; one
of the ticker is the current quote. Trade ids count by one per book. Source: docs.kraken.com, "Spot WebSocket v2".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import nan
from typing import Literal

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.markets import Markets, frame_of
from volspike.feeds.messages import (
    DECODE_ERRORS,
    Identifier,
    decode_json,
    decode_with_valid_numbers,
    malformed_from,
    read_time,
)
from volspike.feeds.protocol import FeedProtocol, Limits, TradeIds, batched
from volspike.market import MISSING_ID, Side, Tick

SYMBOLS_PER_MESSAGE = 100


class _Trade(msgspec.Struct, gc=False):
    symbol: str
    side: Literal["buy", "sell"]
    price: float
    qty: float
    timestamp: str
    trade_id: Identifier = MISSING_ID


class _Quote(msgspec.Struct, gc=False):
    symbol: str
    bid: float | None = nan
    bid_qty: float | None = nan
    ask: float | None = nan
    ask_qty: float | None = nan
    timestamp: str = ""


class _Trades(msgspec.Struct, tag_field="channel", tag="trade"):
    data: list[_Trade]
    type: str = "update"


class _Quotes(msgspec.Struct, tag_field="channel", tag="ticker"):
    data: list[_Quote]


class _Data(msgspec.Struct):
    """A message of any channel, or one of those above with a malformed element."""

    channel: str
    data: list[msgspec.Raw]
    type: str = "update"


class _Result(msgspec.Struct, gc=False):
    channel: str = ""
    symbol: str | None = None


class _Other(msgspec.Struct, gc=False, kw_only=True):
    channel: str = ""
    method: str = ""
    success: bool = True
    error: str | None = None
    symbol: str | None = None
    result: _Result | None = None


_VALID = msgspec.json.Decoder[_Trades | _Quotes](_Trades | _Quotes)
_DATA = msgspec.json.Decoder(_Data)
_OTHER = msgspec.json.Decoder(_Other)
_REPEATED = "Already subscribed"
_TRADE = msgspec.json.Decoder(_Trade)
_QUOTE = msgspec.json.Decoder(_Quote)
_SYMBOL = re.compile(rb'"symbol"\s*:\s*"([A-Z0-9./]+)"')
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_CHANNELS = ("trade", "ticker")


class KrakenCodec:
    """The frames of one session."""

    def __init__(self, products: Sequence[str]) -> None:
        self._markets = Markets("kraken", products, spell, _SYMBOL, is_mixed=True)

    def decode(self, data: bytes | str, received: int) -> Frame:
        """Decode one frame received at ``received`` (ns UTC)."""
        return decode_with_valid_numbers(self._decode, data, received)

    def damage(self, data: bytes, error: MalformedTick) -> Damage:
        """The products that the frame names."""
        return self._markets.damage(data, error)

    def _decode(self, data: bytes | str, received: int) -> Frame:
        try:
            message = _VALID.decode(data)
            if isinstance(message, _Quotes):
                found = [self._quote(item, received) for item in message.data]
                return frame_of([tick for tick in found if tick is not None], received)
            trades = [self._trade(item, received) for item in message.data]
            return frame_of(trades, received, is_past=message.type == "snapshot")
        except (*DECODE_ERRORS, MalformedTick):  # another channel, or a malformed element
            return self._decode_each(data, received)

    def _decode_each(self, data: bytes | str, received: int) -> Frame:
        try:
            message = _DATA.decode(data)
        except DECODE_ERRORS as error:
            return self._other(data, received, error)
        if message.channel == "trade":
            ticks, faults = self._markets.read_each(
                message.data, lambda item: self._trade(decode_json(_TRADE, item), received)
            )
            return frame_of(ticks, received, faults, is_past=message.type == "snapshot")
        if message.channel == "ticker":
            ticks, faults = self._markets.read_each(
                message.data, lambda item: self._quote(decode_json(_QUOTE, item), received)
            )
            return frame_of(ticks, received, faults)
        return Frame(time=received, ignored=message.channel)

    def _trade(self, trade: _Trade, received: int) -> Tick:
        time = read_time(trade.timestamp, "$.timestamp")
        side = _SIDES[trade.side]
        return self._markets.trade(trade.symbol, trade.price, trade.qty, side, trade.trade_id, time, received)

    def _quote(self, quote: _Quote, received: int) -> Tick | None:
        time = read_time(quote.timestamp, "$.timestamp") if quote.timestamp else received
        bid, ask = (_known(quote.bid), _known(quote.bid_qty)), (_known(quote.ask), _known(quote.ask_qty))
        return self._markets.quote(quote.symbol, bid, ask, time, received)

    def _other(self, data: bytes | str, received: int, error: Exception) -> Frame:
        """A heartbeat, an answer to a request, an unknown message, or a malformed frame."""
        other = decode_json(_OTHER, data)
        if other.channel == "heartbeat" or other.method == "pong":
            return Frame(time=received, heartbeats=(Heartbeat(time=received),))
        if other.error == _REPEATED:  # the answer to a request that changes nothing
            return Frame(time=received, ignored=other.method)
        if other.error or not other.success:
            return Frame(time=received, error=ExchangeError(message=other.error or "", reason=other.symbol or ""))
        if other.method:
            if other.method == "subscribe" and other.result is not None and other.result.symbol:
                product = self._markets.product(other.result.symbol)
                return Frame(time=received, ack=Subscriptions(channels={other.result.channel: (product,)}))
            return Frame(time=received, ignored=other.method)
        if other.channel and other.channel not in _CHANNELS:
            return Frame(time=received, ignored=other.channel)
        raise malformed_from(error) from error


def _known(number: float | None) -> float:
    return nan if number is None else number


def spell(symbol: str) -> str:
    """Kraken's spelling of a symbol.

    >>> spell("BTC-USD")
    'BTC/USD'
    """
    return symbol.replace("-", "/", 1)


def _messages(channels: Sequence[str], symbols: Sequence[str]) -> list[str]:
    options = {"trade": {}, "ticker": {"event_trigger": "bbo"}}
    requests = [
        {
            "method": "subscribe",
            "params": {"channel": channel, "symbol": list(part), "snapshot": True} | options[channel],
        }
        for channel in channels
        for part in batched(symbols, SYMBOLS_PER_MESSAGE)
    ]
    return [msgspec.json.encode(request).decode() for request in requests]


PROTOCOL = FeedProtocol(
    name="kraken",
    venue="kraken",
    url="wss://ws.kraken.com/v2",
    codec=KrakenCodec,
    channels=lambda _: _CHANNELS,
    messages=_messages,
    symbol=spell,
    limits=Limits(connections_per_s=1, arguments_per_message=SYMBOLS_PER_MESSAGE),
    trade_ids=TradeIds.CONSECUTIVE,
    verifiable=True,
)
