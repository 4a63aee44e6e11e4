"""How long nothing has come over a connection that should beat every second."""

from __future__ import annotations

from typing import TypeAlias

Span: TypeAlias = tuple[int, int]


class SilenceWatch:
    """Tells silences of one connection as spans of time (ns UTC), each nanosecond of them once.

    A silence is told when it has lasted ``silence_ns``, up to that moment; what it lasts longer is told when it
    ends. Before the first frame there is nothing that could have fallen silent, but there is idleness.
    """

    __slots__ = ("_has_heard", "_idle_ns", "_last", "_silence_ns", "_told_until")

    def __init__(self, silence_ns: int, idle_ns: int, connected: int) -> None:
        self._silence_ns = silence_ns
        self._idle_ns = idle_ns
        self._last = connected
        self._has_heard = False
        self._told_until = 0

    def hear(self, received: int) -> Span | None:
        """A frame came; the rest of the silence that it ends, if one was told."""
        self._last = received
        self._has_heard = True
        if not self._told_until:
            return None
        start, self._told_until = self._told_until, 0
        return start, max(start, received)

    def look(self, now: int) -> Span | None:
        """The silence that has just become long enough to be told, if there is one."""
        if not self._has_heard or self._told_until or now - self._last < self._silence_ns:
            return None
        self._told_until = now
        return self._last, now

    def is_idle(self, now: int) -> bool:
        """Whether so long nothing came that the connection is worth nothing."""
        return now - self._last >= self._idle_ns
