"""The simulated exchange's side of Coinbase Exchange; the client's is ``coinbase_exchange``.

Spoken are ``ticker``, ``matches`` and ``heartbeat``. Any other channel, the order book's too, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from zlib import crc32

from volspike.feeds.simulated_speaker import REFUSAL, SNAPSHOT_LEVEL, Subscribed, encoded, heard, unreadable
from volspike.feeds.simulated_words import Day, Outgoing, micros, price_text, size_text
from volspike.market import UNTOLD_ID, Side, Tick

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
            return [Outgoing(UNTOLD_ID, unreadable())]
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
            return [Outgoing(UNTOLD_ID, REFUSAL)]
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
        return Outgoing(UNTOLD_ID, f'{{"type":"weather","time":"{micros(now)}","outlook":"restless"}}'.encode())

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
        return Outgoing(UNTOLD_ID, text.encode())

    def _ack(self) -> Outgoing:
        told = [{"name": name, "product_ids": products} for name, products in self._subscribed.channels.items()]
        return Outgoing(UNTOLD_ID, encoded({"type": "subscriptions", "channels": told}))

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
