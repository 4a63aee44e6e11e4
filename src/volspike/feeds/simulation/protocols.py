"""The interface of the server sides of all protocols, without a socket: requests and trades in, frames out.

``ServerProtocol`` is the interface. The protocols are in the modules whose names end in ``_server``, one per venue; the
client's side is in ``feeds/venues``. ``ProductDay`` is the state of a product, ``TradeNumbers`` its trade ids on one
connection.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import ClassVar, Final, NamedTuple, TypeVar
from zlib import crc32

import msgspec

from volspike.feeds.messages import DECODE_ERRORS
from volspike.feeds.simulation.market import QUARTER_NS
from volspike.market import MISSING_ID, SECOND_NS, Tick

T = TypeVar("T")

PAST_TRADES = 100
_OPENING_VOLUME = 5000.0
_SIZE = 1e-8
_MOST_DIGITS = 1 << 16


class Outgoing(NamedTuple):
    """One frame to send; ``sequence`` is its number, or ``MISSING_ID``.

    A trade of a venue without numbers of messages has its trade id as number.
    """

    sequence: int
    data: bytes


class TopOfBook(NamedTuple):
    """The best quotes of a product since ``time`` (ns UTC); ``update`` rises by one with every change."""

    time: int
    update: int
    bid: float
    bid_size: float
    ask: float
    ask_size: float


class ProductDay:
    """A product since the start of the simulation: its last trades, its best quotes and its figures of a day."""

    def __init__(self) -> None:
        self.open = self.low = self.high = 0.0
        self.volume = _OPENING_VOLUME
        self.trades: deque[Tick] = deque(maxlen=PAST_TRADES)
        self.book: TopOfBook | None = None

    def add(self, trade: Tick) -> bool:
        """Add a trade; whether the best quotes changed with it."""
        if not self.trades:
            self.open = self.low = self.high = trade.price
        self.low = min(self.low, trade.price)
        self.high = max(self.high, trade.price)
        self.volume += trade.last_size
        self.trades.append(trade)
        return self._quote(trade.time, trade.best_bid, trade.bid_size, trade.best_ask, trade.ask_size)

    def requote(self, now: int) -> bool:
        """Change the size of a best quote, if the last quarter of a second had no trade; whether it changed.

        Orders come and go between trades. The draw depends only on the last trade and the time, so all connections and
        all runs of the same seed have the same quotes.
        """
        last, book = self.last, self.book
        if last is None or book is None or now - last.time < QUARTER_NS:
            return False
        draw = crc32(f"{last.product_id} {last.trade_id} {now}".encode())
        side, share = draw % 3, 0.5 + (draw >> 16) / _MOST_DIGITS
        bid_size = max(round(last.bid_size * share, 8), _SIZE) if side == 1 else book.bid_size
        ask_size = max(round(last.ask_size * share, 8), _SIZE) if side == 2 else book.ask_size
        return self._quote(now, book.bid, bid_size, book.ask, ask_size)

    def _quote(self, time: int, bid: float, bid_size: float, ask: float, ask_size: float) -> bool:
        before = self.book
        if before is not None and before[2:] == (bid, bid_size, ask, ask_size):
            return False
        self.book = TopOfBook(time, 1 if before is None else before.update + 1, bid, bid_size, ask, ask_size)
        return True

    @property
    def last(self) -> Tick | None:
        """The newest trade, if there is one."""
        return self.trades[-1] if self.trades else None

    @property
    def last_trade_id(self) -> int:
        """The id of the newest trade."""
        return self.trades[-1].trade_id if self.trades else MISSING_ID

    @property
    def last_sequence(self) -> int:
        """The sequence number of the newest trade."""
        return self.trades[-1].sequence if self.trades else MISSING_ID


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def micros(ns: int) -> str:
    """RFC 3339 with six digits, as in trades: ``2022-10-19T23:28:22.061769Z``."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return f"{_second(seconds)}.{fraction // 1000:06d}Z"


def nanos(ns: int) -> str:
    """RFC 3339 with up to nine digits without trailing zeros, as in the envelopes of Advanced Trade."""
    seconds, fraction = divmod(ns, SECOND_NS)
    return f"{_second(seconds)}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"


def go_time(ns: int, uptime_s: float) -> str:
    """A Go timestamp with its monotonic suffix, as in the heartbeats of Advanced Trade."""
    return f"{nanos(ns)[:-1].replace('T', ' ')} +0000 UTC m=+{uptime_s:.9f}"


def price_text(price: float) -> str:
    """Two decimals, as Exchange writes prices in dollars."""
    return f"{price:.2f}"


def trimmed_price(price: float) -> str:
    """Up to two decimals without trailing zeros, as Advanced Trade writes prices."""
    return f"{price:.2f}".rstrip("0").rstrip(".")


def size_text(size: float) -> str:
    """Eight decimals."""
    return f"{size:.8f}"


def millis(ns: int) -> int:
    """Milliseconds since 1970, rounded down."""
    return ns // 1_000_000


_SNAPSHOT_LEVEL = 0.01
_LEVEL_BYTES = 30
NO_REJECTIONS: Final[Mapping[str, bool]] = MappingProxyType({})


def book_levels(day: ProductDay, size: int) -> tuple[list[float], list[float]]:
    """Prices of bids and asks around the last price, best first, for a snapshot of some ``size`` bytes."""
    middle = day.last.price if day.last else 1.0
    levels = range(-(-size // (2 * _LEVEL_BYTES)))
    bids, asks = ([middle * (1 + _SNAPSHOT_LEVEL * (level + 1)) ** sign for level in levels] for sign in (-1, 1))
    return bids, asks


def book_sides(day: ProductDay, size: int, level: str) -> tuple[str, str]:
    """Both sides of ``book_levels``, each level written as ``level`` with its price for ``{}``."""
    bids, asks = (",".join(level.format(f"{price:.8f}") for price in prices) for prices in book_levels(day, size))
    return bids, asks


def request_of(decoder: msgspec.json.Decoder[T], message: str | bytes) -> T | None:
    """A client's request; None for a message that is none."""
    try:
        return decoder.decode(message)
    except DECODE_ERRORS:
        return None


def padded(text: str, size: int) -> bytes:
    """The JSON text, with spaces after its first brace up to ``size`` bytes."""
    return (text[0] + " " * max(0, size - len(text)) + text[1:]).encode()


class ConnectionRules(NamedTuple):
    """The rules that a venue enforces; the seconds are in the settings of the exchange, in wall time.

    Attributes:
        must_subscribe: a client that does not subscribe in time is disconnected.
        pings: the server sends websocket pings and disconnects a client that does not answer.
        has_lifetime: a connection ends after some hours.
        needs_traffic: a client to which nothing was sent for a while, because it neither subscribed nor sent a ping, is
            disconnected.
        messages_per_s: the most messages, pings and pongs of a client in a second; 0 is no limit.
    """

    must_subscribe: bool = False
    pings: bool = False
    has_lifetime: bool = False
    needs_traffic: bool = False
    messages_per_s: int = 0


class Handshake(NamedTuple):
    """A new connection: its number, its path below the protocol's name, its time, and the market.

    ``is_real_time`` is whether a simulated time is that of the wall clock.
    """

    number: int
    target: str
    opened: int
    days: Mapping[str, ProductDay]
    rejected: Mapping[str, bool] = NO_REJECTIONS
    is_real_time: Callable[[int], bool] = lambda _: True


class TradeNumbers:
    """Trade ids as one connection receives them: those of the market, until a fault skips some or begins again."""

    def __init__(self, days: Mapping[str, ProductDay]) -> None:
        self._days = days
        self._skipped = 0
        self._before: dict[str, int] = {}

    def of(self, trade: Tick) -> int:
        """The id of a trade."""
        return trade.trade_id - self._before.get(trade.product_id, 0) + self._skipped

    def skip(self, numbers: int) -> None:
        """Raise all later ids by that many."""
        self._skipped += numbers

    def reset(self) -> None:
        """The next trade of every product has the id 1."""
        self._skipped = 0
        self._before = {product: max(day.last_trade_id, 0) for product, day in self._days.items()}


class ServerProtocol(ABC):
    """The server's side of a protocol for one connection: requests and trades in, frames out.

    ``now`` is simulated time in nanoseconds UTC and never goes back.

    Attributes:
        rules: what the venue enforces.
        most_subscribes: the subscribe messages of a complete subscription of few products.
        malformed: frames of this protocol that cannot be decoded.
        subscribes: the number of subscribe requests received.
        violation: why the client must be disconnected; empty as long as it obeys the rules.
    """

    rules: ClassVar[ConnectionRules]
    most_subscribes: ClassVar[int] = 1
    malformed: ClassVar[tuple[bytes, bytes]]

    def __init__(self, handshake: Handshake) -> None:
        self._days = handshake.days
        self._rejected = handshake.rejected
        self._numbers = TradeNumbers(handshake.days)
        self.subscribes = 0
        self.violation = ""

    def opening_frames(self, now: int) -> list[Outgoing]:
        """The frames at the start of a connection."""
        del now
        return []

    def is_ping(self, message: str | bytes) -> bool:
        """Whether a client's message is a ping of this protocol."""
        del message
        return False

    @abstractmethod
    def answer(self, message: str | bytes, now: int) -> list[Outgoing]:
        """The answer to a client's message."""

    @abstractmethod
    def trade_frames(self, trade: Tick) -> list[Outgoing]:
        """The frames of a trade that happens now."""

    def quote_frames(self, product: str, now: int) -> list[Outgoing]:
        """The frames after a change of a product's best quotes."""
        del product, now
        return []

    def quarter_frames(self, now: int) -> list[Outgoing]:
        """The frames sent every 250 ms."""
        del now
        return []

    def second_frames(self, now: int) -> list[Outgoing]:
        """The frames sent every second."""
        del now
        return []

    def skip_numbers(self, numbers: int) -> None:
        """Skip that many numbers: of messages, or of trades at a venue that does not number its messages."""
        self._numbers.skip(numbers)

    def reset_numbers(self) -> None:
        """Begin the numbers again, as after a restart of a server behind the same connection."""
        self._numbers.reset()

    @abstractmethod
    def unknown_frame(self, now: int) -> Outgoing:
        """A message of an unknown kind."""

    @abstractmethod
    def book_frame(self, product: str, size: int, now: int) -> Outgoing:
        """A snapshot of a product's order book of at least ``size`` bytes."""

    def shutdown_frame(self, now: int) -> Outgoing | None:
        """The notice before the exchange closes the connection; None if the protocol has none."""
        del now
        return None
