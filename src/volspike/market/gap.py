"""A stretch of time in which something that the exchange said did not reach us."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Cause(StrEnum):
    """How a gap is known."""

    SEQUENCE = "sequence"
    """A number is missing in the exchange's own count."""
    SILENCE = "silence"
    """Nothing came for longer than 10 s, not even a heartbeat."""
    RECONNECT = "reconnect"
    """The connection was lost and made anew."""
    RESTART = "restart"
    """Nobody was recording between two runs."""
    OVERFLOW = "overflow"
    """Frames came faster than they were taken; the queue was full and frames were let go."""


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """What was lost, as far as it is known: when (ns UTC, our clock), of which products, how, how many messages.

    ``start`` is when the last thing before the gap was received, ``end`` when the first thing after it was.
    ``lost`` counts messages where the exchange's numbers tell it, else -1.
    """

    start: int
    end: int
    products: tuple[str, ...]
    cause: Cause
    lost: int = -1
    detail: str = ""
