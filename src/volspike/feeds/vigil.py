"""A look, now and then, at a connection that may have fallen silent; costs a frame nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Self

_MOST_BETWEEN_S = 1.0
_LEAST_BETWEEN_S = 0.005


def between_looks_s(*timeouts_s: float) -> float:
    """How often to look so that each timeout is noticed within a tenth of it, and within a second.

    >>> between_looks_s(10.0, 5.0)
    0.5
    """
    return max(min(_MOST_BETWEEN_S, *(timeout / 10 for timeout in timeouts_s)), _LEAST_BETWEEN_S)


class Vigil:
    """Calls ``look`` every ``every_s`` while the context lasts; once it says true, ``limit`` runs out at once.

    ``limit`` is the ``asyncio.timeout`` around the context. A look that would come late, because the event loop was
    kept busy, is put off once: frames may wait in the socket that nobody could take, and that is no silence.
    """

    def __init__(self, look: Callable[[], bool], limit: asyncio.Timeout, every_s: float) -> None:
        self._look = look
        self._limit = limit
        self._every_s = every_s
        self._was_late = False
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> Self:
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _wait(self) -> None:
        self._timer = self._loop.call_later(self._every_s, self._step)

    def _step(self) -> None:
        is_late = self._loop.time() > self._timer.when() + self._every_s
        self._was_late = is_late and not self._was_late
        if not self._was_late and self._look():
            self._limit.reschedule(self._loop.time())
        else:
            self._wait()
