"""Coinbase Advanced Trade (``wss://advanced-trade-ws.coinbase.com``): frame bytes → ``Frame``.

Every frame except an error is an envelope: ``channel``, ``timestamp``, ``sequence_num`` and ``events``. Tickers have no
time of their own and get the envelope's. They contain no trade; trades come from ``market_trades``, newest first and
with the maker's side.

A frame may hold many tickers or trades. Those that cannot be decoded are listed in ``Frame.faults``, and the others are
kept; a frame without any valid one is malformed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import nan
from typing import Annotated, Literal, TypeAlias, TypeVar

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import Damage, ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.messages import (
    DECODE_ERRORS,
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
    replace_invalid_numbers,
    valid_price,
    valid_size,
    with_path_prefix,
)
from volspike.feeds.protocol import CodecFunctions, FeedProtocol, Limits, TradeIds
from volspike.market import MISSING_ID, Kind, Tick
from volspike.market.product import COINBASE

Detailed = TypeVar("Detailed")
Required = TypeVar("Required")
Default = TypeVar("Default")

_Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1)]


class _Envelope(msgspec.Struct):
    timestamp: str = ""
    sequence_num: Identifier = MISSING_ID


class _Quote(msgspec.Struct, gc=False):
    product_id: _Name
    price: float
    best_bid: float = nan
    best_ask: float = nan
    best_bid_quantity: float = nan
    best_ask_quantity: float = nan


class _DetailedQuote(DetailedMessage, gc=False, kw_only=True):
    """A quote with every field that a tape keeps; none of them may be empty."""

    product_id: _Name
    price: float


class _TickerEvent(msgspec.Struct):
    tickers: list[msgspec.Raw]


class _Ticker(_Envelope, tag_field="channel", tag="ticker", kw_only=True):
    events: list[_TickerEvent]


class _TickerBatch(_Ticker, tag_field="channel", tag="ticker_batch", kw_only=True):
    pass


class _Trade(msgspec.Struct, gc=False):
    product_id: _Name
    trade_id: Identifier
    price: float
    size: float
    time: str
    side: Literal["BUY", "SELL"]


class _DetailedTrade(DetailedMessage, gc=False, kw_only=True):
    """A trade with every field that a tape keeps; none of them may be empty."""

    product_id: _Name
    trade_id: Identifier
    price: float
    size: float
    time: str
    side: Literal["BUY", "SELL"]


class _TradesEvent(msgspec.Struct):
    trades: list[msgspec.Raw]
    type: str = "update"


class _MarketTrades(_Envelope, tag_field="channel", tag="market_trades", kw_only=True):
    events: list[_TradesEvent]


class _Beat(msgspec.Struct, gc=False):
    current_time: str = ""
    heartbeat_counter: int | None = None


class _Heartbeats(_Envelope, tag_field="channel", tag="heartbeats", kw_only=True):
    events: list[_Beat]


class _SubscriptionsEvent(msgspec.Struct):
    subscriptions: dict[str, list[str] | None]


class _Subscriptions(_Envelope, tag_field="channel", tag="subscriptions", kw_only=True):
    events: list[_SubscriptionsEvent]


class _DamagedEnvelope(msgspec.Struct):
    """The frame of a data channel with events, numbers or times that may be damaged."""

    channel: str
    events: list[msgspec.Raw]
    timestamp: msgspec.Raw = msgspec.Raw(b'""')
    sequence_num: msgspec.Raw = msgspec.Raw(b"-1")


class _Named(msgspec.Struct, gc=False):
    product_id: str = ""


class _Head(_Envelope):
    channel: str = ""
    type: str = ""
    message: str = ""
    reason: str = ""


_Message: TypeAlias = _Ticker | _TickerBatch | _MarketTrades | _Heartbeats | _Subscriptions

_MESSAGE = msgspec.json.Decoder[_Message](_Message, strict=False)
_HEAD = msgspec.json.Decoder(_Head, strict=False)
_QUOTE = msgspec.json.Decoder(_Quote, strict=False)
_DETAILED_QUOTE = msgspec.json.Decoder(_DetailedQuote, strict=False)
_TRADE = msgspec.json.Decoder(_Trade, strict=False)
_DETAILED_TRADE = msgspec.json.Decoder(_DetailedTrade, strict=False)
_DAMAGED = msgspec.json.Decoder(_DamagedEnvelope)
_NAMED = msgspec.json.Decoder(_Named)
_TICKER_EVENT = msgspec.json.Decoder(_TickerEvent)
_TRADES_EVENT = msgspec.json.Decoder(_TradesEvent)
_TEXT = msgspec.json.Decoder(str)
_NUMBER = msgspec.json.Decoder(Identifier, strict=False)
_DATA_CHANNELS = {"ticker", "ticker_batch", "market_trades"}
_CHANNELS = {*_DATA_CHANNELS, "heartbeats", "subscriptions"}


def decode_advanced_trade(frame: bytes | str, received: int) -> Frame:
    """Decode one frame received at ``received`` (nanoseconds UTC).

    A frame of any other channel (order book, candles, status, user, unknown ones) has its name in ``ignored`` and its
    sequence number; its body is not decoded.

    Raises:
        MalformedTick: the frame does not have the shape of its channel, or nothing in it is valid.
    """
    return decode_with_valid_numbers(_decode, frame, received)


def _decode(frame: bytes | str, received: int) -> Frame:
    try:
        message = _MESSAGE.decode(frame)
    except DECODE_ERRORS as error:
        return _decode_unusual(frame, received, error)
    return _frame(message, received)


def _decode_unusual(frame: bytes | str, received: int, error: Exception) -> Frame:
    """Decode what the typed decoder rejected: another channel, an error, an empty field, or a malformed frame."""
    envelope = _read_or(_DAMAGED, frame, None)
    if envelope is not None and envelope.channel in _DATA_CHANNELS:
        return _decode_damaged(envelope, received, error)
    head = decode_json(_HEAD, frame)
    if not head.channel:
        return _without_channel(head, received)
    if head.channel not in _CHANNELS:
        return Frame(time=_time(head, received), sequence=head.sequence_num, ignored=head.channel)
    if not isinstance(error, msgspec.ValidationError):
        raise malformed_from(error) from error
    return _frame(decode_without_empty_fields(_MESSAGE, frame), received)


def _decode_damaged(envelope: _DamagedEnvelope, received: int, error: Exception) -> Frame:
    """Decode the valid events of a data frame that the typed decoder rejected with ``error``.

    A damaged envelope costs a ticker, which has its time from there, but no trade.
    """
    sequence = _read_or(_NUMBER, envelope.sequence_num, MISSING_ID)
    timestamp = _read_or(_TEXT, envelope.timestamp, None)
    if envelope.channel == "market_trades":
        trades, faults = _valid_events(_TRADES_EVENT, envelope.events, _TradesEvent([]))
        return _frame(_MarketTrades(events=trades, timestamp=timestamp or "", sequence_num=sequence), received, faults)
    if timestamp is None:
        raise malformed_from(error) from error
    events, faults = _valid_events(_TICKER_EVENT, envelope.events, _TickerEvent([]))
    return _frame(_Ticker(events=events, timestamp=timestamp, sequence_num=sequence), received, faults)


def _read_or(
    decoder: msgspec.json.Decoder[Required], text: bytes | str | msgspec.Raw, default: Default
) -> Required | Default:
    try:
        return decoder.decode(text)
    except DECODE_ERRORS:
        return default


def _valid_events(
    decoder: msgspec.json.Decoder[Required], texts: list[msgspec.Raw], empty: Required
) -> tuple[list[Required], list[Damage]]:
    """The events, with ``empty`` in place of those that cannot be decoded, and their faults."""
    events, faults = [], []
    for i, text in enumerate(texts):
        try:
            events.append(decoder.decode(text))
        except DECODE_ERRORS as error:
            events.append(empty)
            faults.append(Damage(with_path_prefix(malformed_from(error), f"$.events[{i}]")))
    return events, faults


def _without_channel(head: _Head, received: int) -> Frame:
    if head.type == "error":
        return Frame(time=received, error=ExchangeError(message=head.message, reason=head.reason))
    if head.type:
        return Frame(time=received, ignored=head.type)
    raise MalformedTick("required and missing", "$.channel")


def _time(envelope: _Envelope, received: int) -> int:
    return read_time(envelope.timestamp, "$.timestamp") if envelope.timestamp else received


def _frame(message: _Message, received: int, faults: Sequence[Damage] = ()) -> Frame:
    sequence = message.sequence_num
    if isinstance(message, _Ticker):
        time = _time(message, received)
        ticks, messages, found = _tickers(message, time, received)
        damage = _damage_beside(ticks, (*faults, *found))
        return Frame(time=time, sequence=sequence, ticks=ticks, messages=messages, faults=damage)
    if isinstance(message, _MarketTrades):
        return _trades(message, received, faults)
    time = _time(message, received)
    if isinstance(message, _Heartbeats):
        return Frame(time=time, sequence=sequence, heartbeats=_heartbeats(message, time))
    return Frame(time=time, sequence=sequence, ack=_ack(message))


def _damage_beside(valid: Sequence[Tick], faults: tuple[Damage, ...]) -> tuple[Damage, ...]:
    """The faults of a frame with valid ticks; raises the first fault of a frame without."""
    if faults and not valid:
        raise faults[0].error
    return faults


def _damage(fault: MalformedTick, path: str, text: msgspec.Raw) -> Damage:
    """The loss of one ticker or trade."""
    name = _read_or(_NAMED, text, _Named()).product_id
    return Damage(with_path_prefix(fault, path), (name,) if name else (), 1)


def _tickers(
    message: _Ticker, time: int, received: int
) -> tuple[tuple[Tick, ...], tuple[TickMessage, ...], list[Damage]]:
    ticks: list[Tick] = []
    messages: list[TickMessage] = []
    faults: list[Damage] = []
    for i, event in enumerate(message.events):
        for j, text in enumerate(event.tickers):
            try:
                quote = _read_message(_DETAILED_QUOTE, _QUOTE, text)
                ticks.append(_ticker(quote, time, received))
            except MalformedTick as fault:
                faults.append(_damage(fault, f"$.events[{i}].tickers[{j}]", text))
                continue
            # a reader would take a time in the quote for the tick's, which is the envelope's
            detailed = quote if isinstance(quote, _DetailedQuote) and not quote.time else None
            messages.append(TickMessage(text, detailed))
    return tuple(ticks), tuple(messages), faults


def _read_message(
    detailed: msgspec.json.Decoder[Detailed], required: msgspec.json.Decoder[Required], text: msgspec.Raw
) -> Detailed | Required:
    """The message with all its fields, or with those that a tick needs if another one is empty or damaged."""
    try:
        return detailed.decode(text)
    except DECODE_ERRORS:
        pass
    try:
        return required.decode(text)
    except DECODE_ERRORS:
        return decode_without_empty_fields(required, bytes(text))


def _ticker(quote: _DetailedQuote | _Quote, time: int, received: int) -> Tick:
    bid, bid_size = quote_side(quote.best_bid, quote.best_bid_quantity, "$.best_bid", "$.best_bid_quantity")
    ask, ask_size = quote_side(quote.best_ask, quote.best_ask_quantity, "$.best_ask", "$.best_ask_quantity")
    return Tick(
        time=time,
        received=received,
        kind=Kind.TICKER,
        product_id=quote.product_id,
        price=valid_price(quote.price, "$.price"),
        best_bid=bid,
        best_ask=ask,
        bid_size=bid_size,
        ask_size=ask_size,
    )


def _trades(message: _MarketTrades, received: int, damaged_events: Sequence[Damage]) -> Frame:
    """Past trades (a snapshot's) and new ones, each oldest first; the exchange sends the newest first."""
    history: list[Tick] = []
    ticks: list[Tick] = []
    messages: list[TickMessage] = []
    faults = list(damaged_events)
    for i, event in enumerate(message.events):
        trades: list[tuple[Tick, TickMessage]] = []
        for j, text in enumerate(event.trades):
            try:
                trade = _read_message(_DETAILED_TRADE, _TRADE, text)
                detailed = trade if isinstance(trade, _DetailedTrade) else None
                trades.append((_trade(trade, received), TickMessage(text, detailed)))
            except MalformedTick as fault:
                faults.append(_damage(fault, f"$.events[{i}].trades[{j}]", text))
        trades.reverse()
        if event.type == "snapshot":
            history.extend(tick for tick, _ in trades)
        else:
            ticks.extend(tick for tick, _ in trades)
            messages.extend(message for _, message in trades)
    return Frame(
        time=_time_of_trades(message, received),
        sequence=message.sequence_num,
        ticks=tuple(ticks),
        messages=tuple(messages),
        history=tuple(history),
        faults=_damage_beside((*ticks, *history), tuple(faults)),
    )


def _time_of_trades(envelope: _Envelope, received: int) -> int:
    """The time of the envelope, or ``received`` if it is damaged; trades have their own."""
    try:
        return _time(envelope, received)
    except MalformedTick:
        return received


def _trade(trade: _DetailedTrade | _Trade, received: int) -> Tick:
    return Tick(
        time=read_time(trade.time, "$.time"),
        received=received,
        kind=Kind.TRADE,
        product_id=trade.product_id,
        price=valid_price(trade.price, "$.price"),
        last_size=valid_size(trade.size, "$.size"),
        side=TAKER_OF_MAKER[trade.side],
        trade_id=trade.trade_id,
    )


def _heartbeats(message: _Heartbeats, time: int) -> tuple[Heartbeat, ...]:
    return tuple(
        Heartbeat(
            time=read_time(beat.current_time, f"$.events[{i}].current_time") if beat.current_time else time,
            counter=beat.heartbeat_counter,
        )
        for i, beat in enumerate(message.events)
    )


def _ack(message: _Subscriptions) -> Subscriptions:
    channels: dict[str, tuple[str, ...]] = {}
    for event in message.events:
        channels.update({channel: tuple(products or ()) for channel, products in event.subscriptions.items()})
    return Subscriptions(channels=channels)


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


def usd_alias(symbol: str) -> str:
    """The symbol in the data of a market: Coinbase sends one in USDC under its USD alias.

    >>> usd_alias("BTC-USDC")
    'BTC-USD'
    """
    return symbol.removesuffix("C") if symbol.endswith("-USDC") else symbol


_HEAD_BYTES = 256
_SEQUENCE = re.compile(rb'"sequence_num"\s*:\s*"?([0-9]{1,18})[",}\s]')


class _Numbered(msgspec.Struct, gc=False):
    sequence_num: Identifier = MISSING_ID


class _NamedElement(msgspec.Struct):
    product_id: str


class _Names(msgspec.Struct):
    tickers: list[_NamedElement] = []
    trades: list[_NamedElement] = []


class _NamedEvents(msgspec.Struct):
    events: list[_Names]


_NAMES = msgspec.json.Decoder(_NamedEvents)
_NUMBERED = msgspec.json.Decoder(_Numbered, strict=False)


def _messages(channels: Sequence[str], symbols: Sequence[str]) -> list[str]:
    """One message per channel."""
    products = {"product_ids": list(symbols)}
    requests = [
        {"type": "subscribe", "channel": channel} | ({} if channel == "heartbeats" else products)
        for channel in channels
    ]
    return [msgspec.json.encode(request).decode() for request in requests]


PROTOCOL = FeedProtocol(
    name="coinbase",
    venue=COINBASE,
    url="wss://advanced-trade-ws.coinbase.com",
    codec=lambda _: CodecFunctions(decode_advanced_trade, advanced_trade_damage),
    channels=lambda _: ("ticker", "market_trades", "heartbeats"),
    messages=_messages,
    data_symbol=usd_alias,
    sequence=advanced_trade_sequence,
    limits=Limits(subscribe_within_s=5.0),
    trade_ids=TradeIds.UNORDERED,  # frames are numbered, which shows every loss
    verifiable=True,
)
