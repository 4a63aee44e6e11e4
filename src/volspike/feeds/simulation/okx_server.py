"""The server's side of OKX v5, without a socket: the public channels ``trades`` and ``bbo-tbt``.

Every argument of a request has its own confirmation or error; a confirmation is followed by the last trade or the best
quotes, which are not marked as past data. A client to which nothing was sent for 30 s is disconnected, so a client
sends the text ``ping``. Source: okx.com/docs-v5, "WebSocket", and recorded frames. A trade is never an aggregate here:
``count`` is 1.
"""

from __future__ import annotations

import msgspec

from volspike.feeds.simulation.protocols import (
    ConnectionRules,
    Handshake,
    Outgoing,
    ServerProtocol,
    book_sides,
    millis,
    padded,
    price_text,
    request_of,
    size_text,
)
from volspike.market import MISSING_ID, Side, Tick

_TRADES, _QUOTES = "trades", "bbo-tbt"
_TAKER = {Side.BUY: "buy", Side.SELL: "sell"}
_PONG = Outgoing(MISSING_ID, b"pong")


class _Argument(msgspec.Struct):
    channel: str
    instId: str = ""  # noqa: N815  OKX's name


class _Request(msgspec.Struct):
    op: str
    args: list[_Argument]
    id: str | None = None


_REQUEST = msgspec.json.Decoder(_Request)


class OkxServer(ServerProtocol):
    """OKX v5: trade ids count by one per instrument; ``seqId`` numbers the updates of its book."""

    rules = ConnectionRules(needs_traffic=True)
    malformed = (
        b'{"arg":{"channel":"trades","instId":"BTC-USDT"},"data":7}',
        b'{"arg":{"channel":"bbo-tbt","instId":"BTC-USDT"},"data":[7]}',
    )

    def __init__(self, handshake: Handshake) -> None:
        super().__init__(handshake)
        self._id = f"{handshake.number:08x}"
        self._subscribed: set[tuple[str, str]] = set()

    def is_ping(self, message: str | bytes) -> bool:
        """Whether a message is the text ``ping``."""
        return message in {"ping", b"ping"}

    def answer(self, message: str | bytes, now: int) -> list[Outgoing]:
        """``pong``, or a confirmation or an error for every argument."""
        del now  # no answer contains the current time
        if self.is_ping(message):
            return [_PONG]
        request = request_of(_REQUEST, message)
        if request is None or request.op not in {"subscribe", "unsubscribe"}:
            return [self._error("60012", f"Invalid request: {_text(message)}")]
        self.subscribes += request.op == "subscribe"
        return [frame for each in request.args for frame in self._argument(request, each)]

    def trade_frames(self, trade: Tick) -> list[Outgoing]:
        """The trade."""
        return [self._trade(trade)] if (_TRADES, trade.product_id) in self._subscribed else []

    def quote_frames(self, product: str, now: int) -> list[Outgoing]:
        """The best quotes."""
        del now
        book = self._days[product].book
        if book is None or (_QUOTES, product) not in self._subscribed:
            return []
        return [
            _data(
                _QUOTES,
                product,
                f'{{"asks":[["{price_text(book.ask)}","{size_text(book.ask_size)}","0","1"]],'
                f'"bids":[["{price_text(book.bid)}","{size_text(book.bid_size)}","0","1"]],'
                f'"ts":"{millis(book.time)}","seqId":{book.update}}}',
            )
        ]

    def unknown_frame(self, now: int) -> Outgoing:
        """A message of an unknown channel."""
        return _data("weather", next(iter(self._days)), f'{{"outlook":"restless","ts":"{millis(now)}"}}')

    def book_frame(self, product: str, size: int, now: int) -> Outgoing:
        """A snapshot of the channel ``books``."""
        bids, asks = book_sides(self._days[product], size, '["{}","1","0","1"]')
        text = (
            f'{{"arg":{{"channel":"books","instId":"{product}"}},"action":"snapshot","data":[{{"asks":[{asks}],'
            f'"bids":[{bids}],"ts":"{millis(now)}","checksum":0,"seqId":1,"prevSeqId":-1}}]}}'
        )
        return Outgoing(MISSING_ID, padded(text, size))

    def shutdown_frame(self, now: int) -> Outgoing | None:
        """The notice of an upgrade."""
        del now
        text = "The connection will soon be closed for a service upgrade. Please reconnect."
        notice = {"event": "notice", "code": "64008", "msg": text, "connId": self._id}
        return Outgoing(MISSING_ID, msgspec.json.encode(notice))

    def _argument(self, request: _Request, argument: _Argument) -> list[Outgoing]:
        """The answer to one argument of a request."""
        channel, product = argument.channel, argument.instId
        is_subscribe = request.op == "subscribe"
        is_known = channel in {_TRADES, _QUOTES} and product in self._days
        if not is_known or (is_subscribe and product in self._rejected):
            if is_known and not self._rejected[product]:
                return [self._error("60012", "Invalid request")]
            text = (
                f"Wrong URL or channel:{channel},instId:{product} doesn't exist. Please use the correct URL, channel "
            )
            return [self._error("60018", text + "and parameters referring to API document.")]
        key = (channel, product)
        (self._subscribed.add if is_subscribe else self._subscribed.discard)(key)
        ack: dict[str, object] = {} if request.id is None else {"id": request.id}
        ack |= {"event": request.op, "arg": {"channel": channel, "instId": product}, "connId": self._id}
        frames = [Outgoing(MISSING_ID, msgspec.json.encode(ack))]
        if not is_subscribe:
            return frames
        last = self._days[product].last
        if channel == _QUOTES:
            return frames + self.quote_frames(product, 0)
        return frames if last is None else [*frames, self._trade(last)]

    def _trade(self, trade: Tick) -> Outgoing:
        number, product = self._numbers.of(trade), trade.product_id
        text = (
            f'{{"instId":"{product}","tradeId":"{number}","px":"{price_text(trade.price)}",'
            f'"sz":"{size_text(trade.last_size)}","side":"{_TAKER[trade.side]}","ts":"{millis(trade.time)}",'
            f'"count":"1","source":"0","seqId":{trade.sequence}}}'
        )
        return _data(_TRADES, product, text, number)

    def _error(self, code: str, text: str) -> Outgoing:
        error = {"event": "error", "code": code, "msg": text, "connId": self._id}
        return Outgoing(MISSING_ID, msgspec.json.encode(error))


def _data(channel: str, product: str, item: str, number: int = MISSING_ID) -> Outgoing:
    text = f'{{"arg":{{"channel":"{channel}","instId":"{product}"}},"data":[{item}]}}'
    return Outgoing(number, text.encode())


def _text(message: str | bytes) -> str:
    return message if isinstance(message, str) else message.decode(errors="replace")
