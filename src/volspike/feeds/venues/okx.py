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


class _Item(msgspec.Struct, gc=False):
    """A trade, an element of ``bbo-tbt``, or one of ``tickers``, which is not requested but recorded by others."""

    instId: str = ""  # noqa: N815
    ts: int = 0
    px: float = nan
    sz: float = nan
    side: Literal["buy", "sell", ""] = ""
    tradeId: Identifier = MISSING_ID  # noqa: N815
    count: int = 1
    asks: list[list[float]] | None = None
    bids: list[list[float]] | None = None
    seqId: Identifier = MISSING_ID  # noqa: N815
    bidPx: float = nan  # noqa: N815
    bidSz: float = nan  # noqa: N815
    askPx: float = nan  # noqa: N815
    askSz: float = nan  # noqa: N815


class _Valid(msgspec.Struct):
    arg: _Argument
    data: list[_Item]


class _Message(msgspec.Struct):
    """A message of any channel, or one of those in use with a malformed element."""

    arg: _Argument
    data: list[msgspec.Raw]


class _Event(msgspec.Struct, kw_only=True):
    event: str = ""
    arg: _Argument | None = None
    code: str = ""
    msg: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


_VALID = msgspec.json.Decoder(_Valid, strict=False)
_MESSAGE = msgspec.json.Decoder(_Message)
_EVENT = msgspec.json.Decoder(_Event)
_ITEM = msgspec.json.Decoder(_Item, strict=False)
_INSTRUMENT = re.compile(rb'"instId"\s*:\s*"([A-Z0-9-]+)"')
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_CLOSING_CODES = {"64008"}
_CHANNELS = ("trades", "bbo-tbt")
_USED = frozenset((*_CHANNELS, "tickers"))


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
            message = _VALID.decode(data)
            if message.arg.channel in _USED:
                ticks = [self._tick(message.arg, item, received) for item in message.data]
                return self._frame(message.arg, message.data, ticks, received)
        except (*DECODE_ERRORS, MalformedTick):  # an event, or a malformed element
            pass
        return self._decode_each(data, received)

    def _decode_each(self, data: bytes | str, received: int) -> Frame:
        try:
            message = _MESSAGE.decode(data)
        except DECODE_ERRORS as error:
            return self._event(data, received, error)
        if message.arg.channel not in _USED:
            return Frame(time=received, ignored=message.arg.channel)
        valid: list[_Item] = []

        def read(raw: msgspec.Raw) -> Tick | None:
            item = decode_json(_ITEM, raw)
            tick = self._tick(message.arg, item, received)
            valid.append(item)
            return tick

        ticks, faults = self._markets.read_each(message.data, read, message.arg.instId)
        return self._frame(message.arg, valid, ticks, received, faults)

    def _tick(self, arg: _Argument, item: _Item, received: int) -> Tick | None:
        """The tick of an element; None for an empty book."""
        time = time_of(item.ts, received)
        if arg.channel == "trades":
            if not item.ts or not item.side:
                raise MalformedTick("required and missing", "$.side" if item.ts else "$.ts")
            name, side = item.instId or arg.instId, _SIDES[item.side]
            return self._markets.trade(name, item.px, item.sz, side, item.tradeId, time, received)
        if arg.channel == "tickers":
            quotes = (item.bidPx, item.bidSz), (item.askPx, item.askSz)
        else:
            quotes = _best(item.bids, "$.bids"), _best(item.asks, "$.asks")
        return self._markets.quote(arg.instId, *quotes, time, received, item.seqId)

    def _frame(
        self,
        arg: _Argument,
        items: Sequence[_Item],
        found: Sequence[Tick | None],
        received: int,
        faults: tuple[Damage, ...] = (),
    ) -> Frame:
        """The frame of valid elements and their ticks."""
        ticks = tuple([tick for tick in found if tick is not None])
        if not ticks:
            return Frame(time=received, faults=faults)
        firsts: tuple[int, ...] = ()
        if arg.channel == "trades":
            confirmed = self._confirmed.pop(arg.instId, 0)
            if ticks[-1].time < confirmed - PAST_NS:
                return Frame(time=received, history=ticks, faults=faults)
            if any(item.count > 1 for item in items):
                firsts = tuple(max(item.tradeId - max(item.count, 1) + 1, MISSING_ID) for item in items)
        return Frame(time=ticks[-1].time, ticks=ticks, first_ids=firsts, faults=faults)

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


def _best(levels: Sequence[Sequence[float]] | None, path: str) -> tuple[float, float]:
    """Price and size of the best level; NaN if the side is empty."""
    if levels is None:
        raise MalformedTick("required and missing", path)
    if not levels:
        return nan, nan
    if len(levels[0]) < 2:
        raise MalformedTick("Expected a price and a size", path)
    return levels[0][0], levels[0][1]


def _messages(channels: Sequence[str], symbols: Sequence[str]) -> list[str]:
    arguments = [f'{{"channel":"{channel}","instId":"{symbol}"}}' for symbol in symbols for channel in channels]
    return [f'{{"op":"subscribe","args":[{",".join(part)}]}}' for part in batched(arguments, ARGUMENTS_PER_MESSAGE)]


PROTOCOL = FeedProtocol(
    name="okx",
    venue="okx",
    url="wss://ws.okx.com:8443/ws/v5/public",
    codec=OkxCodec,
    channels=lambda _: _CHANNELS,
    messages=_messages,
    limits=Limits(connections_per_s=3, messages_per_s=2, arguments_per_message=ARGUMENTS_PER_MESSAGE),
    ping=Ping("ping", 5.0),
    trade_ids=TradeIds.CONSECUTIVE,
    verifiable=True,
)
