"""What one frame of a market-data socket says, whichever protocol it came in."""

from __future__ import annotations

import msgspec

from volspike.market import UNTOLD_ID, Tick


class Heartbeat(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A sign of life. Exchange sends one per product with its last trade, Advanced Trade a counter for the socket.

    ``time`` is the exchange's clock in nanoseconds UTC.
    """

    time: int
    product_id: str | None = None
    counter: int | None = None
    last_trade_id: int = UNTOLD_ID


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

    ``ticks`` is new flow in the order of the market, oldest first. ``history`` is trades from before the
    subscription, which are no flow and belong in no window. ``ignored`` names the channel or type of a frame
    that is unknown or of no interest, so that the caller can count it. ``sequence`` numbers the messages of
    an Advanced Trade connection (a jump is a loss) and is ``UNTOLD_ID`` on Exchange, whose ticks carry their
    own. ``time`` is the frame's in nanoseconds UTC, ``received`` where it tells none.
    """

    time: int
    sequence: int = UNTOLD_ID
    ticks: tuple[Tick, ...] = ()
    history: tuple[Tick, ...] = ()
    heartbeats: tuple[Heartbeat, ...] = ()
    ack: Subscriptions | None = None
    error: ExchangeError | None = None
    ignored: str | None = None
