"""A frame's ticks as tape lines that keep the exchange's own words.

Where those words would read back as another tick than the one that was decoded (a field that the protocol does
not have, text that is no UTF-8), the tick is told in the writer's words instead: replay = live comes first.
"""

from __future__ import annotations

from math import isnan
from typing import TypeAlias

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds import SIDES, TAKER_OF_MAKER, UNREADABLE, Frame, RawTicker
from volspike.market import Kind, Tick
from volspike.tape.lines import is_utf8
from volspike.tape.oddities import read_oddity
from volspike.tape.writer import DayFigures, tape_line

_UNTOLD = msgspec.Raw(b"null")

Words: TypeAlias = bytes | None
"""One ticker or trade object as it came; None where the frame has no such object for a tick."""


class _Event(msgspec.Struct):
    type: str = "update"
    tickers: list[msgspec.Raw] = []
    trades: list[msgspec.Raw] = []


class _Envelope(msgspec.Struct):
    channel: str = ""
    events: list[_Event] = []


class _Told(RawTicker, gc=False, kw_only=True):
    """What a reader will find in ``raw``, and the 24 hour figures as Exchange and Advanced Trade name them."""

    volume_24h: msgspec.Raw = _UNTOLD
    low_24h: msgspec.Raw = _UNTOLD
    high_24h: msgspec.Raw = _UNTOLD
    volume_24_h: msgspec.Raw = _UNTOLD
    low_24_h: msgspec.Raw = _UNTOLD
    high_24_h: msgspec.Raw = _UNTOLD


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_TOLD = msgspec.json.Decoder(_Told, strict=False)


def frame_lines(data: bytes, frame: Frame, *, simulated: bool = False) -> list[bytes]:
    """One tape line for each of ``frame.ticks``, in their order; ``data`` is what ``frame`` was decoded from.

    Read by ``read_ticks`` they give exactly these ticks. ``frame.history`` is no new flow and is not told.
    """
    ticks = frame.ticks
    if not ticks:
        return []
    is_timed, messages = _messages(data, ticks)
    return [_line(tick, words, is_timed, simulated) for tick, words in zip(ticks, messages, strict=True)]


def _messages(data: bytes, ticks: tuple[Tick, ...]) -> tuple[bool, list[Words]]:
    """Whether the decoder took the time from the object of each tick, and these objects.

    Exchange's is the frame itself. Advanced Trade lists trades newest first; its tickers have the envelope's time.
    """
    try:
        envelope = _ENVELOPE.decode(data)
    except UNREADABLE:
        return False, [None] * len(ticks)
    if not envelope.channel:
        found: list[Words] = [data.strip()]
    elif envelope.channel == "market_trades":
        flow = [event.trades for event in envelope.events if event.type != "snapshot"]
        found = [bytes(trade) for trades in flow for trade in reversed(trades)]
    else:
        found = [bytes(ticker) for event in envelope.events for ticker in event.tickers]
    is_timed = envelope.channel in {"", "market_trades"}
    return is_timed, found if len(found) == len(ticks) else [None] * len(ticks)


def _line(tick: Tick, words: Words, is_timed: bool, simulated: bool) -> bytes:
    if words is None or not is_utf8(words):
        return tape_line(tick, simulated=simulated)
    try:
        told = _TOLD.decode(words)
    except UNREADABLE:  # an empty or null field, which a reader looks at a second time
        return _proven(tick, words, simulated)
    # a line tells the time where raw does not; a time that raw tells and the decoder did not take is none
    if (told.time and not is_timed) or not _agrees(told, tick):
        return _proven(tick, words, simulated)
    return tape_line(tick, raw=words, day=_day(told), simulated=simulated, told=told)


def _proven(tick: Tick, words: bytes, simulated: bool) -> bytes:
    """The line with the exchange's words, if a reader is sure to find the tick in it; else in our own."""
    line = tape_line(tick, raw=words, simulated=simulated)
    try:
        read = read_oddity(line.rstrip(b"\n")).ticks
    except MalformedTick:
        read = ()
    # compared as text: NaN, what was not told, is not equal to itself
    return line if repr(read) == repr((tick,)) else tape_line(tick, simulated=simulated)


def _agrees(told: _Told, tick: Tick) -> bool:
    """Whether everything that a reader takes from ``told`` is what ``tick`` says."""
    if tick.kind == Kind.TRADE:
        is_same = told.is_trade and _same(told.size, tick.last_size) and TAKER_OF_MAKER.get(told.side) == tick.side
    else:
        is_same = (
            not told.is_trade
            and not told.is_history
            and _same(told.last_size, tick.last_size)
            and SIDES.get(told.side) == tick.side
            and _is_quoted(tick.best_bid, tick.bid_size, told.best_bid, told.best_bid_quantity, told.best_bid_size)
            and _is_quoted(tick.best_ask, tick.ask_size, told.best_ask, told.best_ask_quantity, told.best_ask_size)
        )
    return is_same and told.trade_id == tick.trade_id and told.sequence == tick.sequence


def _is_quoted(price: float, size: float, told: float, quantity: float, other: float) -> bool:
    """One side of the book; a reader takes the size from ``quantity`` and, where that is not told, from the other."""
    if isnan(price):
        return isnan(told) or told == 0.0
    return _same(other if isnan(quantity) else quantity, size)


def _same(left: float, right: float) -> bool:
    return left == right or (isnan(left) and isnan(right))


def _day(told: _Told) -> DayFigures:
    """The 24 hour figures, verbatim."""
    return DayFigures(
        _figure(told.volume_24h, told.volume_24_h),
        _figure(told.low_24h, told.low_24_h),
        _figure(told.high_24h, told.high_24_h),
    )


def _figure(exchange: msgspec.Raw, advanced_trade: msgspec.Raw) -> str:
    told = advanced_trade if exchange is _UNTOLD else exchange
    return "null" if told is _UNTOLD else bytes(told).decode()
