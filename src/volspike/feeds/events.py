"""What one frame of a market-data socket says, whichever protocol it came in.

What a session tells: frames, faults, errors, states and gaps, and its figures.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.raw import TickMessage
from volspike.market import MISSING_ID, Gap, Tick


class Heartbeat(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A sign of life. Exchange sends one per product with its last trade, Advanced Trade a counter for the socket.

    ``time`` is the exchange's clock in nanoseconds UTC.
    """

    time: int
    product_id: str | None = None
    counter: int | None = None
    last_trade_id: int = MISSING_ID


class Subscriptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the exchange says it now sends: channel → product ids.

    An unknown product may be missing here instead of being refused, so compare it with what was asked for.
    """

    channels: dict[str, tuple[str, ...]]


class ExchangeError(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The exchange refuses something; ``reason`` is empty where it gives none."""

    message: str
    reason: str = ""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded frame.

    ``ticks`` are new, in the order of the market, oldest first; ``messages`` are the exchange's messages for them.
    ``history`` are trades from before the subscription; they belong in no window. ``ignored`` names the channel or
    type of a frame that is unknown or not used, so that the caller can count it. ``sequence`` numbers the messages of
    an Advanced Trade connection (a jump is a loss) and is ``MISSING_ID`` on Exchange, whose ticks carry their own.
    ``time`` is the frame's in nanoseconds UTC, or ``received`` if the frame has none.
    """

    time: int
    sequence: int = MISSING_ID
    ticks: tuple[Tick, ...] = ()
    messages: tuple[TickMessage, ...] = ()
    history: tuple[Tick, ...] = ()
    heartbeats: tuple[Heartbeat, ...] = ()
    ack: Subscriptions | None = None
    error: ExchangeError | None = None
    ignored: str | None = None


class FeedFrame(msgspec.Struct, frozen=True, gc=False):
    """One frame as it came (``data``), when (``received``, ns UTC), and what it says."""

    received: int
    data: bytes
    frame: Frame


class FeedFault(msgspec.Struct, frozen=True):
    """One frame that is not what it should be."""

    received: int
    data: bytes
    error: MalformedTick


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    """The session is connected and has subscribed, or it is not and ``reason`` tells why.

    ``attempt`` counts the connections that were tried since the last one that lasted, from 1.
    """

    received: int
    is_connected: bool
    reason: str
    url: str
    attempt: int


class FeedError(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange refused something, or left ``products`` out of what it sends; the session goes on."""

    received: int
    reason: str
    products: tuple[str, ...] = ()


FeedEvent: TypeAlias = FeedFrame | FeedFault | FeedState | FeedError | Gap


class FeedStats(msgspec.Struct, frozen=True, kw_only=True):
    """A session's figures so far.

    ``frames`` and ``bytes`` came over the socket; ``ticks``, ``malformed``, ``errors`` and ``ignored`` (by channel)
    are of those that were read out of the queue, which holds ``queued``. ``overflows`` counts the frames that were
    let go because it was full, ``lost`` the messages that the exchange's count misses, ``repeated`` the numbers
    that came twice or late. ``last_received`` is ns UTC (0: nothing yet); ``latency_ns`` is from the exchange's
    clock to ours at the last tick.
    """

    frames: int = 0
    bytes: int = 0
    ticks: int = 0
    malformed: int = 0
    errors: int = 0
    ignored: Counter[str]
    connections: int = 0
    reconnects: int = 0
    gaps: int = 0
    lost: int = 0
    repeated: int = 0
    overflows: int = 0
    queued: int = 0
    last_received: int = 0
    latency_ns: int = 0
