"""The server's side of both Coinbase protocols, without a socket: requests and trades in, frames out.

``ExchangeServer`` serves Coinbase Exchange (``ticker``, ``matches``, ``heartbeat``), ``AdvancedTradeServer`` serves
Advanced Trade (``ticker``, ``market_trades``, ``heartbeats``). Every other channel is refused, the order book
too. The client's side is in ``feeds/venues``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated
from zlib import crc32

import msgspec

from volspike.feeds.simulation.protocols import (
    ConnectionRules,
    Handshake,
    Outgoing,
    ProductDay,
    ServerProtocol,
    book_levels,
    book_sides,
    go_time,
    micros,
    nanos,
    padded,
    price_text,
    request_of,
    size_text,
    trimmed_price,
)
from volspike.market import MISSING_ID, SECOND_NS, Side, Tick

REFUSAL = b'{"type":"error","message":"authentication failure"}'
UNNAMED_REJECTION = b'{"type":"error","message":"Failed to subscribe"}'
MALFORMED_FRAMES = (b'{"channel":"ticker","events":7}', b'{"type":"ticker"}')
MALFORMED = b'{"type":"error","message":"Malformed JSON"}'


def rejection(products: Iterable[str], rejected: Mapping[str, bool]) -> list[Outgoing] | None:
    """The error for a request with a rejected product, named if its value is true; None for any other request."""
    for product in products:
        if product in rejected:
            reason = f'{{"type":"error","message":"Failed to subscribe","reason":"{product} is not a valid product"}}'
            return [Outgoing(MISSING_ID, reason.encode() if rejected[product] else UNNAMED_REJECTION)]
    return None


class NamedChannel(msgspec.Struct):
    """A channel of an Exchange subscription with its own products."""

    name: str
    product_ids: list[str] = []


class ClientRequest(msgspec.Struct):
    """A client's request in either protocol: one ``channel``, or several ``channels``."""

    type: str
    product_ids: list[str] = []
    channel: str = ""
    channels: Annotated[list[str | NamedChannel], msgspec.Meta(max_length=64)] = []


_REQUEST = msgspec.json.Decoder(ClientRequest)


def decode_request(message: str | bytes) -> ClientRequest | None:
    """The request, or None for any other message."""
    request = request_of(_REQUEST, message)
    return request if request is not None and request.type in {"subscribe", "unsubscribe"} else None


class ClientSubscriptions:
    """The products that a connection has subscribed to, by channel.

    A product that is not traded is left out without an error; ``X-USDC`` is ``X-USD``, as at Coinbase.
    """

    def __init__(self, channels: Sequence[str], products: Mapping[str, ProductDay]) -> None:
        self._known = frozenset(channels)
        self._products = products
        self.channels: dict[str, list[str]] = {}

    def has(self, channel: str, product: str) -> bool:
        """Whether ``product`` is subscribed on ``channel``."""
        return product in self.channels.get(channel, ())

    def update(self, is_subscribe: bool, requested: Mapping[str, Sequence[str]]) -> dict[str, list[str]] | None:
        """Add or remove the products requested by channel; no products means all of them.

        Returns the new products by channel, or None if a channel is unknown; then nothing changes.
        """
        if not requested or not self._known.issuperset(requested):
            return None
        return {channel: self._update(is_subscribe, channel, names) for channel, names in requested.items()}

    def _update(self, is_subscribe: bool, channel: str, names: Sequence[str]) -> list[str]:
        traded = self._traded(names) if names else list(self._products)
        before = self.channels.get(channel, [])
        if is_subscribe:
            new = [name for name in traded if name not in before]
            if before or new:
                self.channels[channel] = before + new
            return new
        left = [name for name in before if name not in traded]
        if left:
            self.channels[channel] = left
        else:
            self.channels.pop(channel, None)
        return []

    def _traded(self, names: Sequence[str]) -> list[str]:
        traded = [
            name.removesuffix("C") if name.endswith("-USDC") and name not in self._products else name for name in names
        ]
        return [name for name in dict.fromkeys(traded) if name in self._products]


EXCHANGE_CHANNELS = ("ticker", "matches", "heartbeat")
_EXCHANGE_TAKER = {Side.BUY: "buy", Side.SELL: "sell"}
_EXCHANGE_MAKER = {Side.BUY: "sell", Side.SELL: "buy"}


class ExchangeServer(ServerProtocol):
    """Coinbase Exchange: sequence numbers belong to the product and are equal on all connections without skips."""

    rules = ConnectionRules(must_subscribe=True)
    malformed = MALFORMED_FRAMES

    def __init__(self, handshake: Handshake) -> None:
        super().__init__(handshake)
        self._subscriptions = ClientSubscriptions(EXCHANGE_CHANNELS, handshake.days)
        self._skipped = 0

    def answer(self, message: str | bytes, now: int) -> list[Outgoing]:
        """The confirmation, then the last match of each product newly subscribed to ``matches``."""
        del now  # no answer contains the current time
        request = decode_request(message)
        if request is None:
            return [Outgoing(MISSING_ID, MALFORMED)]
        is_subscribe = request.type == "subscribe"
        self.subscribes += is_subscribe
        requested: dict[str, list[str]] = {}
        for channel in request.channels:
            if isinstance(channel, str):
                requested[channel] = request.product_ids
            else:
                requested[channel.name] = channel.product_ids or request.product_ids
        products = [product for names in requested.values() for product in names]
        refused = rejection(products, self._rejected) if is_subscribe else None
        if refused is not None:
            return refused
        new = self._subscriptions.update(is_subscribe, requested)
        if new is None:
            return [Outgoing(MISSING_ID, REFUSAL)]
        lasts = [self._days[product].last for product in new.get("matches", [])]
        return [self._ack(), *(self._match("last_match", last) for last in lasts if last is not None)]

    def trade_frames(self, trade: Tick) -> list[Outgoing]:
        """The match, then the ticker after it."""
        frames = []
        if self._subscriptions.has("matches", trade.product_id):
            frames.append(self._match("match", trade))
        if self._subscriptions.has("ticker", trade.product_id):
            frames.append(self._ticker(trade))
        return frames

    def second_frames(self, now: int) -> list[Outgoing]:
        """A heartbeat per product."""
        return [self._heartbeat(product, now) for product in self._subscriptions.channels.get("heartbeat", ())]

    def skip_numbers(self, numbers: int) -> None:
        """Raise all later numbers on this connection by that many."""
        self._skipped += numbers

    def reset_numbers(self) -> None:
        """Nothing: the numbers belong to the products."""

    def unknown_frame(self, now: int) -> Outgoing:
        """A message of an unknown type."""
        return Outgoing(MISSING_ID, f'{{"type":"weather","time":"{micros(now)}","outlook":"restless"}}'.encode())

    def book_frame(self, product: str, size: int, now: int) -> Outgoing:
        """The first message of the channel ``level2``: levels of both sides around the last price."""
        del now
        bids, asks = book_sides(self._days[product], size, '["{}","1.00000000"]')
        text = f'{{"type":"snapshot","product_id":"{product}","bids":[{bids}],"asks":[{asks}]}}'
        return Outgoing(MISSING_ID, padded(text, size))

    def _ack(self) -> Outgoing:
        channels = [{"name": name, "product_ids": products} for name, products in self._subscriptions.channels.items()]
        return Outgoing(MISSING_ID, msgspec.json.encode({"type": "subscriptions", "channels": channels}))

    def _heartbeat(self, product: str, now: int) -> Outgoing:
        day = self._days[product]
        number = day.last_sequence + self._skipped
        text = (
            f'{{"type":"heartbeat","sequence":{number},"last_trade_id":{day.last_trade_id},'
            f'"product_id":"{product}","time":"{micros(now)}"}}'
        )
        return Outgoing(number, text.encode())

    def _match(self, kind: str, trade: Tick) -> Outgoing:
        number = trade.sequence + self._skipped
        order = f"{crc32(trade.product_id.encode()):08x}-0000-4000"
        text = (
            f'{{"type":"{kind}","trade_id":{trade.trade_id},"maker_order_id":"{order}-8000-{trade.trade_id:012x}",'
            f'"taker_order_id":"{order}-9000-{trade.trade_id:012x}","side":"{_EXCHANGE_MAKER[trade.side]}",'
            f'"size":"{size_text(trade.last_size)}","price":"{price_text(trade.price)}",'
            f'"product_id":"{trade.product_id}","sequence":{number},"time":"{micros(trade.time)}"}}'
        )
        return Outgoing(number, text.encode())

    def _ticker(self, trade: Tick) -> Outgoing:
        day = self._days[trade.product_id]
        number = trade.sequence + self._skipped
        text = (
            f'{{"type":"ticker","sequence":{number},"product_id":"{trade.product_id}",'
            f'"price":"{price_text(trade.price)}","open_24h":"{price_text(day.open)}",'
            f'"volume_24h":"{size_text(day.volume)}","low_24h":"{price_text(day.low)}",'
            f'"high_24h":"{price_text(day.high)}","volume_30d":"{size_text(30 * day.volume)}",'
            f'"best_bid":"{price_text(trade.best_bid)}","best_bid_size":"{size_text(trade.bid_size)}",'
            f'"best_ask":"{price_text(trade.best_ask)}","best_ask_size":"{size_text(trade.ask_size)}",'
            f'"side":"{_EXCHANGE_TAKER[trade.side]}","time":"{micros(trade.time)}","trade_id":{trade.trade_id},'
            f'"last_size":"{size_text(trade.last_size)}"}}'
        )
        return Outgoing(number, text.encode())


ADVANCED_TRADE_CHANNELS = ("ticker", "market_trades", "heartbeats")
_ADVANCED_TRADE_MAKER = {Side.BUY: "SELL", Side.SELL: "BUY"}


class AdvancedTradeServer(ServerProtocol):
    """Advanced Trade: every message of a connection is numbered, except errors."""

    rules = ConnectionRules(must_subscribe=True)
    most_subscribes = len(ADVANCED_TRADE_CHANNELS)
    malformed = MALFORMED_FRAMES

    def __init__(self, handshake: Handshake) -> None:
        super().__init__(handshake)
        self._opened = handshake.opened
        self._subscriptions = ClientSubscriptions(ADVANCED_TRADE_CHANNELS, handshake.days)
        self._number = 0
        self._batch: dict[str, list[str]] = {}

    def answer(self, message: str | bytes, now: int) -> list[Outgoing]:
        """The confirmation, then a snapshot per newly subscribed product."""
        request = decode_request(message)
        if request is None:
            return [Outgoing(MISSING_ID, MALFORMED)]
        is_subscribe = request.type == "subscribe"
        self.subscribes += is_subscribe
        refused = rejection(request.product_ids, self._rejected) if is_subscribe else None
        if refused is not None:
            return refused
        new = self._subscriptions.update(is_subscribe, {request.channel: request.product_ids})
        if new is None:
            return [Outgoing(MISSING_ID, REFUSAL)]
        frames = [self._ack(now)]
        frames += self._tickers(new.get("ticker", []), now)
        frames += [self._past(product, now) for product in new.get("market_trades", [])]
        return frames

    def trade_frames(self, trade: Tick) -> list[Outgoing]:
        """A ticker now; the trade itself is sent with the next batch."""
        product = trade.product_id
        if self._subscriptions.has("market_trades", product):
            self._batch.setdefault(product, []).append(_trade(trade))
        if not self._subscriptions.has("ticker", product):
            return []
        return [
            self._enveloped("ticker", trade.time, _event("update", "tickers", [_ticker(trade, self._days[product])]))
        ]

    def quarter_frames(self, now: int) -> list[Outgoing]:
        """One batch per product that traded, newest trade first."""
        batch, self._batch = self._batch, {}
        return [
            self._enveloped("market_trades", now, _event("update", "trades", trades[::-1]))
            for product, trades in batch.items()
            if self._subscriptions.has("market_trades", product)
        ]

    def second_frames(self, now: int) -> list[Outgoing]:
        """The heartbeat."""
        if "heartbeats" not in self._subscriptions.channels:
            return []
        uptime_s = (now - self._opened) / SECOND_NS
        beat = f'{{"current_time":"{go_time(now, uptime_s)}","heartbeat_counter":{int(uptime_s)}}}'
        return [self._enveloped("heartbeats", now, beat)]

    def skip_numbers(self, numbers: int) -> None:
        """Raise the number of the next message by that many."""
        self._number += numbers

    def reset_numbers(self) -> None:
        """The next message has the number 0."""
        self._number = 0

    def unknown_frame(self, now: int) -> Outgoing:
        """A message of an unknown channel, numbered like all others."""
        return self._enveloped("weather", now, '{"type":"update","outlook":"restless"}')

    def book_frame(self, product: str, size: int, now: int) -> Outgoing:
        """The first message of the channel ``level2``: levels of both sides around the last price."""
        levels = ",".join(
            f'{{"side":"{side}","event_time":"1970-01-01T00:00:00Z","price_level":"{price:.8f}","new_quantity":"1.00000000"}}'
            for side, prices in zip(("bid", "offer"), book_levels(self._days[product], size // 4), strict=True)
            for price in prices
        )
        text = f'{{"type":"snapshot","product_id":"{product}","updates":[{levels}]}}'
        return self._enveloped("l2_data", now, padded(text, size).decode())

    def _ack(self, now: int) -> Outgoing:
        channels = dict(self._subscriptions.channels)
        if "heartbeats" in channels:
            channels["heartbeats"] = ["heartbeats"]
        return self._enveloped("subscriptions", now, msgspec.json.encode({"subscriptions": channels}).decode())

    def _tickers(self, products: list[str], now: int) -> list[Outgoing]:
        known = [(self._days[product].last, self._days[product]) for product in products]
        tickers = [_ticker(last, day) for last, day in known if last is not None]
        return [self._enveloped("ticker", now, _event("snapshot", "tickers", tickers))] if tickers else []

    def _past(self, product: str, now: int) -> Outgoing:
        past = [_trade(trade) for trade in reversed(self._days[product].trades)]
        return self._enveloped("market_trades", now, _event("snapshot", "trades", past))

    def _enveloped(self, channel: str, now: int, event: str) -> Outgoing:
        number = self._number
        self._number += 1
        text = f'{{"channel":"{channel}","timestamp":"{nanos(now)}","sequence_num":{number},"events":[{event}]}}'
        return Outgoing(number, text.encode())


def _event(kind: str, name: str, items: list[str]) -> str:
    return f'{{"type":"{kind}","{name}":[{",".join(items)}]}}'


def _ticker(last: Tick, day: ProductDay) -> str:
    low, high = trimmed_price(day.low), trimmed_price(day.high)
    return (
        f'{{"type":"ticker","product_id":"{last.product_id}","price":"{trimmed_price(last.price)}",'
        f'"volume_24_h":"{size_text(day.volume)}","low_24_h":"{low}","high_24_h":"{high}",'
        f'"low_52_w":"{low}","high_52_w":"{high}","price_percent_chg_24_h":"{100 * (last.price / day.open - 1):.14f}",'
        f'"best_bid":"{trimmed_price(last.best_bid)}","best_ask":"{trimmed_price(last.best_ask)}",'
        f'"best_bid_quantity":"{size_text(last.bid_size)}","best_ask_quantity":"{size_text(last.ask_size)}"}}'
    )


def _trade(trade: Tick) -> str:
    return (
        f'{{"product_id":"{trade.product_id}","trade_id":"{trade.trade_id}","price":"{trimmed_price(trade.price)}",'
        f'"size":"{size_text(trade.last_size)}","time":"{micros(trade.time)}","side":"{_ADVANCED_TRADE_MAKER[trade.side]}"}}'
    )
