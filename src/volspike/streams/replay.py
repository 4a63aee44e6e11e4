"""A tape into a topic at its own pace, faster, or as fast as the broker takes it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from volspike.market import SECOND_NS
from volspike.streams.wire import Message

SHOW_EVERY_S: Final = 0.5
_LOOK_EVERY: Final = 512
_LONGEST_WAIT_S: Final = 0.1


class Outlet(Protocol):
    """Where messages go; a ``TopicProducer``."""

    @property
    def delivered(self) -> int:
        """Messages that arrived."""
        ...

    def send(self, message: Message) -> None:
        """Takes a message; may wait."""
        ...

    def serve(self, timeout_s: float = 0.0) -> None:
        """Waits up to ``timeout_s``, and may return sooner."""
        ...


@dataclass(slots=True)
class ReplayProgress:
    """How far a replay is; ``behind_s`` is the most by which a message was sent after it was due."""

    sent: int = 0
    seconds: float = 0.0
    market_seconds: float = 0.0
    behind_s: float = 0.0

    @property
    def rate(self) -> float:
        """Messages a second since the start."""
        return self.sent / self.seconds if self.seconds > 0 else 0.0


def replay(
    messages: Iterable[Message],
    outlet: Outlet,
    speed: float,
    progress: ReplayProgress,
    *,
    clock: Callable[[], float] = time.monotonic,
    show: Callable[[ReplayProgress], None] = lambda _: None,
) -> None:
    """Sends all messages, each when it is due; ``progress`` is filled meanwhile and shown now and then.

    A message is due (received − first received) / ``speed`` seconds after the start, by ``clock`` and not after the
    one before it, so nothing adds up. One whose receive time steps back goes at once. ``speed`` 0 waits for nothing.

    Raises:
        StreamError: as ``outlet`` raises it.
    """
    began, shown, first = clock(), 0.0, None
    due = began
    for message in messages:
        if first is None:
            first = message.received
        progress.market_seconds = max(progress.market_seconds, (message.received - first) / SECOND_NS)
        if speed:
            due = max(due, began + (message.received - first) / SECOND_NS / speed)
            _wait_until(due, outlet, clock)
            progress.behind_s = max(progress.behind_s, clock() - due)
        outlet.send(message)
        progress.sent += 1
        if speed or progress.sent % _LOOK_EVERY == 0:
            progress.seconds = clock() - began
            if progress.seconds - shown >= SHOW_EVERY_S:
                shown = progress.seconds
                show(progress)
    progress.seconds = clock() - began


def _wait_until(due: float, outlet: Outlet, clock: Callable[[], float]) -> None:
    """In slices, for a signal is only seen between them."""
    while (ahead := due - clock()) > 0:
        outlet.serve(min(ahead, _LONGEST_WAIT_S))
