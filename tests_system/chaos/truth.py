"""Ground truth of a chaos run: what the simulated exchange traded and sent, decoded without the product's codecs.

The market is computed again from its seed, so it includes the ticks of times in which no client was connected. The
exchange's record has every frame in the order of sending, with its connection and its fault.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import isfinite
from typing import Any, Final, NamedTuple, Self

from volspike.feeds.simulation.exchange import HISTORY_S, SimulatedExchange
from volspike.feeds.simulation.faults import Fault, Injected, Sent
from volspike.feeds.simulation.market import simulate_trades
from volspike.market import SECOND_NS

PROTOCOLS: Final = ("coinbase", "coinbase-exchange")
"""Coinbase's protocols: Advanced Trade, which numbers its messages, and Coinbase Exchange."""

VENUES: Final = {"binance": 1_000, "kraken": 1_000, "okx": 1_000_000, "bybit": 1_000_000}
"""The other protocols, with the unit of their times in ns; of their ticks only the trades are compared."""

CONSECUTIVE: Final = frozenset({"binance", "kraken", "okx"})
"""Venues whose trade ids count by one, so that the loss of a single trade can be noticed."""

TICKER: Final = 0
TRADE: Final = 1

HARMLESS: Final = frozenset({Fault.DELAY, Fault.DUPLICATE, Fault.UNKNOWN, Fault.SNAPSHOT, Fault.SHUTDOWN})
"""Faults that lose nothing and leave no jump in the numbers: they must not make rows incomplete."""

UNNUMBERED: Final = frozenset({Fault.DROP, Fault.REORDER, Fault.SKIP})
"""Faults that only numbers of messages reveal, which Coinbase Exchange does not send."""


class TickKey(NamedTuple):
    """Identity of a tick in the market; Advanced Trade's tickers have no trade id (-1)."""

    kind: int
    product: str
    time: int
    price: float
    trade_id: int


class WireTick(NamedTuple):
    """A tick as the exchange sent it; None where the message has no such field. ``side`` is the taker's."""

    key: TickKey
    best_bid: float | None = None
    best_ask: float | None = None
    bid_size: float | None = None
    ask_size: float | None = None
    last_size: float | None = None
    side: int = 0
    sequence: int = -1


class ExpectedTick(NamedTuple):
    """A tick that must be on the tape or in a gap.

    ``made`` is when the exchange made its frame (ns UTC): trades of Advanced Trade are sent in batches. ``position`` is
    that of its frame among all frames, or of the first frame after it if no frame has it. ``was_sent`` is whether a
    frame took it to a client, ``fault`` what prevented that. ``is_verifiable`` is false for a loss that only numbers of
    messages or a long silence reveal.
    """

    key: TickKey
    made: int
    position: int
    was_sent: bool
    fault: Fault | None
    is_verifiable: bool


def frame_ticks(data: bytes) -> list[WireTick]:
    """The new ticks in the bytes of a frame, past trades excluded; a damaged element gives none."""
    ticks = []
    for decode, fields in _elements(data):
        try:
            tick = decode(fields)
        except (KeyError, TypeError, ValueError):
            continue
        if isfinite(tick.key.price) and tick.key.price > 0.0:
            ticks.append(tick)
    return ticks


def _elements(data: bytes) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The decoder and the fields of each element of a frame that is a new tick."""
    try:
        message = json.loads(data)
        channel, kind = message.get("channel"), message.get("type")
        if channel == "ticker":
            for event in message["events"]:
                for fields in event["tickers"]:
                    yield _advanced_ticker, fields | {"timestamp": message["timestamp"]}
        elif channel == "market_trades":
            for event in message["events"]:
                if event["type"] == "update":
                    yield from ((_advanced_trade, fields) for fields in event["trades"])
        elif channel == "trade" and kind == "update":
            yield from ((_kraken_trade, fields) for fields in message["data"])
        elif message.get("arg", {}).get("channel") == "trades":
            yield from ((_okx_trade, fields) for fields in message["data"])
        elif message.get("topic", "").startswith("publicTrade."):
            yield from ((_bybit_trade, fields) for fields in message["data"])
        elif message.get("stream", "").endswith("@trade"):
            yield _binance_trade, message["data"]
        elif channel is None and kind in {"ticker", "match"}:
            yield (_exchange_ticker if kind == "ticker" else _exchange_match), message
    except (AttributeError, KeyError, TypeError, ValueError):
        return


def _advanced_ticker(fields: dict[str, Any]) -> WireTick:
    price = float(fields["price"])
    return WireTick(TickKey(TICKER, fields["product_id"], _time(fields["timestamp"]), price, -1), *_quotes(fields))


def _advanced_trade(fields: dict[str, Any]) -> WireTick:
    side = {"SELL": 1, "BUY": -1}[fields["side"]]  # the maker's
    trade_id = int(fields["trade_id"])
    key = TickKey(TRADE, fields["product_id"], _time(fields["time"]), float(fields["price"]), trade_id)
    return WireTick(key, last_size=float(fields["size"]), side=side)


def _exchange_ticker(fields: dict[str, Any]) -> WireTick:
    key = TickKey(TICKER, fields["product_id"], _time(fields["time"]), float(fields["price"]), int(fields["trade_id"]))
    side = {"buy": 1, "sell": -1}[fields["side"]]
    return WireTick(key, *_quotes(fields), float(fields["last_size"]), side, int(fields["sequence"]))


def _exchange_match(fields: dict[str, Any]) -> WireTick:
    key = TickKey(TRADE, fields["product_id"], _time(fields["time"]), float(fields["price"]), int(fields["trade_id"]))
    side = {"sell": 1, "buy": -1}[fields["side"]]  # the maker's
    return WireTick(key, last_size=float(fields["size"]), side=side, sequence=int(fields["sequence"]))


def _binance_trade(fields: dict[str, Any]) -> WireTick:
    side = -1 if fields["m"] else 1  # whether the buyer is the maker
    time = fields["T"] * (1_000 if fields["T"] > _LATEST_MS else 1_000_000)
    return _venue_trade("binance", fields["s"], time, fields["p"], fields["q"], side, fields["t"])


def _kraken_trade(fields: dict[str, Any]) -> WireTick:
    time, size, number = _time(fields["timestamp"]), fields["qty"], fields["trade_id"]
    return _venue_trade("kraken", fields["symbol"], time, fields["price"], size, _TAKER[fields["side"]], number)


def _okx_trade(fields: dict[str, Any]) -> WireTick:
    time, number = int(fields["ts"]) * 1_000_000, int(fields["tradeId"])
    return _venue_trade("okx", fields["instId"], time, fields["px"], fields["sz"], _TAKER[fields["side"]], number)


def _bybit_trade(fields: dict[str, Any]) -> WireTick:
    time, side = fields["T"] * 1_000_000, _TAKER[fields["S"].lower()]
    return _venue_trade("bybit", fields["s"], time, fields["p"], fields["v"], side, int(fields["i"]))


def _venue_trade(venue: str, symbol: str, time: int, price: Any, size: Any, side: int, number: int) -> WireTick:
    """A trade of a product in dollars, under any of the venues' symbols."""
    product = f"{venue}:{symbol.removesuffix('USD').rstrip('-/')}-USD"
    return WireTick(TickKey(TRADE, product, time, float(price), number), last_size=float(size), side=side)


_TAKER: Final = {"buy": 1, "sell": -1}
_LATEST_MS: Final = 10**14


def _quotes(fields: Mapping[str, Any]) -> tuple[float, float, float, float]:
    """Best bid and ask and their sizes, under the names of either protocol."""
    sizes = [fields.get(f"best_{side}_quantity", fields.get(f"best_{side}_size")) for side in ("bid", "ask")]
    bid_size, ask_size = (float(size) for size in sizes if size is not None)
    return float(fields["best_bid"]), float(fields["best_ask"]), bid_size, ask_size


def _time(text: str) -> int:
    """Nanoseconds UTC of a time that ends in ``Z``."""
    whole_seconds, _, fraction = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(whole_seconds + "+00:00").timestamp()) * SECOND_NS + int(
        fraction.ljust(9, "0")[:9]
    )


@dataclass(frozen=True)
class Journal:
    """The record of one exchange after a run: all frames and faults, and the keys of all ticks of its market by time.

    ``protocol`` is one of ``PROTOCOLS`` or ``VENUES``.
    """

    protocol: str
    frames: tuple[Sent, ...]
    injected: tuple[Injected, ...]
    market: tuple[TickKey, ...]

    @classmethod
    def of(cls, exchange: SimulatedExchange, protocol: str) -> Self:
        """The journal of an exchange that kept all its frames, up to its present time.

        Raises:
            ValueError: the exchange kept only a part of its frames.
        """
        record = exchange.record
        if len(record.sent) != record.frames + record.lost:
            raise ValueError(f"{record.frames + record.lost} frames were made and {len(record.sent)} kept")
        return cls(protocol, exchange.sent, exchange.injected, tuple(_market(exchange, protocol)))

    @property
    def is_numbered(self) -> bool:
        """Whether the exchange numbers its messages or its trades, so that every loss can be noticed."""
        return self.protocol == PROTOCOLS[0] or self.protocol in CONSECUTIVE

    @cached_property
    def sent(self) -> Counter[WireTick]:
        """How often each tick was sent; frames that were in transit when their connection broke are included."""
        return Counter({tick: len(positions) for tick, positions in self.positions.items()})

    @cached_property
    def positions(self) -> dict[WireTick, list[int]]:
        """The positions of the frames that sent a tick, in order."""
        positions: dict[WireTick, list[int]] = defaultdict(list)
        for position, frame in enumerate(self.frames):
            if not frame.is_lost:
                for tick in frame_ticks(frame.data):
                    positions[tick].append(position)
        return positions

    def expected(self) -> list[ExpectedTick]:
        """Every tick of the market since the first one sent, and every ticker that a subscription began with, by time.

        Trades between the two subscriptions of a connection are excluded, see ``unsubscribed``.
        """
        lost: dict[TickKey, tuple[int, Fault | None]] = {}
        sent: dict[TickKey, int] = {}
        opening: set[TickKey] = set()
        market = set(self.market)
        for position, frame in enumerate(self.frames):
            arrived = {tick.key for tick in frame_ticks(frame.data)} if not frame.is_lost else set()
            for tick in _made_ticks(frame):
                if tick.key not in arrived:
                    lost[tick.key] = position, frame.fault
                    continue
                sent[tick.key] = position
                if tick.key not in market:
                    opening.add(tick.key)
        begun = min(key.time for key in sent if key in market)
        times = [frame.time for frame in self.frames]
        expected = []
        for key in (*self.market, *opening):
            if key.time < begun or key in self.unsubscribed:
                continue
            if key in sent:
                position, fault = sent[key], None
            else:
                position, fault = lost.get(key, (self._position_of_unmade(key, times), None))
            made = times[position] if key in sent or key in lost else key.time
            is_verifiable = self.is_numbered or fault not in {Fault.DROP, Fault.SILENCE}
            expected.append(ExpectedTick(key, made, position, key in sent, fault, is_verifiable))
        return sorted(expected, key=lambda tick: tick.key.time)

    def _position_of_unmade(self, key: TickKey, times: Sequence[int]) -> int:
        """The position of a tick that is in no frame; a batch of trades is not made if its connection ends first."""
        if key.kind == TRADE:
            for start, end, after in self._trade_subscriptions.values():
                if start <= key.time <= end:
                    return after
        return bisect_right(times, key.time)

    @cached_property
    def unsubscribed(self) -> set[TickKey]:
        """Trades of Advanced Trade that were made after a connection's tickers began and before its trades did.

        The exchange sends them only as past trades, in the answer to the second subscription.
        """
        tickers = self._snapshots(b"ticker")
        spans = [(tickers[each], start) for each, (start, *_) in self._trade_subscriptions.items() if each in tickers]
        sent = {tick.key for frame in self.frames for tick in _made_ticks(frame)}
        return {
            key
            for key in self.market
            if key.kind == TRADE and key not in sent and any(start <= key.time <= end for start, end in spans)
        }

    @cached_property
    def _trade_subscriptions(self) -> dict[int, tuple[int, int, int]]:
        """By connection, the times from its subscription of Advanced Trade's trades to its last frame.

        The third value is the position after that frame.
        """
        ends = {frame.connection: (frame.time, at + 1) for at, frame in enumerate(self.frames)}
        return {each: (start, *ends[each]) for each, start in self._snapshots(b"market_trades").items()}

    def _snapshots(self, channel: bytes) -> dict[int, int]:
        """By connection, the time of the snapshot that answers the subscription of a channel of Advanced Trade."""
        begin = b'{"channel":"' + channel + b'"'
        return {
            frame.connection: frame.time
            for frame in reversed(self.frames)
            if (data := frame.original or frame.data).startswith(begin) and b'"type":"snapshot"' in data[:200]
        }

    def disturbances(self) -> list[int]:
        """The times of all faults that may leave a gap, a loss or not (ns UTC)."""
        without_effect = HARMLESS if self.is_numbered else HARMLESS | UNNUMBERED
        return sorted(each.time for each in self.injected if each.fault not in without_effect)


def _made_ticks(frame: Sent) -> list[WireTick]:
    """The ticks of a frame before it was damaged or mistimed."""
    return frame_ticks(frame.original or frame.data)


def _market(exchange: SimulatedExchange, protocol: str) -> Iterator[TickKey]:
    """The keys of all ticks that the market has had so far, computed again from its seed."""
    settings = exchange.settings
    assert settings.start is not None
    start = settings.start - settings.start % 1000 - HISTORY_S * SECOND_NS
    is_advanced = protocol == PROTOCOLS[0]
    for part in simulate_trades(exchange.products, HISTORY_S + settings.seconds, settings.seed, start):
        names = [part.products[code] for code in part.product]
        for name, time, price, trade_id in zip(names, part.time, part.price, part.trade_id, strict=True):
            if time > exchange.now:
                return
            if protocol in VENUES:
                unit = VENUES[protocol]
                yield TickKey(TRADE, f"{protocol}:{name}", int(time) // unit * unit, float(price), int(trade_id))
                continue
            cents = float(f"{price:.2f}")
            yield TickKey(TICKER, name, int(time), cents, -1 if is_advanced else int(trade_id))
            if is_advanced:
                yield TickKey(TRADE, name, int(time), cents, int(trade_id))
