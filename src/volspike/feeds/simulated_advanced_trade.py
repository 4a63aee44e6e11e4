"""The simulated exchange's side of Coinbase Advanced Trade; the client's is ``coinbase_advanced_trade``.

Spoken are ``ticker``, ``market_trades`` and ``heartbeats``. Any other channel, the order book's too, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from volspike.feeds.simulated_speaker import REFUSAL, SNAPSHOT_LEVEL, Subscribed, encoded, heard, unreadable
from volspike.feeds.simulated_words import Day, Outgoing, go_time, micros, nanos, size_text, trimmed
from volspike.market import SECOND_NS, UNTOLD_ID, Side, Tick

CHANNELS = ("ticker", "market_trades", "heartbeats")
_LEVEL_BYTES = 120
_MAKER = {Side.BUY: "SELL", Side.SELL: "BUY"}


class AdvancedTradeSpeaker:
    """A ``Speaker``: every message is numbered, acks and heartbeats too; only an error is not."""

    def __init__(self, days: Mapping[str, Day], opened: int) -> None:
        self.asked = 0
        self._days = days
        self._opened = opened
        self._subscribed = Subscribed(CHANNELS, days)
        self._number = 0
        self._fresh: dict[str, list[str]] = {}

    def hear(self, message: str | bytes, now: int) -> list[Outgoing]:
        """The ack, then a snapshot for each product newly listened to."""
        request = heard(message)
        if request is None:
            return [Outgoing(UNTOLD_ID, unreadable())]
        is_wanted = request.type == "subscribe"
        self.asked += is_wanted
        new = self._subscribed.change(is_wanted, {request.channel: request.product_ids})
        if new is None:
            return [Outgoing(UNTOLD_ID, REFUSAL)]
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
            for level in range(-(-size // (2 * _LEVEL_BYTES)))
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
        f'"size":"{size_text(trade.last_size)}","time":"{micros(trade.time)}","side":"{_MAKER[trade.side]}"}}'
    )
