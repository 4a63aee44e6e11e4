"""The server's side of Kraken's websocket v2, without a socket: ``trade`` and ``ticker``, with snapshots.

Every symbol of a request has its own confirmation or error. A ``heartbeat`` is sent in every second in which nothing
else is sent. Numbers are JSON numbers. Source: docs.kraken.com, "Spot WebSocket v2".
"""

from __future__ import annotations

from typing import Final

import msgspec

from volspike.feeds.simulation.protocols import (
    ConnectionRules,
    Handshake,
    Outgoing,
    ProductDay,
    ServerProtocol,
    book_sides,
    micros,
    padded,
    price_text,
    request_of,
    size_text,
)
from volspike.market import MISSING_ID, Side, Tick

SNAPSHOT_TRADES: Final = 50
_TRADE, _TICKER = "trade", "ticker"
_TAKER = {Side.BUY: "buy", Side.SELL: "sell"}
_BEAT = Outgoing(MISSING_ID, b'{"channel":"heartbeat"}')


class _Params(msgspec.Struct):
    channel: str = ""
    symbol: list[str] = []
    snapshot: bool | None = None
    event_trigger: str = "trades"


class _Request(msgspec.Struct):
    method: str
    params: _Params = msgspec.field(default_factory=_Params)
    req_id: int | None = None


_REQUEST = msgspec.json.Decoder(_Request)


class KrakenServer(ServerProtocol):
    """Kraken v2: no numbers of messages; trade ids count by one per symbol."""

    rules = ConnectionRules()
    most_subscribes = 2
    malformed = (b'{"channel":"trade","type":"update","data":7}', b'{"channel":"ticker","type":"update","data":[7]}')

    def __init__(self, handshake: Handshake) -> None:
        super().__init__(handshake)
        self._number = handshake.number
        self._products = {kraken_symbol(product): product for product in handshake.days}
        self._trades: set[str] = set()
        self._tickers: dict[str, str] = {}
        self._touch: dict[str, tuple[float, float]] = {}
        self._is_quiet = True

    def opening_frames(self, now: int) -> list[Outgoing]:
        """The status of the system."""
        del now
        status = f'{{"version":"2.0.10","system":"online","api_version":"v2","connection_id":{self._number}}}'
        return [Outgoing(MISSING_ID, f'{{"channel":"status","type":"update","data":[{status}]}}'.encode())]

    def is_ping(self, message: str | bytes) -> bool:
        """Whether a message has the method ``ping``."""
        request = request_of(_REQUEST, message)
        return request is not None and request.method == "ping"

    def answer(self, message: str | bytes, now: int) -> list[Outgoing]:
        """A confirmation or an error for every symbol, each followed by its snapshot."""
        request = request_of(_REQUEST, message)
        if request is None:
            return [_response("error", now, None, error="Invalid JSON", success=False)]
        if request.method == "ping":
            return [_response("pong", now, request.req_id)]
        if request.method not in {"subscribe", "unsubscribe"}:
            return [_response(request.method, now, request.req_id, error="Method not supported", success=False)]
        self.subscribes += request.method == "subscribe"
        if request.params.channel not in {_TRADE, _TICKER}:
            return [_response(request.method, now, request.req_id, error="Channel not supported", success=False)]
        return [frame for symbol in request.params.symbol for frame in self._symbol(request, symbol, now)]

    def trade_frames(self, trade: Tick) -> list[Outgoing]:
        """The trade, and the ticker if it is triggered by trades."""
        product, frames = trade.product_id, []
        if product in self._trades:
            number = self._numbers.of(trade)
            frames.append(self._data(_TRADE, "update", [self._trade(trade)], number))
        if self._tickers.get(product) == "trades":
            frames.append(self._data(_TICKER, "update", [_ticker(self._days[product], product, trade.time)]))
        return frames

    def quote_frames(self, product: str, now: int) -> list[Outgoing]:
        """The ticker after a change of the best prices, if it is triggered by them; sizes alone do not trigger it."""
        book = self._days[product].book
        if book is None or self._tickers.get(product) != "bbo" or self._touch.get(product) == (book.bid, book.ask):
            return []
        self._touch[product] = book.bid, book.ask
        return [self._data(_TICKER, "update", [_ticker(self._days[product], product, now)])]

    def second_frames(self, now: int) -> list[Outgoing]:
        """A heartbeat, if nothing else was sent."""
        del now
        beats = [_BEAT] if self._is_quiet and (self._trades or self._tickers) else []
        self._is_quiet = True
        return beats

    def unknown_frame(self, now: int) -> Outgoing:
        """A message of an unknown channel."""
        text = f'{{"channel":"weather","type":"update","data":[{{"outlook":"restless","timestamp":"{micros(now)}"}}]}}'
        return Outgoing(MISSING_ID, text.encode())

    def book_frame(self, product: str, size: int, now: int) -> Outgoing:
        """A snapshot of the channel ``book``."""
        bids, asks = book_sides(self._days[product], size, '{{"price":{},"qty":1.0}}')
        text = (
            f'{{"channel":"book","type":"snapshot","data":[{{"symbol":"{kraken_symbol(product)}","bids":[{bids}],'
            f'"asks":[{asks}],"checksum":0,"timestamp":"{micros(now)}"}}]}}'
        )
        return Outgoing(MISSING_ID, padded(text, size))

    def _symbol(self, request: _Request, symbol: str, now: int) -> list[Outgoing]:
        """The answer to a request for one symbol."""
        channel, product = request.params.channel, self._products.get(symbol)
        is_subscribe = request.method == "subscribe"
        if product is None or (is_subscribe and product in self._rejected):
            is_named = product is None or self._rejected[product]
            error = f"Currency pair not supported {symbol}" if is_named else "Currency pair not supported"
            named = {"symbol": symbol} if is_named else {}
            return [_response(request.method, now, request.req_id, error=error, success=False, **named)]
        if is_subscribe == self._has(channel, product):
            error = "Already subscribed" if is_subscribe else "Subscription Not Found"
            return [_response(request.method, now, request.req_id, error=error, success=False, symbol=symbol)]
        has_snapshot = channel == _TICKER if request.params.snapshot is None else request.params.snapshot
        if channel == _TRADE:
            (self._trades.add if is_subscribe else self._trades.discard)(product)
        elif is_subscribe:
            self._tickers[product] = request.params.event_trigger
        else:
            del self._tickers[product]
        result = {"channel": channel, "symbol": symbol} | ({"snapshot": has_snapshot} if is_subscribe else {})
        ack = _response(request.method, now, request.req_id, result=result, success=True)
        return [ack, *(self._snapshot(channel, product, now) if is_subscribe and has_snapshot else [])]

    def _has(self, channel: str, product: str) -> bool:
        return product in (self._trades if channel == _TRADE else self._tickers)

    def _snapshot(self, channel: str, product: str, now: int) -> list[Outgoing]:
        """The last trades, oldest first, or the ticker."""
        day = self._days[product]
        if day.book is None:
            return []
        if channel == _TRADE:
            return [self._data(_TRADE, "snapshot", [self._trade(past) for past in list(day.trades)[-SNAPSHOT_TRADES:]])]
        self._touch[product] = day.book.bid, day.book.ask
        return [self._data(_TICKER, "snapshot", [_ticker(day, product, now)])]

    def _trade(self, trade: Tick) -> str:
        return (
            f'{{"symbol":"{kraken_symbol(trade.product_id)}","side":"{_TAKER[trade.side]}",'
            f'"price":{price_text(trade.price)},"qty":{size_text(trade.last_size)},"ord_type":"market",'
            f'"trade_id":{self._numbers.of(trade)},"timestamp":"{micros(trade.time)}"}}'
        )

    def _data(self, channel: str, kind: str, items: list[str], number: int = MISSING_ID) -> Outgoing:
        self._is_quiet = False
        return Outgoing(number, f'{{"channel":"{channel}","type":"{kind}","data":[{",".join(items)}]}}'.encode())


def kraken_symbol(product: str) -> str:
    """Kraken's symbol.

    >>> kraken_symbol("BTC-USD")
    'BTC/USD'
    """
    return product.replace("-", "/", 1)


def _ticker(day: ProductDay, product: str, now: int) -> str:
    book, last = day.book, day.last
    assert book is not None  # noqa: S101  a ticker is sent after the first trade
    assert last is not None  # noqa: S101
    return (
        f'{{"symbol":"{kraken_symbol(product)}","bid":{price_text(book.bid)},"bid_qty":{size_text(book.bid_size)},'
        f'"ask":{price_text(book.ask)},"ask_qty":{size_text(book.ask_size)},"last":{price_text(last.price)},'
        f'"volume":{size_text(day.volume)},"vwap":{price_text(last.price)},"low":{price_text(day.low)},'
        f'"high":{price_text(day.high)},"change":{last.price - day.open:.2f},'
        f'"change_pct":{100 * (last.price / day.open - 1):.2f},"timestamp":"{micros(now)}"}}'
    )


def _response(method: str, now: int, number: int | None, **fields: object) -> Outgoing:
    """A response with the times of its request and of itself, which are the same in simulated time."""
    answer = {"method": method, **fields, "time_in": micros(now), "time_out": micros(now)}
    if number is not None:
        answer["req_id"] = number
    return Outgoing(MISSING_ID, msgspec.json.encode(answer))
