"""What the simulated exchange did to its clients: every frame in its order, and every fault beside it.

Only the newest are kept; the counts go on. Tests compare a client's gaps with this.
"""

from __future__ import annotations

from collections import Counter, deque
from enum import StrEnum

import msgspec

from volspike.feeds.simulated_words import Outgoing

KEPT_BYTES = 1 << 16


class Fault(StrEnum):
    """What can go wrong between the exchange and a client."""

    DROP = "drop"
    """A frame is lost; its sequence number is used up."""
    DELAY = "delay"
    """A frame, and all behind it, comes late."""
    DUPLICATE = "duplicate"
    """A frame comes twice."""
    REORDER = "reorder"
    """A frame comes after the one that follows it."""
    SKIP = "skip"
    """Sequence numbers are never used; nothing is lost, though it looks so."""
    SILENCE = "silence"
    """Nothing comes for a while, and what would have come is lost, its sequence numbers used up."""
    CLOSE = "close"
    """The connection ends, with or without a close frame."""
    MALFORMED = "malformed"
    """A frame too many, which cannot be read."""
    UNKNOWN = "unknown"
    """A message too many, of a kind that is not known; on Advanced Trade it is numbered."""
    SNAPSHOT = "snapshot"
    """A snapshot of an order book that nobody asked for, of megabytes; on Advanced Trade it is numbered."""
    SLOW_READER = "slow reader"
    """The client did not read fast enough and was disconnected: the exchange's own doing, as at Coinbase."""
    UNSENT = "unsent"
    """Frames were made and not written when the connection ended."""


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One frame as it left, or did not (``is_lost``), in the order of the wire.

    ``connection`` counts from 1 in the order of connecting, ``time`` is simulated (ns UTC), ``sequence`` the number
    that it carries or -1. ``data`` are its first 64 KiB. A frame under way when a connection broke counts as sent.
    """

    connection: int
    time: int
    sequence: int
    data: bytes
    fault: Fault | None = None

    @property
    def is_lost(self) -> bool:
        """Whether it never went out."""
        return self.fault in {Fault.DROP, Fault.SILENCE, Fault.UNSENT, Fault.CLOSE}


class Injected(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: at which frame it struck (``sequence``, else -1), and in ``detail`` how much, how long, which code."""

    connection: int
    time: int
    fault: Fault
    sequence: int = -1
    detail: str = ""


class Record:
    """The newest ``kept`` frames and faults, and counts of all."""

    def __init__(self, kept: int) -> None:
        self.sent: deque[Sent] = deque(maxlen=kept)
        self.injected: deque[Injected] = deque(maxlen=kept)
        self.faults: Counter[Fault] = Counter()
        self.frames = self.lost = 0

    def frame(self, connection: int, time: int, out: Outgoing, fault: Fault | None = None) -> None:
        """Notes a frame; a lost one counts in ``lost``, not in ``frames``."""
        data = out.data if len(out.data) <= KEPT_BYTES else out.data[:KEPT_BYTES]
        sent = Sent(connection=connection, time=time, sequence=out.sequence, data=data, fault=fault)
        if fault is not None and sent.is_lost:
            self.lost += 1
        else:
            self.frames += 1
        self.sent.append(sent)

    def fault(self, connection: int, time: int, fault: Fault, sequence: int = -1, detail: str = "") -> None:
        """Notes a fault."""
        self.faults[fault] += 1
        self.injected.append(Injected(connection=connection, time=time, fault=fault, sequence=sequence, detail=detail))
