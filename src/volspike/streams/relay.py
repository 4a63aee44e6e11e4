"""A live market into a topic, beside its recording: whatever the cluster does, nobody waits for it.

Ticks that the cluster does not take yet wait in memory, and go in their order once it does. Where no more fit, the
newest are left out and counted; the tape has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from volspike.errors import StreamError
from volspike.feeds import Frame
from volspike.streams.producer import QUEUED_MESSAGES, TopicProducer
from volspike.streams.settings import KafkaSettings
from volspike.streams.wire import tick_message
from volspike.tape.write import frame_lines

STALLED_AFTER_S: Final = 3.0
"""How long nothing is delivered until that is told."""

TOPIC_AWAITED_S: Final = 3600
"""How long ticks wait for a topic that somebody has yet to make; the most that librdkafka allows."""


class TickRelay:
    """Sends the ticks of frames as tape lines. Nothing that happens to the cluster raises; ``warn`` is told of it.

    Call ``frame`` for every frame, ``tick`` some times a second, ``close`` at the end. ``clock`` counts seconds.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        warn: Callable[[str], None],
        *,
        simulated: bool = False,
        queued: int = QUEUED_MESSAGES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.refused = 0
        """Ticks that found no room."""
        self._simulated = simulated
        self._warn = warn
        self._clock = clock
        self._producer = TopicProducer(
            settings,
            settings.topic_raw,
            give_up_s=0.0,
            queued=queued,
            topic_metadata_propagation_max_ms=TOPIC_AWAITED_S * 1000,
        )
        self._delivered = 0
        self._moved_at = clock()
        self._is_stalled = False

    @property
    def topic(self) -> str:
        """Where the ticks go."""
        return self._producer.topic

    @property
    def delivered(self) -> int:
        """Ticks that the cluster has."""
        return self._producer.delivered

    @property
    def undelivered(self) -> int:
        """Ticks that it does not have, or not yet."""
        return self.refused + self._producer.failed + self._producer.waiting

    def frame(self, received: int, data: bytes, frame: Frame) -> None:
        """Takes the new ticks of one frame; ``data`` is what it was decoded from, ``received`` is in ns UTC."""
        lines = frame_lines(data, frame, simulated=self._simulated)
        for tick, line in zip(frame.ticks, lines, strict=True):
            if not self._offered(tick.product_id, line, received):
                self.refused += 1

    def tick(self) -> None:
        """Reads what the cluster has said, and tells when it stops taking ticks or takes them again."""
        self._producer.serve()
        now, delivered = self._clock(), self._producer.delivered
        if delivered != self._delivered or not self._producer.waiting:
            if self._is_stalled and delivered != self._delivered:
                self._warn(f"ticks are delivered to {self.topic} again, {self.undelivered:,} are not yet")
                self._is_stalled = False
            self._delivered, self._moved_at = delivered, now
        elif not self._is_stalled and now - self._moved_at >= STALLED_AFTER_S:
            self._is_stalled = True
            reason = self._producer.fault or "no answer"
            self._warn(f"no tick is delivered to {self.topic}: {reason}. {self.undelivered:,} wait, listening goes on")

    def close(self, within_s: float) -> None:
        """Waits for deliveries up to ``within_s`` and gives up the rest; ``undelivered`` is final then."""
        self._producer.flush(within_s)
        self._producer.give_up()

    def _offered(self, product_id: str, line: bytes, received: int) -> bool:
        try:
            return self._producer.offer(tick_message(product_id, line, received))
        except StreamError as fault:
            self._warn(str(fault))
            return False
