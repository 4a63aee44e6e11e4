"""OKX v5 public (``wss://ws.okx.com:8443/ws/v5/public``): ``trades`` and ``bbo-tbt`` → ``Frame``.

Numbers and times (milliseconds) are texts, sides the taker's. A message may be several trades at one price:
``tradeId`` is the id of the last of them and ``count`` their number; ids count by one per instrument. The first message
after a subscription may be a trade from before it. A client that receives nothing for 30 s must send the text ``ping``.
Source: okx.com/docs-v5, "WebSocket" and "Trades channel".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import nan
from typing import Literal

import msgspec

from volspike.config import FeedSettings
from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.markets import Markets, time_of
from volspike.feeds.messages import (
    DECODE_ERRORS,
    Identifier,
    decode_json,
    decode_with_valid_numbers,
    malformed_from,
)
from volspike.feeds.protocol import FeedProtocol, Limits, Ping, TradeIds, batched
from volspike.market import MISSING_ID, Side, Tick

ARGUMENTS_PER_MESSAGE = 50
PAST_NS = 250_000_000
"""A trade that much older than the confirmation before it is from before the subscription."""


class _Argument(msgspec.Struct, gc=False):
    channel: str = ""
    instId: str = ""  # noqa: N815  OKX's names


class _Trade(msgspec.Struct, gc=False):
    px: float
    sz: float
    side: Literal["buy", "sell"]
    ts: int
    instId: str = ""  # noqa: N815
    tradeId: Identifier = MISSING_ID  # noqa: N815
    count: int = 1


class _Quote(msgspec.Struct, gc=False):
    asks: list[list[float]]
    bids: list[list[float]]
    ts: int = 0
    seqId: Identifier = MISSING_ID  # noqa: N815


class _Ticker(msgspec.Struct, gc=False):
    """An element of the channel ``tickers``, which is not requested but recorded by other programs."""

    bidPx: float = nan  # noqa: N815
    bidSz: float = nan  # noqa: N815
    askPx: float = nan  # noqa: N815
    askSz: float = nan  # noqa: N815
    ts: int = 0


class _Message(msgspec.Struct):
    arg: _Argument
    data: list[msgspec.Raw]


class _Event(msgspec.Struct, kw_only=True):
    event: str = ""
    arg: _Argument | None = None
    code: str = ""
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


_MESSAGE = msgspec.json.Decoder(_Message)
_EVENT = msgspec.json.Decoder(_Event)
_TRADE = msgspec.json.Decoder(_Trade, strict=False)
_QUOTE = msgspec.json.Decoder(_Quote, strict=False)
_TICKER = msgspec.json.Decoder(_Ticker, strict=False)
_INSTRUMENT = re.compile(rb'"instId"\s*:\s*"([A-Z0-9-]+)"')
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_CLOSING_CODES = {"64008"}
_CHANNELS = ("trades", "bbo-tbt")


class OkxCodec:
    """The frames of one session."""

    def __init__(self, products: Sequence[str]) -> None:
        self._markets = Markets("okx", products, str, _INSTRUMENT)
        self._confirmed: dict[str, int] = {}  # instruments whose first message is awaited, with the confirmation's time

    def decode(self, data: bytes | str, received: int) -> Frame:
        """Decode one frame received at ``received`` (ns UTC)."""
        if len(data) == 4 and data in {b"pong", "pong"}:
            return Frame(time=received, heartbeats=(Heartbeat(time=received),))
        return decode_with_valid_numbers(self._decode, data, received)

    def damage(self, data: bytes, error: MalformedTick) -> Damage:
        """The instrument that the frame names."""
        return self._markets.damage(data, error)

    def _decode(self, data: bytes | str, received: int) -> Frame:
        try:
            message = _MESSAGE.decode(data)
        except DECODE_ERRORS as error:
            return self._event(data, received, error)
        instrument, channel = message.arg.instId, message.arg.channel
        if channel == "trades":
            return self._trades(instrument, message.data, received)
        if channel in {"bbo-tbt", "tickers"}:
            ticks, faults = self._markets.read_each(
                message.data, lambda item: self._quote(channel, instrument, item, received), instrument
            )
            return Frame(time=ticks[-1].time if ticks else received, ticks=tuple(ticks), faults=faults)
        return Frame(time=received, ignored=channel)

    def _trades(self, instrument: str, items: Sequence[msgspec.Raw], received: int) -> Frame:
        firsts: list[int] = []

        def read(item: msgspec.Raw) -> Tick:
            trade = decode_json(_TRADE, item)
            name, time = trade.instId or instrument, time_of(trade.ts, received)
            tick = self._markets.trade(name, trade.px, trade.sz, _SIDES[trade.side], trade.tradeId, time, received)
            firsts.append(max(trade.tradeId - max(trade.count, 1) + 1, 0) if trade.tradeId >= 0 else MISSING_ID)
            return tick

        ticks, faults = self._markets.read_each(items, read, instrument)
        confirmed = self._confirmed.pop(instrument, 0)
        if ticks and ticks[-1].time < confirmed - PAST_NS:
            return Frame(time=received, history=tuple(ticks), faults=faults)
        ids = tuple(firsts) if firsts != [tick.trade_id for tick in ticks] else ()
        time = ticks[-1].time if ticks else received
        return Frame(time=time, ticks=tuple(ticks), first_ids=ids, faults=faults)

    def _quote(self, channel: str, instrument: str, item: msgspec.Raw, received: int) -> Tick | None:
        if channel == "tickers":
            ticker = decode_json(_TICKER, item)
            bid, ask, sequence = (ticker.bidPx, ticker.bidSz), (ticker.askPx, ticker.askSz), MISSING_ID
            time = time_of(ticker.ts, received)
        else:
            quote = decode_json(_QUOTE, item)
            bid, ask, sequence = _best(quote.bids), _best(quote.asks), quote.seqId
            time = time_of(quote.ts, received)
        return self._markets.quote(instrument, bid, ask, time, received, sequence)

    def _event(self, data: bytes | str, received: int, error: Exception) -> Frame:
        """A confirmation, an error, a notice, or a malformed frame."""
        event = decode_json(_EVENT, data)
        if event.event == "subscribe" and event.arg is not None:
            product = self._markets.product(event.arg.instId)
            if event.arg.channel == "trades":
                self._confirmed[event.arg.instId] = received
            return Frame(time=received, ack=Subscriptions(channels={event.arg.channel: (product,)}))
        if event.event == "error":
            return Frame(time=received, error=ExchangeError(message=event.msg, reason=f"code {event.code}"))
        if event.event:
            is_closing = event.event == "notice" and event.code in _CLOSING_CODES
            return Frame(time=received, is_closing=is_closing, ignored=event.event)
        raise malformed_from(error) from error


def _best(levels: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Price and size of the best level; NaN if the side is empty."""
    if not levels:
        return nan, nan
    if len(levels[0]) < 2:
        raise MalformedTick("Expected a price and a size", "$.data")
    return levels[0][0], levels[0][1]


def _channels(_settings: FeedSettings) -> tuple[str, ...]:
    return _CHANNELS


def _messages(channels: Sequence[str], symbols: Sequence[str]) -> list[str]:
    arguments = [f'{{"channel":"{channel}","instId":"{symbol}"}}' for symbol in symbols for channel in channels]
    return [f'{{"op":"subscribe","args":[{",".join(part)}]}}' for part in batched(arguments, ARGUMENTS_PER_MESSAGE)]


PROTOCOL = FeedProtocol(
    name="okx",
    venue="okx",
    url="wss://ws.okx.com:8443/ws/v5/public",
    codec=OkxCodec,
    channels=_channels,
    messages=_messages,
    limits=Limits(connections_per_s=3, messages_per_s=2, arguments_per_message=ARGUMENTS_PER_MESSAGE),
    ping=Ping("ping", 5.0),
    trade_ids=TradeIds.CONSECUTIVE,
    verifiable=True,
)
