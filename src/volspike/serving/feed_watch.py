"""What a feed told so far, counted for whoever listens and does not score."""

from __future__ import annotations

import time

from volspike.feeds.events import FeedEvent, FeedFault, FeedFrame, FeedState
from volspike.market import Gap
from volspike.serving.live import Health
from volspike.serving.live_counts import LiveCounts


class FeedWatch:
    """Counts as the live pipeline does.

    Args:
        timed_from: the instant (ns UTC) from which ticks tell the wall's time; None where they never do.
    """

    def __init__(self, timed_from: int | None) -> None:
        self.stream = Health(time.time_ns())
        self.counts = LiveCounts()
        self._timed_from = timed_from

    def take(self, event: FeedEvent) -> None:
        """Counts one event."""
        match event:
            case FeedFrame():
                self._take_frame(event)
            case Gap():
                self.counts.gap(event)
            case FeedFault():
                self.stream.malformed += 1
            case FeedState():
                self.stream.is_connected = event.is_connected
                self.stream.connections += event.is_connected

    def _take_frame(self, event: FeedFrame) -> None:
        self.stream.frames += 1
        self.counts.heard_at = time.perf_counter_ns()
        for tick in event.frame.ticks:
            self.counts.of(tick.product_id).ticks += 1
        if event.frame.ticks and self._timed_from is not None:
            told = event.frame.ticks[-1].time
            if told >= self._timed_from:
                self.counts.latency.observe(event.received - told)
