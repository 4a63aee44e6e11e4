"""The server's side of Binance spot, without a socket: ``trade`` and ``bookTicker``, combined or raw.

Streams come with the address (``/stream?streams=btcusdt@trade/btcusdt@bookTicker&timeUnit=MICROSECOND``) or with
``SUBSCRIBE``. As at Binance, a stream of a symbol that is not traded is accepted and never sends anything; a rejected
product of the fault controls is an error of a ``SUBSCRIBE``, and silent in an address. Source: "WebSocket Streams for
Binance", github.com/binance/binance-spot-api-docs. The texts of the errors of a rejected product are our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qs

import msgspec

from volspike.feeds.simulation.protocols import (
    ConnectionRules,
    Handshake,
    Outgoing,
    ServerProtocol,
    book_sides,
    padded,
    request_of,
    size_text,
)
from volspike.market import MISSING_ID, Side, Tick

MOST_STREAMS: Final = 1024
MESSAGES_PER_S: Final = 5
_TRADE, _QUOTE = "trade", "bookTicker"
_UNIT_NS = {"MICROSECOND": 1_000, "MILLISECOND": 1_000_000}


class _Request(msgspec.Struct):
    method: str
    params: list[str] = []
    id: int | str | None = None


_REQUEST = msgspec.json.Decoder(_Request)


class BinanceServer(ServerProtocol):
    """Binance spot: no numbers of messages; trade ids count by one per symbol, and so do the updates of its book."""

    rules = ConnectionRules(pings=True, has_lifetime=True, messages_per_s=MESSAGES_PER_S)
    malformed = (b'{"stream":"btcusdt@trade","data":7}', b'{"stream":"btcusdt@trade"}')

    def __init__(self, handshake: Handshake) -> None:
        super().__init__(handshake)
        self._is_real_time = handshake.is_real_time
        self._products = {binance_symbol(product).lower(): product for product in handshake.days}
        self._streams: dict[str, None] = {}
        path, _, options = handshake.target.partition("?")
        self._is_combined = not path.startswith("/ws")
        query = parse_qs(options)
        self._unit_ns = _UNIT_NS.get(query.get("timeUnit", [""])[0].upper(), 1_000_000)
        raw = [] if self._is_combined else path.removeprefix("/ws").split("/")
        requested = [name for name in (*raw, *query.get("streams", [""])[0].split("/")) if name]
        if requested:
            self.subscribes = 1
            self._add([name for name in requested if self._product(name) not in self._rejected])

    def answer(self, message: str | bytes, now: int) -> list[Outgoing]:
        """The result of a request; a subscription has no snapshot."""
        del now  # no answer contains the current time
        request = request_of(_REQUEST, message)
        if request is None:
            return [Outgoing(MISSING_ID, b'{"code":3,"msg":"Invalid JSON: expected value at line 1 column 1"}')]
        match request.method:
            case "SUBSCRIBE":
                self.subscribes += 1
                return [self._subscribe(request)]
            case "UNSUBSCRIBE":
                for name in request.params:
                    self._streams.pop(name, None)
                return [_result(None, request.id)]
            case "LIST_SUBSCRIPTIONS":
                return [_result(list(self._streams), request.id)]
        return [_error(f"Invalid request: unknown variant `{request.method}`", request.id)]

    def trade_frames(self, trade: Tick) -> list[Outgoing]:
        """The trade; the buyer is the maker if the taker sold."""
        symbol = binance_symbol(trade.product_id)
        stream = f"{symbol.lower()}@{_TRADE}"
        if stream not in self._streams:
            return []
        time, number = trade.time // self._unit_ns, self._numbers.of(trade)
        is_maker = "true" if trade.side is Side.SELL else "false"
        text = (
            f'{{"e":"trade","E":{time},"s":"{symbol}","t":{number},"p":"{trade.price:.8f}",'
            f'"q":"{size_text(trade.last_size)}","T":{time},"m":{is_maker},"M":true}}'
        )
        return [self._wrapped(stream, text, number)]

    def quote_frames(self, product: str, now: int) -> list[Outgoing]:
        """The best quotes, without a time, unless the market is not in real time.

        A client takes the time of receipt for that of a quote, which is then not comparable with the times of trades.
        """
        symbol = binance_symbol(product)
        stream = f"{symbol.lower()}@{_QUOTE}"
        book = self._days[product].book
        if book is None or stream not in self._streams:
            return []
        text = (
            f'{{"u":{book.update},"s":"{symbol}","b":"{book.bid:.8f}","B":"{size_text(book.bid_size)}",'
            f'"a":"{book.ask:.8f}","A":"{size_text(book.ask_size)}"'
        )
        time = "" if self._is_real_time(now) else f',"T":{now // self._unit_ns}'
        return [self._wrapped(stream, f"{text}{time}}}")]

    def unknown_frame(self, now: int) -> Outgoing:
        """An event of an unknown type on a stream that was not requested."""
        return self._wrapped("!weather", f'{{"e":"weather","E":{now // self._unit_ns},"outlook":"restless"}}')

    def book_frame(self, product: str, size: int, now: int) -> Outgoing:
        """An update of the depth stream with levels of both sides."""
        symbol = binance_symbol(product)
        bids, asks = book_sides(self._days[product], size, '["{}","1.00000000"]')
        head = f'{{"e":"depthUpdate","E":{now // self._unit_ns},"s":"{symbol}","U":1,"u":2'
        text = f'{head},"b":[{bids}],"a":[{asks}]}}'
        out = self._wrapped(f"{symbol.lower()}@depth", text)
        return Outgoing(MISSING_ID, padded(out.data.decode(), size))

    def shutdown_frame(self, now: int) -> Outgoing | None:
        """The event ``serverShutdown``."""
        return self._wrapped("!serverShutdown", f'{{"e":"serverShutdown","E":{now // self._unit_ns}}}')

    def _subscribe(self, request: _Request) -> Outgoing:
        for name in request.params:
            product = self._product(name)
            if product in self._rejected:
                reason = f"Invalid request: unknown stream {name}" if self._rejected[product] else "Invalid request"
                return _error(reason, request.id)
        self._add(request.params)
        return _result(None, request.id)

    def _add(self, names: Sequence[str]) -> None:
        self._streams |= dict.fromkeys(names)
        if len(self._streams) > MOST_STREAMS:
            self.violation = f"more than {MOST_STREAMS} streams"

    def _product(self, stream: str) -> str:
        return self._products.get(stream.partition("@")[0], "")

    def _wrapped(self, stream: str, text: str, number: int = MISSING_ID) -> Outgoing:
        data = f'{{"stream":"{stream}","data":{text}}}' if self._is_combined else text
        return Outgoing(number, data.encode())


def binance_symbol(product: str) -> str:
    """The symbol of Binance and Bybit.

    >>> binance_symbol("BTC-USDT")
    'BTCUSDT'
    """
    return product.replace("-", "")


def _result(result: list[str] | None, number: int | str | None) -> Outgoing:
    return Outgoing(MISSING_ID, msgspec.json.encode({"result": result, "id": number}))


def _error(text: str, number: int | str | None) -> Outgoing:
    return Outgoing(MISSING_ID, msgspec.json.encode({"code": 2, "msg": text, "id": number}))
