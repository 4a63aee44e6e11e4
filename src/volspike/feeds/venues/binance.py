"""Binance spot (``wss://stream.binance.com:9443``): combined frames of ``trade`` and ``bookTicker`` → ``Frame``.

``m`` is true if the buyer was the maker, so the taker sold. A book ticker has no time; it gets that of its receipt.
Trade ids count by one per symbol; an ``aggTrade`` (not requested here, but what futures offer) is those from ``f`` to
``l``. Times are in ms, or in µs if the address requests it. A connection lasts 24 hours and may be announced
to end earlier (``serverShutdown``).
Source: "WebSocket Streams for Binance", github.com/binance/binance-spot-api-docs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import nan

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.markets import Markets, time_of
from volspike.feeds.messages import DECODE_ERRORS, Identifier, decode_json, decode_with_valid_numbers, malformed_from
from volspike.feeds.protocol import FeedProtocol, Limits, Ping, TradeIds, batched
from volspike.market import MISSING_ID, Side, Tick

STREAMS_PER_MESSAGE = 200


class _Data(msgspec.Struct, gc=False):
    """A trade, an aggregated trade or a book ticker; the letters are Binance's."""

    e: str = ""
    s: str = ""
    t: Identifier = MISSING_ID
    p: float = nan
    q: float = nan
    f: Identifier = MISSING_ID
    l: Identifier = MISSING_ID  # noqa: E741
    T: int = 0
    m: bool | None = None
    u: Identifier = MISSING_ID
    b: float = nan
    B: float = nan
    a: float = nan
    A: float = nan


class _Envelope(msgspec.Struct, gc=False):
    stream: str
    data: _Data


class _Error(msgspec.Struct, gc=False):
    code: int | None = None
    msg: str = ""


class _Answer(msgspec.Struct, gc=False, kw_only=True):
    """Any other frame: an answer to a request, or an event without a stream."""

    id: int | str | None = None
    result: msgspec.Raw = msgspec.Raw(b"")
    code: int | None = None
    msg: str = ""
    error: _Error | None = None
    e: str = ""
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"")


class _Event(msgspec.Struct, gc=False):
    e: str = ""


_ENVELOPE = msgspec.json.Decoder(_Envelope, strict=False)
_ANSWER = msgspec.json.Decoder(_Answer)
_EVENT = msgspec.json.Decoder(_Event)
_SYMBOL = re.compile(rb'"s"\s*:\s*"([A-Z0-9]+)"')
_STREAMS = {"trade", "bookTicker", "aggTrade"}
_SHUTDOWN = "serverShutdown"


class BinanceCodec:
    """The frames of one session."""

    def __init__(self, products: Sequence[str]) -> None:
        self._markets = Markets("binance", products, spell, _SYMBOL)
        self._requested = tuple(products)

    def decode(self, data: bytes | str, received: int) -> Frame:
        """Decode one frame received at ``received`` (ns UTC)."""
        return decode_with_valid_numbers(self._decode, data, received)

    def _decode(self, data: bytes | str, received: int) -> Frame:
        try:
            message = _ENVELOPE.decode(data)
        except DECODE_ERRORS as error:
            return self._other(data, received, error)
        event = message.data
        if event.e == "trade":
            tick: Tick | None = self._trade(event, event.t, received)
        elif event.e == "aggTrade":
            tick = self._trade(event, event.l, received)
            return Frame(time=tick.time, ticks=(tick,), first_ids=(event.f,) if event.f != event.l else ())
        elif event.e in {"", "bookTicker"} and message.stream.endswith("@bookTicker"):
            time = time_of(event.T, received)  # futures have a time
            quotes = (event.b, event.B), (event.a, event.A)
            tick = self._markets.quote(event.s, *quotes, time, received, event.u)
        else:
            return self._other(data, received, None)
        return Frame(time=received, ignored="empty book") if tick is None else Frame(time=tick.time, ticks=(tick,))

    def damage(self, data: bytes, error: MalformedTick) -> Damage:
        """The product that the frame names; every frame is one message."""
        return msgspec.structs.replace(self._markets.damage(data, error), lost=1)

    def _trade(self, event: _Data, number: int, received: int) -> Tick:
        if event.m is None:
            raise MalformedTick("required and missing", "$.data.m")
        side = Side.SELL if event.m else Side.BUY
        return self._markets.trade(event.s, event.p, event.q, side, number, time_of(event.T, received), received)

    def _other(self, data: bytes | str, received: int, error: Exception | None) -> Frame:
        """An answer to a request, another event, or a malformed frame."""
        answer = decode_json(_ANSWER, data)
        if answer.stream or answer.e:
            return _event(answer, received, error)
        if answer.error is not None or answer.code is not None:
            code, text = (answer.code, answer.msg) if answer.error is None else (answer.error.code, answer.error.msg)
            return Frame(time=received, error=ExchangeError(message=text, reason=f"code {code}"))
        if answer.id == PING_ID:
            return Frame(time=received, heartbeats=(Heartbeat(time=received),))
        if answer.id is not None and answer.result == msgspec.Raw(b"null"):
            # a request is confirmed as a unit, with unknown symbols in it: their quotes stay unconfirmed
            return Frame(time=received, ack=Subscriptions(channels={"trade": self._requested}))
        raise malformed_from(error) if error is not None else MalformedTick("neither a stream nor an answer")


def _event(answer: _Answer, received: int, error: Exception | None) -> Frame:
    """An event that makes no tick; raises ``error`` for one of a stream whose events do."""
    kind = answer.stream.rpartition("@")[2].lstrip("!")
    event = answer.e or (decode_json(_EVENT, answer.data).e if bytes(answer.data)[:1] == b"{" else "")
    if error is not None and kind in _STREAMS:
        raise malformed_from(error) from error
    return Frame(time=received, is_closing=_SHUTDOWN in {kind, event}, ignored=event or kind)


PING_ID = "ping"


def spell(symbol: str) -> str:
    """Binance's spelling of a symbol.

    >>> spell("BTC-USDT")
    'BTCUSDT'
    """
    return symbol.replace("-", "")


def _messages(channels: Sequence[str], symbols: Sequence[str]) -> list[str]:
    streams = [f"{symbol.lower()}@{channel}" for symbol in symbols for channel in channels]
    requests = [
        {"method": "SUBSCRIBE", "params": part, "id": number}
        for number, part in enumerate(batched(streams, STREAMS_PER_MESSAGE), 1)
    ]
    return [msgspec.json.encode(request).decode() for request in requests]


PROTOCOL = FeedProtocol(
    name="binance",
    venue="binance",
    url="wss://stream.binance.com:9443/stream?timeUnit=MICROSECOND",
    codec=BinanceCodec,
    channels=lambda _: ("trade", "bookTicker"),
    messages=_messages,
    symbol=spell,
    limits=Limits(
        connections_per_s=1,
        messages_per_s=4,  # five, of which the ping is one
        lifetime_s=86_400.0,
        streams_per_connection=1024,
        arguments_per_message=STREAMS_PER_MESSAGE,
    ),
    # not a ping by name, but any request has an answer, and the market itself may be silent
    ping=Ping(f'{{"method":"LIST_SUBSCRIPTIONS","id":"{PING_ID}"}}', 5.0),
    trade_ids=TradeIds.CONSECUTIVE,
    verifiable=True,
)
