"""Messages into a topic: idempotent, in order, each counted once its replicas have it or it is given up.

A live market into a topic, beside its recording: whatever the cluster does, nobody waits for it.

Ticks that the cluster does not take yet wait in memory, and go in their order once it does. Where no more fit, the
newest are left out and counted; the tape has them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka import Message as Delivered

from volspike.errors import StreamError
from volspike.feeds.events import Frame
from volspike.streams.clients import KafkaSettings, open_producer, stream_error
from volspike.streams.wire import Headers, Message, tick_message
from volspike.tape.write import frame_lines

QUEUED_MESSAGES: Final = 500_000
QUEUED_KBYTES: Final = 256 << 10
LINGER_MS: Final = 5
SERVE_EVERY: Final = 256
"""Messages after which delivery reports are looked through, so that they do not pile up."""

_SLICE_S: Final = 0.1
_CLOSE_WITHIN_S: Final = 30.0


class TopicProducer:
    """Sends messages into one topic of a cluster, which need not answer yet: they wait until it does.

    ``give_up_s`` is how long a message waits before it counts as failed, 0 for ever. Messages of a key arrive in the
    order in which they were taken, none twice; after a failed one, later ones may still arrive. Delivery reports are
    read while ``send``, ``offer``, ``serve`` or ``flush`` run. ``more`` are settings of the client.

        with TopicProducer(settings, "ticks.raw") as producer:
            producer.send(tick_message("BTC-USD", line, received))
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        *,
        give_up_s: float = 120.0,
        queued: int = QUEUED_MESSAGES,
        clock: Callable[[], float] = time.monotonic,
        **more: Any,
    ) -> None:
        self.topic = topic
        self.taken = 0
        """Messages that were queued."""
        self.failed = 0
        """Messages that were queued and given up."""
        self.fault: StreamError | None = None
        """What last kept a message or the connection; None once something is delivered after it."""
        self._failure: StreamError | None = None
        self._delivered = 0
        self._settings = settings
        self._clock = clock
        self._producer: Producer = open_producer(
            settings,
            linger_ms=LINGER_MS,
            message_timeout_ms=round(give_up_s * 1000),
            queue_buffering_max_messages=queued,
            queue_buffering_max_kbytes=QUEUED_KBYTES,
            # a call for each message that arrives would take most of the time that sending it takes
            delivery_report_only_error=True,
            error_cb=self._on_error,
            **more,
        )

    @property
    def waiting(self) -> int:
        """Messages whose end is not known yet, or was not read yet."""
        # the client counts what else it has to tell as well
        return min(len(self._producer), self.taken - self.failed)

    @property
    def delivered(self) -> int:
        """Messages that all replicas in sync have, so far as delivery reports were read."""
        return self.taken - self.failed - self.waiting

    def offer(self, message: Message, headers: Headers | None = None) -> bool:
        """Queues a message; at once False where the queue is full. Never waits.

        Raises:
            StreamError: the client will not take this message, now or later.
        """
        try:
            self._producer.produce(
                self.topic,
                message.value,
                message.key,
                timestamp=message.timestamp_ms,
                headers=headers,
                on_delivery=self._on_failure,
            )
        except BufferError:
            self._producer.poll(0)
            return False
        except KafkaException as error:
            raise stream_error(self._settings, error.args[0], self.topic) from error
        self.taken += 1
        if self.taken % SERVE_EVERY == 0:
            self._producer.poll(0)
        return True

    def send(self, message: Message, headers: Headers | None = None) -> None:
        """Queues a message; waits for room where the queue is full.

        Raises:
            StreamError: it is not taken, or an earlier one was given up: nothing more should follow that.
        """
        while not self.offer(message, headers):
            self.serve(_SLICE_S)
            self.raise_failed()
        if self.failed:
            self.raise_failed()

    def serve(self, timeout_s: float = 0.0) -> None:
        """Reads delivery reports; waits up to ``timeout_s`` for one."""
        self._producer.poll(timeout_s)
        if self.delivered > self._delivered:
            self._delivered, self.fault = self.delivered, None

    def flush(self, within_s: float) -> int:
        """Waits until every message is delivered or given up, or the time is over; how many are still waiting."""
        until = self._clock() + within_s
        while (remaining := until - self._clock()) > 0:
            # in slices, for a signal is only seen between them
            if self._producer.flush(min(remaining, _SLICE_S)) == 0:
                break
        self.serve()
        return self.waiting

    def give_up(self) -> int:
        """Drops what waits still; how many messages that were. None of them arrives later, unless it is on its way."""
        dropped = self.waiting
        self._producer.purge()
        self._producer.flush(_SLICE_S)
        return dropped

    def raise_failed(self) -> None:
        """Raises the fault if a message was given up."""
        if self.failed:
            told = f"{self.failed:,} of {self.taken:,} messages were not delivered to {self.topic}"
            raise StreamError(f"{told}: {self._failure}" if self._failure else told)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delivers what waits; gives it up after a failure."""
        if kind is None:
            self.flush(_CLOSE_WITHIN_S)
        self.give_up()

    def _on_failure(self, error: KafkaError, _: Delivered) -> None:
        self.failed += 1
        if not error.name().startswith("_PURGE"):  # that we gave it up is no reason
            self._failure = self.fault = stream_error(self._settings, error, self.topic)

    def _on_error(self, error: KafkaError) -> None:
        self.fault = stream_error(self._settings, error, self.topic)


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

    def frame(self, received: int, frame: Frame) -> None:
        """Takes the new ticks of one frame that was received at ``received`` (ns UTC)."""
        lines = frame_lines(frame, simulated=self._simulated)
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
