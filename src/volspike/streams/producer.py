"""The producer of a topic, and the relay that sends live ticks without ever waiting for the cluster.

Ticks that the cluster does not accept yet wait in memory and are sent in order. When the queue is full, new ticks are
dropped and counted; the tape has them.
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
"""Messages after which delivery reports are read, so that they do not accumulate."""

_SLICE_S: Final = 0.1
_CLOSE_WITHIN_S: Final = 30.0


class TopicProducer:
    """Sends messages to one topic: idempotent and in order; they wait until the cluster answers.

    ``give_up_s`` is how long a message waits before it counts as failed, 0 for ever. Messages of a key arrive in the
    order in which they were queued and without duplicates; after a failed one, later ones may still arrive. Delivery
    reports are read while ``send``, ``offer``, ``serve`` or ``flush`` run. ``more`` are settings of the client.

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
        **more: Any,
    ) -> None:
        self.topic = topic
        self.taken = 0
        """Messages that were queued."""
        self.failed = 0
        """Messages that were queued but not delivered."""
        self.fault: StreamError | None = None
        """The last error of a message or the connection; None once a later message is delivered."""
        self._failure: StreamError | None = None
        self._delivered = 0
        self._settings = settings
        self._producer: Producer = open_producer(
            settings,
            linger_ms=LINGER_MS,
            message_timeout_ms=round(give_up_s * 1000),
            queue_buffering_max_messages=queued,
            queue_buffering_max_kbytes=QUEUED_KBYTES,
            # a callback for each delivered message would take most of the time of sending it
            delivery_report_only_error=True,
            error_cb=self._on_error,
            **more,
        )

    @property
    def waiting(self) -> int:
        """Messages without a delivery report so far."""
        # the client also counts its other pending events
        return min(len(self._producer), self.taken - self.failed)

    @property
    def delivered(self) -> int:
        """Messages that all in-sync replicas have, according to the delivery reports read so far."""
        return self.taken - self.failed - self.waiting

    def offer(self, message: Message, headers: Headers | None = None) -> bool:
        """Queues a message; returns False if the queue is full. Never waits.

        Raises:
            StreamError: the client rejects this message.
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
        """Queues a message; waits while the queue is full.

        Raises:
            StreamError: the message is rejected, or an earlier one failed, so that no more should follow it.
        """
        while not self.offer(message, headers):
            self.serve(_SLICE_S)
            self.raise_if_failed()
        if self.failed:
            self.raise_if_failed()

    def serve(self, timeout_s: float = 0.0) -> None:
        """Reads delivery reports; waits up to ``timeout_s`` for one."""
        self._producer.poll(timeout_s)
        if self.delivered > self._delivered:
            self._delivered, self.fault = self.delivered, None

    def flush(self, within_s: float) -> int:
        """Waits at most ``within_s`` until all messages are delivered or have failed; returns the number waiting."""
        until = time.monotonic() + within_s
        while (remaining := until - time.monotonic()) > 0:
            # in slices, since signals are only handled between them
            if self._producer.flush(min(remaining, _SLICE_S)) == 0:
                break
        self.serve()
        return self.waiting

    def give_up(self) -> int:
        """Drops the waiting messages and returns their number. Only those in flight may still arrive."""
        dropped = self.waiting
        self._producer.purge()
        self._producer.flush(_SLICE_S)
        return dropped

    def raise_if_failed(self) -> None:
        """Raises the error if a message has failed."""
        if self.failed:
            undelivered = f"{self.failed:,} of {self.taken:,} messages were not delivered to {self.topic}"
            raise StreamError(f"{undelivered}: {self._failure}" if self._failure else undelivered)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delivers the waiting messages; drops them after an error."""
        if kind is None:
            self.flush(_CLOSE_WITHIN_S)
        self.give_up()

    def _on_failure(self, error: KafkaError, _: Delivered) -> None:
        self.failed += 1
        if not error.name().startswith("_PURGE"):  # purging is our own decision, not a reason
            self._failure = self.fault = stream_error(self._settings, error, self.topic)

    def _on_error(self, error: KafkaError) -> None:
        self.fault = stream_error(self._settings, error, self.topic)


STALLED_AFTER_S: Final = 3.0
"""Seconds without a delivery before a warning."""

TOPIC_AWAITED_S: Final = 3600
"""How long ticks wait for a topic to be created; the maximum that librdkafka allows."""


class TickRelay:
    """Sends the ticks of frames as tape lines. Failures of the cluster never raise; ``warn`` receives a message.

    The caller passes every frame to ``frame``, and calls ``tick`` several times a second and ``close`` at the end.
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
        """Ticks dropped because the queue was full."""
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
        """The topic of the ticks."""
        return self._producer.topic

    @property
    def delivered(self) -> int:
        """Ticks that were delivered."""
        return self._producer.delivered

    @property
    def undelivered(self) -> int:
        """Ticks that were not delivered, or not yet."""
        return self.refused + self._producer.failed + self._producer.waiting

    def frame(self, received: int, frame: Frame) -> None:
        """Sends the new ticks of one frame received at ``received`` (ns UTC)."""
        lines = frame_lines(frame, simulated=self._simulated)
        for tick, line in zip(frame.ticks, lines, strict=True):
            if not self._offer(tick.product_id, line, received):
                self.refused += 1

    def tick(self) -> None:
        """Reads delivery reports, and warns when deliveries stall or resume."""
        self._producer.serve()
        now, delivered = self._clock(), self._producer.delivered
        if delivered != self._delivered or not self._producer.waiting:
            if self._is_stalled and delivered != self._delivered:
                self._warn(f"deliveries to {self.topic} have resumed, ticks waiting: {self.undelivered:,}")
                self._is_stalled = False
            self._delivered, self._moved_at = delivered, now
        elif not self._is_stalled and now - self._moved_at >= STALLED_AFTER_S:
            self._is_stalled = True
            reason = self._producer.fault or "no answer"
            self._warn(
                f"no deliveries to {self.topic}: {reason}. ticks waiting: {self.undelivered:,}; listening continues"
            )

    def close(self, within_s: float) -> None:
        """Waits up to ``within_s`` for deliveries and drops the rest; ``undelivered`` is final then."""
        self._producer.flush(within_s)
        self._producer.give_up()

    def _offer(self, product_id: str, line: bytes, received: int) -> bool:
        try:
            return self._producer.offer(tick_message(product_id, line, received))
        except StreamError as fault:
            self._warn(str(fault))
            return False
