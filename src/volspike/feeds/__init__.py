"""How an exchange speaks: frame bytes → ticks, trades, heartbeats, acks and errors, without a socket.

Also a small simulated market, for machines and tests without a recording. Knows of no features.
"""

from __future__ import annotations

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.events import ExchangeError, Frame, Heartbeat, Subscriptions
from volspike.feeds.fields import SIDES, TAKER_OF_MAKER, UNREADABLE, Identifier, located, read, without_empty
from volspike.feeds.raw import LAST_MATCH, RawTicker, raw_tick
from volspike.feeds.simulation.market import simulate_market
from volspike.feeds.venues.coinbase_advanced_trade import decode as decode_advanced_trade
from volspike.feeds.venues.coinbase_exchange import decode as decode_exchange

__all__ = [
    "LAST_MATCH",
    "SIDES",
    "TAKER_OF_MAKER",
    "UNREADABLE",
    "ExchangeError",
    "Frame",
    "Heartbeat",
    "Identifier",
    "RawTicker",
    "Subscriptions",
    "decode_advanced_trade",
    "decode_any",
    "decode_exchange",
    "located",
    "raw_tick",
    "simulate_market",
    "without_empty",
]


class _Head(msgspec.Struct, gc=False):
    channel: str | None = None
    type: str | None = None


_HEAD = msgspec.json.Decoder(_Head)


def decode_any(frame: bytes | str, received: int) -> Frame:
    """What a frame of either protocol says: Advanced Trade names a ``channel``, Exchange a ``type``.

    Raises:
        MalformedTick: it names neither, or is not what the one it names promises.
    """
    head = read(_HEAD, frame)
    if head.channel is not None:
        return decode_advanced_trade(frame, received)
    if head.type is not None:
        return decode_exchange(frame, received)
    raise MalformedTick("neither a channel nor a type is named")
