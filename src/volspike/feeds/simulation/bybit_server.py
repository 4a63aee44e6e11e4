"""The server's side of Bybit's v5 spot stream, without a socket: ``publicTrade`` and ``orderbook.1``.

A request with an unknown topic, or with more than ten, is refused as a unit. The book begins with a snapshot; a delta
has only the levels that changed, a level that is gone with the size 0, and after 3 s without a change the snapshot is
sent again. Source: bybit-exchange.github.io/docs/v5/websocket, and recorded answers quoted in public issues.
"""

from __future__ import annotations

from typing import Final

import msgspec

from volspike.feeds.simulation.binance_server import binance_symbol
from volspike.feeds.simulation.protocols import (
    ConnectionRules,
    Handshake,
    Outgoing,
    ServerProtocol,
    TopOfBook,
    book_sides,
    millis,
    padded,
    price_text,
    request_of,
    size_text,
)
from volspike.market import MISSING_ID, SECOND_NS, Side, Tick

MOST_ARGUMENTS: Final = 10
REPEAT_NS: Final = 3 * SECOND_NS
_TRADES, _BOOK = "publicTrade", "orderbook.1"
_TAKER = {Side.BUY: "Buy", Side.SELL: "Sell"}


class _Request(msgspec.Struct):
    op: str
    args: list[str] = []
    req_id: str = ""


_REQUEST = msgspec.json.Decoder(_Request)


class BybitServer(ServerProtocol):
    """Bybit v5 spot: trade ids count by one per symbol here; ``u`` numbers the updates of a book."""

    rules = ConnectionRules()
    malformed = (b'{"topic":"publicTrade.BTCUSDT","data":7}', b'{"topic":"orderbook.1.BTCUSDT","data":{"b":7}}')

    def __init__(self, handshake: Handshake) -> None:
        super().__init__(handshake)
        self._id = f"{handshake.number:08x}"
        self._products = {
            f"{topic}.{binance_symbol(product)}": product for product in handshake.days for topic in (_TRADES, _BOOK)
        }
        self._topics: set[str] = set()
        self._sent: dict[str, tuple[int, TopOfBook]] = {}
        self._updates_before: dict[str, int] = {}

    def is_ping(self, message: str | bytes) -> bool:
        """Whether a message has the operation ``ping``."""
        request = request_of(_REQUEST, message)
        return request is not None and request.op == "ping"

    def answer(self, message: str | bytes, now: int) -> list[Outgoing]:
        """One answer to the request, then the snapshots of books newly subscribed to."""
        request = request_of(_REQUEST, message)
        if request is None:
            return [self._response(_Request(""), "Invalid JSON", success=False)]
        if request.op == "ping":
            return [self._response(request, "pong")]
        if request.op not in {"subscribe", "unsubscribe"}:
            return [self._response(request, f"Invalid op: {request.op}", success=False)]
        self.subscribes += request.op == "subscribe"
        refusal = self._refusal(request)
        if refusal:
            return [self._response(request, refusal, success=False)]
        frames = [self._response(request, request.op)]
        if request.op == "unsubscribe":
            self._topics.difference_update(request.args)
            return frames
        for topic in request.args:
            self._topics.add(topic)
            if topic.startswith(_BOOK):
                frames += self._snapshot(self._products[topic], now)
        return frames

    def trade_frames(self, trade: Tick) -> list[Outgoing]:
        """The trade."""
        symbol = binance_symbol(trade.product_id)
        topic = f"{_TRADES}.{symbol}"
        if topic not in self._topics:
            return []
        number, time = self._numbers.of(trade), millis(trade.time)
        text = (
            f'{{"topic":"{topic}","type":"snapshot","ts":{time},"data":[{{"T":{time},"s":"{symbol}",'
            f'"S":"{_TAKER[trade.side]}","v":"{size_text(trade.last_size)}","p":"{price_text(trade.price)}",'
            f'"i":"{number}","BT":false,"RPI":false,"seq":{trade.sequence}}}]}}'
        )
        return [Outgoing(number, text.encode())]

    def quote_frames(self, product: str, now: int) -> list[Outgoing]:
        """The levels that changed; the first message of a book is a snapshot."""
        topic = f"{_BOOK}.{binance_symbol(product)}"
        book = self._days[product].book
        if book is None or topic not in self._topics:
            return []
        if product not in self._sent:
            return self._snapshot(product, now)
        before = self._sent[product][1]
        bids = _changes(before.bid, before.bid_size, book.bid, book.bid_size)
        asks = _changes(before.ask, before.ask_size, book.ask, book.ask_size)
        return [self._book(product, "delta", book, now, bids, asks)]

    def second_frames(self, now: int) -> list[Outgoing]:
        """The snapshots of books that have not changed for 3 s."""
        due = [product for product, (time, _) in self._sent.items() if now - time >= REPEAT_NS]
        return [frame for product in due for frame in self._snapshot(product, now)]

    def reset_numbers(self) -> None:
        """The next trade of every symbol has the id 1, and the updates of books begin again with snapshots."""
        super().reset_numbers()
        self._sent.clear()
        for product, day in self._days.items():
            self._updates_before[product] = 0 if day.book is None else day.book.update

    def unknown_frame(self, now: int) -> Outgoing:
        """A message of an unknown topic."""
        symbol = binance_symbol(next(iter(self._days)))
        text = f'{{"topic":"weather.{symbol}","type":"snapshot","ts":{millis(now)},"data":{{"outlook":"restless"}}}}'
        return Outgoing(MISSING_ID, text.encode())

    def book_frame(self, product: str, size: int, now: int) -> Outgoing:
        """A snapshot of the topic ``orderbook.1000``."""
        symbol = binance_symbol(product)
        bids, asks = book_sides(self._days[product], size, '["{}","1"]')
        text = (
            f'{{"topic":"orderbook.1000.{symbol}","ts":{millis(now)},"type":"snapshot","data":{{"s":"{symbol}",'
            f'"b":[{bids}],"a":[{asks}],"u":1,"seq":1}},"cts":{millis(now)}}}'
        )
        return Outgoing(MISSING_ID, padded(text, size))

    def _refusal(self, request: _Request) -> str:
        """The reason to refuse a request; empty if there is none."""
        if len(request.args) > MOST_ARGUMENTS:
            return f"args size >{MOST_ARGUMENTS}"
        for topic in request.args:
            product = self._products.get(topic)
            if product is None:
                return f"error:handler not found,topic:{topic}"
            if request.op == "subscribe" and topic in self._topics:
                return f"error:already subscribed,topic:{topic}"
            if request.op == "subscribe" and product in self._rejected:
                return (
                    f"error:handler not found,topic:{topic}" if self._rejected[product] else "error:handler not found"
                )
        return ""

    def _snapshot(self, product: str, now: int) -> list[Outgoing]:
        book = self._days[product].book
        if book is None or f"{_BOOK}.{binance_symbol(product)}" not in self._topics:
            self._sent.pop(product, None)
            return []
        bids, asks = _changes(0.0, 0.0, book.bid, book.bid_size), _changes(0.0, 0.0, book.ask, book.ask_size)
        return [self._book(product, "snapshot", book, now, bids, asks)]

    def _book(self, product: str, kind: str, book: TopOfBook, now: int, bids: str, asks: str) -> Outgoing:
        self._sent[product] = now, book
        symbol, update = binance_symbol(product), book.update - self._updates_before.get(product, 0)
        text = (
            f'{{"topic":"{_BOOK}.{symbol}","ts":{millis(now)},"type":"{kind}","data":{{"s":"{symbol}",'
            f'"b":[{bids}],"a":[{asks}],"u":{max(update, 1)},"seq":{book.update}}},"cts":{millis(book.time)}}}'
        )
        return Outgoing(MISSING_ID, text.encode())

    def _response(self, request: _Request, text: str, *, success: bool = True) -> Outgoing:
        fields = {
            "success": success,
            "ret_msg": text,
            "conn_id": self._id,
            "req_id": request.req_id,
            "op": request.op,
        }
        return Outgoing(MISSING_ID, msgspec.json.encode(fields))


def _changes(old: float, old_size: float, new: float, new_size: float) -> str:
    """The levels of one side that changed, as JSON: the new one, and the old one with the size 0 if it is gone."""
    if (old, old_size) == (new, new_size):
        return ""
    level = f'["{price_text(new)}","{size_text(new_size)}"]'
    return level if old in {0.0, new} else f'{level},["{price_text(old)}","0"]'
