"""Kraken websocket v2 (``wss://ws.kraken.com/v2``): ``trade`` and ``ticker`` → ``Frame``.

Numbers are JSON numbers, sides the taker's, times RFC 3339. A snapshot of trades repeats old ones and is history; one
of the ticker is the current quote. Trade ids count by one per book. Source: docs.kraken.com, "Spot WebSocket v2".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from math import nan
from typing import Literal

import msgspec

from volspike.config import FeedSettings
from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.markets import Markets
from volspike.feeds.messages import (
    DECODE_ERRORS,
    Identifier,
    decode_json,
    decode_with_valid_numbers,
    malformed_from,
    read_time,
    with_path_prefix,
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


class _Data(msgspec.Struct):
    channel: str
    data: list[msgspec.Raw]
    type: str = "update"


class _Result(msgspec.Struct, gc=False):
    channel: str = ""
    symbol: str = ""


class _Other(msgspec.Struct, gc=False, kw_only=True):
    channel: str = ""
    method: str = ""
    success: bool = True
    error: str = ""
    symbol: str = ""
    result: _Result | None = None


_DATA = msgspec.json.Decoder(_Data)
_OTHER = msgspec.json.Decoder(_Other)
_TRADE = msgspec.json.Decoder(_Trade)
_QUOTE = msgspec.json.Decoder(_Quote)
_SYMBOL = re.compile(rb'"symbol"\s*:\s*"([A-Z0-9./]+)"')
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_CHANNELS = ("trade", "ticker")


class KrakenCodec:
    """The frames of one session."""

    def __init__(self, products: Sequence[str]) -> None:
        self._markets = Markets("kraken", products, spell, _SYMBOL)

    def decode(self, data: bytes | str, received: int) -> Frame:
        """Decode one frame received at ``received`` (ns UTC)."""
        return decode_with_valid_numbers(self._decode, data, received)

    def damage(self, data: bytes, error: MalformedTick) -> Damage:
        """The products that the frame names."""
        return self._markets.damage(data, error)

    def _decode(self, data: bytes | str, received: int) -> Frame:
        try:
            message = _DATA.decode(data)
        except DECODE_ERRORS as error:
            return self._other(data, received, error)
        if message.channel == "trade":
            ticks, faults = self._each(message.data, self._trade, received)
            if message.type == "snapshot":
                return Frame(time=received, history=ticks, faults=faults)
        elif message.channel == "ticker":
            ticks, faults = self._each(message.data, self._quote, received)
        else:
            return Frame(time=received, ignored=message.channel)
        return Frame(time=ticks[-1].time if ticks else received, ticks=ticks, faults=faults)

    def _each(
        self, items: Sequence[msgspec.Raw], read: Callable[[msgspec.Raw, int], Tick | None], received: int
    ) -> tuple[tuple[Tick, ...], tuple[Damage, ...]]:
        """The valid elements, and what is wrong with the others; raises the fault if none is valid."""
        ticks: list[Tick] = []
        faults: list[Damage] = []
        for place, item in enumerate(items):
            try:
                tick = read(item, received)
            except MalformedTick as fault:
                faults.append(self._markets.damage(bytes(item), with_path_prefix(fault, f"$.data[{place}]")))
            else:
                if tick is not None:
                    ticks.append(tick)
        if faults and not ticks:
            raise faults[0].error
        return tuple(ticks), tuple(faults)

    def _trade(self, item: msgspec.Raw, received: int) -> Tick:
        trade = decode_json(_TRADE, item)
        time = read_time(trade.timestamp, "$.timestamp")
        side = _SIDES[trade.side]
        return self._markets.trade(trade.symbol, trade.price, trade.qty, side, trade.trade_id, time, received)

    def _quote(self, item: msgspec.Raw, received: int) -> Tick | None:
        quote = decode_json(_QUOTE, item)
        time = read_time(quote.timestamp, "$.timestamp") if quote.timestamp else received
        bid, ask = (_known(quote.bid), _known(quote.bid_qty)), (_known(quote.ask), _known(quote.ask_qty))
        return self._markets.quote(quote.symbol, bid, ask, time, received)

    def _other(self, data: bytes | str, received: int, error: Exception) -> Frame:
        """A heartbeat, an answer to a request, an unknown message, or a malformed frame."""
        other = decode_json(_OTHER, data)
        if other.channel == "heartbeat" or other.method == "pong":
            return Frame(time=received, heartbeats=(Heartbeat(time=received),))
        if other.method:
            if other.error or not other.success:
                return Frame(time=received, error=ExchangeError(message=other.error, reason=other.symbol))
            if other.method == "subscribe" and other.result is not None:
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


def _channels(_settings: FeedSettings) -> tuple[str, ...]:
    return _CHANNELS


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
    channels=_channels,
    messages=_messages,
    symbol=spell,
    limits=Limits(connections_per_s=1, arguments_per_message=SYMBOLS_PER_MESSAGE),
    trade_ids=TradeIds.CONSECUTIVE,
    verifiable=True,
)
