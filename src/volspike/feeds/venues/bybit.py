"""Bybit v5 spot (``wss://stream.bybit.com/v5/public/spot``): ``publicTrade`` and ``orderbook.1`` → ``Frame``.

Trades are always marked as a snapshot and are new all the same. The book begins with a snapshot; a delta has only the
side that changed, and a level that is gone has the size 0. Trade ids are not consecutive, so a lost trade cannot be
noticed. A client sends ``{"op":"ping"}`` every 20 s. Source: bybit-exchange.github.io/docs/v5/websocket.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import nan
from typing import Literal

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.markets import Markets, frame_of, time_of
from volspike.feeds.messages import (
    DECODE_ERRORS,
    Identifier,
    decode_json,
    decode_with_valid_numbers,
    malformed_from,
)
from volspike.feeds.protocol import FeedProtocol, Limits, Ping, TradeIds, batched
from volspike.feeds.venues.binance import spell
from volspike.market import MISSING_ID, Side, Tick

ARGUMENTS_PER_MESSAGE = 10
_EMPTY = (nan, nan)


class _Trade(msgspec.Struct, gc=False):
    """The letters are Bybit's."""

    T: int
    s: str
    S: Literal["Buy", "Sell"]
    v: float
    p: float
    i: str = ""


class _Book(msgspec.Struct, gc=False):
    s: str
    b: list[tuple[float, float]] = []
    a: list[tuple[float, float]] = []
    u: Identifier = MISSING_ID


class _Valid(msgspec.Struct):
    topic: str
    data: _Book | list[_Trade]
    type: str = ""
    ts: int = 0
    cts: int = 0


class _Trades(msgspec.Struct):
    """Trades of which one is malformed, or a message of another topic."""

    topic: str
    data: list[msgspec.Raw]


class _Other(msgspec.Struct, gc=False, kw_only=True):
    topic: str = ""
    op: str = ""
    success: bool = True
    ret_msg: str = ""
    req_id: str = ""


_TRADES = msgspec.json.Decoder(_Trades)
_VALID = msgspec.json.Decoder(_Valid, strict=False)
_TRADE = msgspec.json.Decoder(_Trade, strict=False)
_OTHER = msgspec.json.Decoder(_Other)
_REPEATED = "error:already subscribed"
_SYMBOL = re.compile(rb'(?:"s"|"topic")\s*:\s*"(?:publicTrade\.|orderbook\.1\.)?([A-Z0-9]+)"')
_SIDES = {"Buy": Side.BUY, "Sell": Side.SELL}
_CHANNELS = ("publicTrade", "orderbook.1")
_TRADE_TOPIC, _BOOK_TOPIC = "publicTrade.", "orderbook.1."


class BybitCodec:
    """The frames of one session; keeps both sides of each book, since a delta has one."""

    def __init__(self, products: Sequence[str]) -> None:
        self._markets = Markets("bybit", products, spell, _SYMBOL)
        self._requested = tuple(products)
        self._books: dict[str, list[tuple[float, float]]] = {}

    def decode(self, data: bytes | str, received: int) -> Frame:
        """Decode one frame received at ``received`` (ns UTC)."""
        return decode_with_valid_numbers(self._decode, data, received)

    def damage(self, data: bytes, error: MalformedTick) -> Damage:
        """The product that the frame names; its book is unknown until the next snapshot."""
        symbols = {symbol.decode() for symbol in _SYMBOL.findall(data)}
        for symbol in symbols or list(self._books):
            self._books.pop(symbol, None)
        return self._markets.damage(data, error)

    def _decode(self, data: bytes | str, received: int) -> Frame:
        try:
            message = _VALID.decode(data)
            content = message.data
            if isinstance(content, list) and message.topic.startswith(_TRADE_TOPIC):
                return frame_of([self._trade(trade, received) for trade in content], received)
        except (*DECODE_ERRORS, MalformedTick) as error:
            return self._decode_each(data, received, error)
        if isinstance(content, _Book) and message.topic.startswith(_BOOK_TOPIC):
            return self._book(message, content, received)
        if message.topic.startswith((_TRADE_TOPIC, _BOOK_TOPIC)):
            raise MalformedTick(f"Expected the data of {message.topic}", "$.data")
        return Frame(time=received, ignored=message.topic.rpartition(".")[0] or message.topic)

    def _decode_each(self, data: bytes | str, received: int, error: Exception) -> Frame:
        """Trades of which one is malformed, or anything else that is neither trades nor a book."""
        try:
            message = _TRADES.decode(data)
        except DECODE_ERRORS:
            return self._other(data, received, error)
        if not message.topic.startswith(_TRADE_TOPIC):
            return self._other(data, received, error)
        ticks, faults = self._markets.read_each(
            message.data,
            lambda item: self._trade(decode_json(_TRADE, item), received),
            message.topic.removeprefix(_TRADE_TOPIC),
        )
        return frame_of(ticks, received, faults)

    def _trade(self, trade: _Trade, received: int) -> Tick:
        time = time_of(trade.T, received)
        return self._markets.trade(trade.s, trade.p, trade.v, _SIDES[trade.S], _number(trade.i), time, received)

    def _book(self, message: _Valid, book: _Book, received: int) -> Frame:
        time = time_of(message.cts or message.ts, received)
        sides = self._sides(book, message.type)
        if sides is None:
            return Frame(time=time, ignored="orderbook.1 before its snapshot")
        tick = self._markets.quote(book.s, sides[0], sides[1], time, received, book.u)
        self._books[book.s] = sides
        return Frame(time=time, ignored="empty book") if tick is None else Frame(time=time, ticks=(tick,))

    def _sides(self, book: _Book, kind: str) -> list[tuple[float, float]] | None:
        """Best bid and ask after a message; None for a delta without a snapshot before it."""
        if kind == "snapshot" or book.u == 1:
            sides = [_EMPTY, _EMPTY]
        elif (known := self._books.get(book.s)) is None:
            return None
        else:
            sides = list(known)
        for place, levels in enumerate((book.b, book.a)):
            for price, size in levels:
                if size != 0.0:
                    sides[place] = (price, size)
                elif sides[place][0] == price:
                    sides[place] = _EMPTY
        return sides

    def _other(self, data: bytes | str, received: int, error: Exception) -> Frame:
        """An answer to a request, an unknown message, or a malformed frame."""
        other = decode_json(_OTHER, data)
        if other.op in {"ping", "pong"}:
            return Frame(time=received, heartbeats=(Heartbeat(time=received),))
        if other.op:
            if other.ret_msg.startswith(_REPEATED):  # the answer to a request that changes nothing
                return Frame(time=received, ignored=other.op)
            if not other.success:
                return Frame(time=received, error=ExchangeError(message=other.ret_msg))
            if other.op != "subscribe":
                return Frame(time=received, ignored=other.op)
            # an answer does not name its request, of which there may be several; each book is confirmed by its snapshot
            return Frame(time=received, ack=Subscriptions(channels={"publicTrade": self._requested}))
        if other.topic and not other.topic.startswith(_CHANNELS):
            return Frame(time=received, ignored=other.topic.rpartition(".")[0] or other.topic)
        raise error if isinstance(error, MalformedTick) else malformed_from(error) from error


def _number(text: str) -> int:
    """A trade id; ``MISSING_ID`` for one that is no number (derivatives) or does not fit its column."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else MISSING_ID
    return number if number < 2**63 else MISSING_ID


def _messages(channels: Sequence[str], symbols: Sequence[str]) -> list[str]:
    topics = [f"{channel}.{symbol}" for symbol in symbols for channel in channels]
    requests = [{"op": "subscribe", "args": part} for part in batched(topics, ARGUMENTS_PER_MESSAGE)]
    return [msgspec.json.encode(request).decode() for request in requests]


PROTOCOL = FeedProtocol(
    name="bybit",
    venue="bybit",
    url="wss://stream.bybit.com/v5/public/spot",
    codec=BybitCodec,
    channels=lambda _: _CHANNELS,
    messages=_messages,
    symbol=spell,
    limits=Limits(connections_per_s=1, arguments_per_message=ARGUMENTS_PER_MESSAGE),
    ping=Ping('{"op":"ping"}', 5.0),
    trade_ids=TradeIds.UNORDERED,
    verifiable=False,
)
