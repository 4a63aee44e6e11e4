"""How the simulated exchange spells what both protocols tell: instants, prices, sizes, and a product's day.

What the simulated exchange's two protocols have in common: who asked for what, and when something is said.

The simulated exchange's side of Coinbase Exchange; the client's is ``coinbase_exchange``.

Spoken are ``ticker``, ``matches`` and ``heartbeat``. Any other channel, the order book's too, is refused.

The simulated exchange's side of Coinbase Advanced Trade; the client's is ``coinbase_advanced_trade``.

Spoken are ``ticker``, ``market_trades`` and ``heartbeats``. Any other channel, the order book's too, is refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, NamedTuple, Protocol
from zlib import crc32

import msgspec

from volspike.market import MISSING_ID, SECOND_NS, Side, Tick

PAST_TRADES = 100
_MADE_UP_VOLUME = 5000.0


class Outgoing(NamedTuple):
    """One frame that is to be sent; ``sequence`` is the number that it carries, ``MISSING_ID`` without one."""

    sequence: int
    data: bytes


class Day:
    """What a product did since the simulation began; the day and the month that tickers tell are made of it."""

    def __init__(self) -> None:
        self.open = self.low = self.high = 0.0
        self.volume = _MADE_UP_VOLUME
        self.trades: deque[Tick] = deque(maxlen=PAST_TRADES)

    def take(self, trade: Tick) -> None:
        """Counts one more trade."""
        if not self.trades:
            self.open = self.low = self.high = trade.price
        self.low = min(self.low, trade.price)
        self.high = max(self.high, trade.price)
        self.volume += trade.last_size
        self.trades.append(trade)

    @property
    def last(self) -> Tick | None:
        """The newest trade, if there was any."""
        return self.trades[-1] if self.trades else None

    @property
    def last_trade_id(self) -> int:
        """Its number."""
        return self.trades[-1].trade_id if self.trades else MISSING_ID

    @property
    def last_sequence(self) -> int:
        """Its sequence number."""
        return self.trades[-1].sequence if self.trades else MISSING_ID


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def micros(ns: int) -> str:
    """RFC 3339 with six digits, as trades are timed: ``2022-10-19T23:28:22.061769Z``."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return f"{_second(seconds)}.{fraction // 1000:06d}Z"


def nanos(ns: int) -> str:
    """RFC 3339 with up to nine digits, trailing zeros trimmed, as Advanced Trade stamps its envelopes."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return f"{_second(seconds)}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def go_time(ns: int, uptime_s: float) -> str:
    """A Go timestamp with its monotonic tail, as Advanced Trade's heartbeats carry it."""
    return f"{nanos(ns)[:-1].replace('T', ' ')} +0000 UTC m=+{uptime_s:.9f}"


def price_text(price: float) -> str:
    """Two digits, as Exchange writes prices in dollars."""
    return f"{price:.2f}"


def trimmed(price: float) -> str:
    """Without trailing zeros, as Advanced Trade writes them."""
    return f"{price:.2f}".rstrip("0").rstrip(".")


def size_text(size: float) -> str:
    """Eight digits."""
    return f"{size:.8f}"


SNAPSHOT_LEVEL = 0.01
REFUSAL = b'{"type":"error","message":"authentication failure"}'
_UNREADABLE = b'{"type":"error","message":"Malformed JSON"}'


class Speaker(Protocol):
    """One connection's side of a protocol, without a socket: what is heard and what happens in, frames out.

    ``now`` is simulated time in nanoseconds UTC and never goes back.
    """

    asked: int
    """How many subscribe messages came."""

    def hear(self, message: str | bytes, now: int) -> list[Outgoing]:
        """Answers a client's message."""

    def trade(self, trade: Tick) -> list[Outgoing]:
        """Tells a trade that happens now."""

    def quarter(self, now: int) -> list[Outgoing]:
        """What is said every 250 ms."""

    def second(self, now: int) -> list[Outgoing]:
        """What is said every second."""

    def skip(self, numbers: int) -> None:
        """Leaves out that many sequence numbers."""

    def unknown(self, now: int) -> Outgoing:
        """A message of a kind that no client knows."""

    def book(self, product: str, size: int, now: int) -> Outgoing:
        """A snapshot of a product's order book of at least ``size`` bytes."""


class Named(msgspec.Struct):
    """A channel in an Exchange subscription, with products of its own."""

    name: str
    product_ids: list[str] = []


class Request(msgspec.Struct):
    """What a client asks for, in either protocol: one ``channel``, or several ``channels``."""

    type: str
    product_ids: list[str] = []
    channel: str = ""
    channels: Annotated[list[str | Named], msgspec.Meta(max_length=64)] = []


_REQUEST = msgspec.json.Decoder(Request)


def heard(message: str | bytes) -> Request | None:
    """The request, or ``None`` for what is none."""
    try:
        request = _REQUEST.decode(message)
    except (ValueError, RecursionError):
        return None
    return request if request.type in {"subscribe", "unsubscribe"} else None


class Subscribed:
    """Which products a connection listens to in which channel, and the requests that changed it.

    A product that is not traded is left out without a word; ``X-USDC`` is ``X-USD``, as at Coinbase.
    """

    def __init__(self, channels: Sequence[str], products: Mapping[str, Day]) -> None:
        self._known = frozenset(channels)
        self._products = products
        self.channels: dict[str, list[str]] = {}

    def has(self, channel: str, product: str) -> bool:
        """Whether ``product`` is listened to in ``channel``."""
        return product in self.channels.get(channel, ())

    def change(self, is_wanted: bool, wishes: Mapping[str, Sequence[str]]) -> dict[str, list[str]] | None:
        """Adds or removes; tells what is new in each channel, or ``None`` if a channel is unknown and nothing changed.

        No products stands for all of them.
        """
        if not wishes or not self._known.issuperset(wishes):
            return None
        return {channel: self._change(is_wanted, channel, names) for channel, names in wishes.items()}

    def _change(self, is_wanted: bool, channel: str, names: Sequence[str]) -> list[str]:
        traded = self._traded(names) if names else list(self._products)
        before = self.channels.get(channel, [])
        if is_wanted:
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
        told = [
            name.removesuffix("C") if name.endswith("-USDC") and name not in self._products else name for name in names
        ]
        return [name for name in dict.fromkeys(told) if name in self._products]


def unreadable() -> bytes:
    """The answer to what is no request."""
    return _UNREADABLE


def encoded(message: Any) -> bytes:
    """A message that is sent seldom, as JSON."""
    return msgspec.json.encode(message)


CHANNELS = ("ticker", "matches", "heartbeat")
_LEVEL_BYTES = 28
_TAKER = {Side.BUY: "buy", Side.SELL: "sell"}
_MAKER = {Side.BUY: "sell", Side.SELL: "buy"}


class ExchangeSpeaker:
    """A ``Speaker``: numbers are the product's, the same for every connection unless some were skipped on it."""

    def __init__(self, days: Mapping[str, Day]) -> None:
        self.asked = 0
        self._days = days
        self._subscribed = Subscribed(CHANNELS, days)
        self._skipped = 0

    def hear(self, message: str | bytes, now: int) -> list[Outgoing]:
        """The ack, then the last match of each product whose matches are newly listened to."""
        del now  # nothing that is answered tells a time of its own
        request = heard(message)
        if request is None:
            return [Outgoing(MISSING_ID, unreadable())]
        is_wanted = request.type == "subscribe"
        self.asked += is_wanted
        wishes: dict[str, list[str]] = {}
        for channel in request.channels:
            if isinstance(channel, str):
                wishes[channel] = request.product_ids
            else:
                wishes[channel.name] = channel.product_ids or request.product_ids
        new = self._subscribed.change(is_wanted, wishes)
        if new is None:
            return [Outgoing(MISSING_ID, REFUSAL)]
        lasts = [self._days[product].last for product in new.get("matches", [])]
        return [self._ack(), *(self._match("last_match", last) for last in lasts if last is not None)]

    def trade(self, trade: Tick) -> list[Outgoing]:
        """The match, then the ticker that it leaves."""
        frames = []
        if self._subscribed.has("matches", trade.product_id):
            frames.append(self._match("match", trade))
        if self._subscribed.has("ticker", trade.product_id):
            frames.append(self._ticker(trade))
        return frames

    def quarter(self, now: int) -> list[Outgoing]:
        """Nothing is batched here."""
        del now
        return []

    def second(self, now: int) -> list[Outgoing]:
        """A heartbeat for each product."""
        return [self._heartbeat(product, now) for product in self._subscribed.channels.get("heartbeat", ())]

    def skip(self, numbers: int) -> None:
        """All later numbers on this connection are higher by that many."""
        self._skipped += numbers

    def unknown(self, now: int) -> Outgoing:
        """A type that nobody knows."""
        return Outgoing(MISSING_ID, f'{{"type":"weather","time":"{micros(now)}","outlook":"restless"}}'.encode())

    def book(self, product: str, size: int, now: int) -> Outgoing:
        """As the channel ``level2`` begins: levels of both sides around the last price."""
        del now
        last = self._days[product].last
        middle = last.price if last else 1.0
        levels = range(-(-size // (2 * _LEVEL_BYTES)))
        bids, asks = (
            ",".join(f'["{middle * (1 + SNAPSHOT_LEVEL * level) ** sign:.8f}","1.00000000"]' for level in levels)
            for sign in (-1, 1)
        )
        asks += " " * max(0, size - len(bids) - len(asks))
        text = f'{{"type":"snapshot","product_id":"{product}","bids":[{bids}],"asks":[{asks}]}}'
        return Outgoing(MISSING_ID, text.encode())

    def _ack(self) -> Outgoing:
        told = [{"name": name, "product_ids": products} for name, products in self._subscribed.channels.items()]
        return Outgoing(MISSING_ID, encoded({"type": "subscriptions", "channels": told}))

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
            f'"taker_order_id":"{order}-9000-{trade.trade_id:012x}","side":"{_MAKER[trade.side]}",'
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
            f'"side":"{_TAKER[trade.side]}","time":"{micros(trade.time)}","trade_id":{trade.trade_id},'
            f'"last_size":"{size_text(trade.last_size)}"}}'
        )
        return Outgoing(number, text.encode())


CHANNELS_OF_ADVANCED_TRADE = ("ticker", "market_trades", "heartbeats")
_LEVEL_BYTES_OF_ADVANCED_TRADE = 120
_MAKER_OF_ADVANCED_TRADE = {Side.BUY: "SELL", Side.SELL: "BUY"}


class AdvancedTradeSpeaker:
    """A ``Speaker``: every message is numbered, acks and heartbeats too; only an error is not."""

    def __init__(self, days: Mapping[str, Day], opened: int) -> None:
        self.asked = 0
        self._days = days
        self._opened = opened
        self._subscribed = Subscribed(CHANNELS_OF_ADVANCED_TRADE, days)
        self._number = 0
        self._fresh: dict[str, list[str]] = {}

    def hear(self, message: str | bytes, now: int) -> list[Outgoing]:
        """The ack, then a snapshot for each product newly listened to."""
        request = heard(message)
        if request is None:
            return [Outgoing(MISSING_ID, unreadable())]
        is_wanted = request.type == "subscribe"
        self.asked += is_wanted
        new = self._subscribed.change(is_wanted, {request.channel: request.product_ids})
        if new is None:
            return [Outgoing(MISSING_ID, REFUSAL)]
        frames = [self._ack(now)]
        frames += self._tickers(new.get("ticker", []), now)
        frames += [self._past(product, now) for product in new.get("market_trades", [])]
        return frames

    def trade(self, trade: Tick) -> list[Outgoing]:
        """A ticker now; the trade itself waits for its batch."""
        product = trade.product_id
        if self._subscribed.has("market_trades", product):
            self._fresh.setdefault(product, []).append(_trade(trade))
        if not self._subscribed.has("ticker", product):
            return []
        return [
            self._enveloped("ticker", trade.time, _event("update", "tickers", [_ticker(trade, self._days[product])]))
        ]

    def quarter(self, now: int) -> list[Outgoing]:
        """One batch for each product that traded, newest first."""
        fresh, self._fresh = self._fresh, {}
        return [
            self._enveloped("market_trades", now, _event("update", "trades", trades[::-1]))
            for product, trades in fresh.items()
            if self._subscribed.has("market_trades", product)
        ]

    def second(self, now: int) -> list[Outgoing]:
        """The heartbeat."""
        if "heartbeats" not in self._subscribed.channels:
            return []
        uptime_s = (now - self._opened) / SECOND_NS
        beat = f'{{"current_time":"{go_time(now, uptime_s)}","heartbeat_counter":{int(uptime_s)}}}'
        return [self._enveloped("heartbeats", now, beat)]

    def skip(self, numbers: int) -> None:
        """The next message's number is higher by that many."""
        self._number += numbers

    def unknown(self, now: int) -> Outgoing:
        """A channel that nobody knows, numbered like all others."""
        return self._enveloped("weather", now, '{"type":"update","outlook":"restless"}')

    def book(self, product: str, size: int, now: int) -> Outgoing:
        """As the channel ``level2`` begins: levels of both sides around the last price."""
        last = self._days[product].last
        middle = last.price if last else 1.0
        levels = ",".join(
            f'{{"side":"{side}","event_time":"1970-01-01T00:00:00Z","price_level":"{price:.8f}","new_quantity":"1.00000000"}}'
            for level in range(-(-size // (2 * _LEVEL_BYTES_OF_ADVANCED_TRADE)))
            for side, price in (
                ("bid", middle / (1 + SNAPSHOT_LEVEL * level)),
                ("offer", middle * (1 + SNAPSHOT_LEVEL * level)),
            )
        )
        levels += " " * max(0, size - len(levels))
        return self._enveloped("l2_data", now, f'{{"type":"snapshot","product_id":"{product}","updates":[{levels}]}}')

    def _ack(self, now: int) -> Outgoing:
        told = dict(self._subscribed.channels)
        if "heartbeats" in told:
            told["heartbeats"] = ["heartbeats"]
        return self._enveloped("subscriptions", now, encoded({"subscriptions": told}).decode())

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


def _ticker(last: Tick, day: Day) -> str:
    low, high = trimmed(day.low), trimmed(day.high)
    return (
        f'{{"type":"ticker","product_id":"{last.product_id}","price":"{trimmed(last.price)}",'
        f'"volume_24_h":"{size_text(day.volume)}","low_24_h":"{low}","high_24_h":"{high}",'
        f'"low_52_w":"{low}","high_52_w":"{high}","price_percent_chg_24_h":"{100 * (last.price / day.open - 1):.14f}",'
        f'"best_bid":"{trimmed(last.best_bid)}","best_ask":"{trimmed(last.best_ask)}",'
        f'"best_bid_quantity":"{size_text(last.bid_size)}","best_ask_quantity":"{size_text(last.ask_size)}"}}'
    )


def _trade(trade: Tick) -> str:
    return (
        f'{{"product_id":"{trade.product_id}","trade_id":"{trade.trade_id}","price":"{trimmed(trade.price)}",'
        f'"size":"{size_text(trade.last_size)}","time":"{micros(trade.time)}","side":"{_MAKER_OF_ADVANCED_TRADE[trade.side]}"}}'
    )
