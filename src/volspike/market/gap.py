"""Gaps: spans of time in which data of an exchange was lost."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Cause(StrEnum):
    """The reason for a gap."""

    SEQUENCE = "sequence"
    """The exchange's sequence numbers skip messages."""
    SILENCE = "silence"
    """No frame came for 10 s, not even a heartbeat."""
    RECONNECT = "reconnect"
    """The connection was lost and made again."""
    RESTART = "restart"
    """No recorder ran between two recordings."""
    OVERFLOW = "overflow"
    """Frames came faster than they were read, and the full queue dropped some."""
    MALFORMED = "malformed"
    """Frames, or ticks in them, could not be decoded or have an impossible time."""
    CLOCK = "clock"
    """The exchange's clock, or ours, was set to another time."""
    HISTORY = "history"
    """The venue's public history lacks days or trade ids."""
    UNVERIFIABLE = "unverifiable"
    """The feed contains nothing by which a loss could be noticed; only in entries that are not ``verifiable``."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """A span of lost data of some products, in ns UTC of our clock.

    ``start`` is when the last frame before the gap was received, ``end`` when the first after it was. ``lost`` is the
    number of lost messages, or -1 where it is unknown.

    ``verifiable`` is false for a span in which no loss of these products could be noticed. That is no known loss: rows
    keep ``is_whole``, and only what reports on a recording shows it.
    """

    start: int
    end: int
    products: tuple[str, ...]
    cause: Cause
    lost: int = -1
    detail: str = ""
    verifiable: bool = True
