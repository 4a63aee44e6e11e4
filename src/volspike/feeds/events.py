"""Decoded frames, the events of a session, and its statistics.

A codec turns the bytes of one websocket message into a ``Frame``, whichever protocol it came in. A session yields
``FeedEvent``: frames, malformed frames, changes of the connection, errors and gaps; a replayed tape also ends of
sessions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from volspike.errors import MalformedTick
from volspike.feeds.messages import TickMessage
from volspike.market import MISSING_ID, Gap, Tick


class Heartbeat(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A heartbeat: on Exchange one per product with its last trade, on Advanced Trade a counter of the connection.

    ``time`` is the exchange's clock in nanoseconds UTC.
    """

    time: int
    product_id: str | None = None
    counter: int | None = None
    last_trade_id: int = MISSING_ID


class Subscriptions(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange's confirmation of what it now sends: channel → product ids.

    An exchange may leave out an unknown product instead of refusing it; ``SubscriptionCheck`` compares.
    """

    channels: dict[str, tuple[str, ...]]


class ExchangeError(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """An error message of the exchange; ``reason`` is empty where it gives none."""

    message: str
    reason: str = ""


class Damage(msgspec.Struct, frozen=True):
    """A frame, or a part of it, that could not be decoded.

    ``products`` are those whose data was lost; empty if it may be any product. ``lost`` is the number of lost messages,
    -1 if it is unknown.
    """

    error: MalformedTick
    products: tuple[str, ...] = ()
    lost: int = -1


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded frame.

    ``ticks`` are new, in the order of the market, oldest first; ``messages`` are the exchange's messages for them.
    ``history`` are trades from before the subscription; they belong in no window. ``ignored`` names the channel or
    type of a frame that is unknown or not used, so that the caller can count it. ``sequence`` numbers the messages of
    an Advanced Trade connection (a jump is a loss) and is ``MISSING_ID`` on Exchange, whose ticks carry their own.
    ``time`` is the frame's in nanoseconds UTC, or ``received`` if the frame has none. ``faults`` are the parts of the
    frame that could not be decoded; the rest is valid. Where a tick is several trades, ``first_ids`` has the id of
    the first of them for each of ``ticks``, and ``trade_id`` is that of the last. ``is_closing`` announces that the
    exchange will close the connection.
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
    faults: tuple[Damage, ...] = ()
    first_ids: tuple[int, ...] = ()
    is_closing: bool = False


class FeedFrame(msgspec.Struct, frozen=True, gc=False):
    """One frame: its bytes, when it was received (ns UTC), its content, and the protocol by which it came."""

    received: int
    data: bytes
    frame: Frame
    feed: str = ""


class FeedFault(msgspec.Struct, frozen=True):
    """One frame that could not be decoded, or not completely; ``error`` is the first fault in it.

    The valid rest of the frame follows as a ``FeedFrame``. The loss itself is reported as a ``Gap``.
    """

    received: int
    data: bytes
    error: MalformedTick


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    """The session has connected and subscribed, or has lost or not made a connection, for ``reason``.

    ``attempt`` counts from 1 the connections tried since the last one that lasted. ``feed`` names the protocol.
    """

    received: int
    is_connected: bool
    reason: str
    url: str
    attempt: int
    feed: str = ""


class FeedError(msgspec.Struct, frozen=True, kw_only=True):
    """The exchange refused a request, or does not send ``products``, or sends others; the session goes on."""

    received: int
    reason: str
    products: tuple[str, ...] = ()


class SessionEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A replayed tape has a silence that ends the session.

    Its last tick before the silence was received at ``last``, the first after it at ``next`` (ns UTC).
    """

    last: int
    next: int


FeedEvent: TypeAlias = FeedFrame | FeedFault | FeedState | FeedError | SessionEnd | Gap


class FeedStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of a session so far.

    ``frames`` and ``bytes`` came over the socket; ``ticks``, ``malformed``, ``errors`` and ``ignored`` (by channel)
    count what was read from the queue, which holds ``queued`` frames. ``overflows`` counts frames dropped because the
    queue was full, ``lost`` the messages skipped by the exchange's sequence numbers, ``repeated`` the numbers that
    came twice or late, ``unrequested`` the rejected ticks of products that were not requested. ``refused`` are the
    products that the exchange refuses at present. ``last_received`` is ns UTC (0: nothing yet). ``latency_ns`` is the
    last tick's ``received`` minus its ``time``.
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
    unrequested: int = 0
    refused: tuple[str, ...] = ()
    overflows: int = 0
    queued: int = 0
    last_received: int = 0
    latency_ns: int = 0


def total_stats(parts: Sequence[FeedStats]) -> FeedStats:
    """The sum of the counts of several sessions, with the newest receipt and the latency of its session."""
    if len(parts) == 1:
        return parts[0]
    newest = max(parts, key=lambda part: part.last_received)
    added = {
        name: sum(getattr(part, name) for part in parts)
        for name, kind in FeedStats.__annotations__.items()
        if kind == "int"
    }
    return FeedStats(
        **added
        | {
            "ignored": sum((part.ignored for part in parts), Counter()),
            "refused": tuple(product for part in parts for product in part.refused),
            "last_received": newest.last_received,
            "latency_ns": newest.latency_ns,
        }
    )
