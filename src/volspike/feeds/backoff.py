"""How long to wait: between attempts that fail, and for what an exchange allows per second."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Backoff:
    """Exponential backoff with full jitter: evenly between 0 and a ceiling that doubles up to ``most_s``.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. ``jitter`` draws from [0, 1).
    """

    def __init__(self, least_s: float, most_s: float, jitter: Callable[[], float]) -> None:
        self._least_s = least_s
        self._most_s = most_s
        self._jitter = jitter
        self.reset()

    def reset(self) -> None:
        """Begin again at the shortest wait."""
        self._ceiling_s = min(self._least_s, self._most_s)

    def delay_s(self) -> float:
        """The next wait in seconds."""
        delay = self._jitter() * self._ceiling_s
        self._ceiling_s = min(2 * self._ceiling_s, self._most_s)
        return delay


class Pace:
    """At most ``limit`` of something within any ``span_s`` seconds."""

    def __init__(self, limit: int, span_s: float = 1.0) -> None:
        self._span_s = span_s
        self._turns: deque[float] = deque(maxlen=limit)

    def delay_s(self, now: float) -> float:
        """How long the next one has to wait from ``now`` (seconds of any clock that goes forward); takes its turn."""
        turn = now
        if len(self._turns) == self._turns.maxlen:
            turn = max(now, self._turns[0] + self._span_s)
        self._turns.append(turn)
        return turn - now
