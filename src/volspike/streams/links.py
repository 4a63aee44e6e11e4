"""The clients of one worker, opened as exactly-once processing needs them. Tests put others in their place."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Protocol

from confluent_kafka import KafkaException, TopicPartition

from volspike.errors import StreamError
from volspike.streams.clients import open_consumer, open_producer, require_topic, stream_error
from volspike.streams.settings import KafkaSettings
from volspike.streams.transactions import TRANSACTION_TIMEOUT_S

SESSION_MS: Final = 10_000
HEARTBEAT_MS: Final = 1_000
RETRY_MS: Final = 5
"""The next transaction begins while the brokers still write the last one's end; waiting 100 ms would be the delay."""

READ_WITHIN_S: Final = 30.0
ASK_S: Final = 10.0
_READ: Final = 10_000
_PREFETCHED: Final = 20_000
_PREFETCHED_KBYTES: Final = 16 << 10
_REFILL_MS: Final = 10
"""A full queue is looked at again so soon; after librdkafka's second it would have been empty for most of it."""

_SLICE_S: Final = 0.2


class Links(Protocol):
    """How a worker reaches its cluster."""

    @property
    def settings(self) -> KafkaSettings:
        """The cluster and its topics."""

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; raises TopicMissing."""

    def consumer(self, group: str, *, tells_end: bool) -> Any:
        """A consumer of the group, not subscribed yet."""

    def producer(self, transactional_id: str) -> Any:
        """A transactional producer, before its initialisation."""

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset, and the one after the last."""

    def read(
        self, topic: str, partition: int, start: int, end: int | None, *, committed: bool = True
    ) -> Iterator[list[Any]]:
        """The messages of offsets ``start`` up to, and without, ``end`` (None: the end at the time), in parts."""


class KafkaLinks:
    """Links to Apache Kafka."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return require_topic(self.settings, topic)

    def consumer(self, group: str, *, tells_end: bool) -> Any:
        """A consumer whose partitions move one by one, and that never begins anywhere by itself."""
        own: dict[str, Any] = {}
        if self.settings.options.get("group.protocol") != "consumer":  # there the brokers say how
            own = {
                "partition_assignment_strategy": "cooperative-sticky",
                "session_timeout_ms": SESSION_MS,
                "heartbeat_interval_ms": HEARTBEAT_MS,
            }
        return open_consumer(
            self.settings,
            group_id=group,
            auto_offset_reset="error",
            enable_partition_eof=tells_end,
            queued_min_messages=_PREFETCHED,
            queued_max_messages_kbytes=_PREFETCHED_KBYTES,
            fetch_queue_backoff_ms=_REFILL_MS,
            **own,
        )

    def producer(self, transactional_id: str) -> Any:
        """A transactional producer that sends at once."""
        return open_producer(
            self.settings,
            transactional_id=transactional_id,
            transaction_timeout_ms=round(TRANSACTION_TIMEOUT_S * 1000),
            retry_backoff_ms=RETRY_MS,
            linger_ms=2,
        )

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset, and the one after the last."""
        reader = self._reader("read_uncommitted")
        place, until = TopicPartition(topic, partition), time.monotonic() + READ_WITHIN_S
        try:
            while True:
                try:
                    low, high = reader.get_watermark_offsets(place, ASK_S)
                except KafkaException as error:
                    cause = error.args[0]
                    if not is_passing(cause) or time.monotonic() > until:
                        raise stream_error(self.settings, cause, topic) from error
                    time.sleep(_SLICE_S)
                else:
                    return int(low), int(high)
        finally:
            reader.close()

    def read(
        self, topic: str, partition: int, start: int, end: int | None, *, committed: bool = True
    ) -> Iterator[list[Any]]:
        """The messages of these offsets.

        Raises:
            StreamError: nothing came for half a minute, or the cluster refuses.
        """
        reader = self._reader("read_committed" if committed else "read_uncommitted")
        try:
            reader.assign([TopicPartition(topic, partition, start)])
            waited, position = 0.0, start
            while end is None or position < end:
                messages, has_ended = self._part(reader, topic)
                if messages:
                    waited, position = 0.0, messages[-1].offset() + 1
                    yield messages if end is None or position <= end else [m for m in messages if m.offset() < end]
                if has_ended:  # told once, perhaps together with the last messages
                    return
                if not messages and (waited := waited + _SLICE_S) >= READ_WITHIN_S:
                    raise StreamError(f"{topic}[{partition}]: nothing came from offset {position} on")
        finally:
            reader.close()

    def _part(self, reader: Any, topic: str) -> tuple[list[Any], bool]:
        """The next messages, and whether the end was met."""
        messages, has_ended = [], False
        for message in reader.consume(_READ, _SLICE_S):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.name() == "_PARTITION_EOF":
                has_ended = True
            elif not is_passing(error):
                raise stream_error(self.settings, error, topic)
        return messages, has_ended

    def _reader(self, isolation: str) -> Any:
        return open_consumer(
            self.settings,
            group_id="volspike-reader",
            auto_offset_reset="error",
            enable_partition_eof=True,
            isolation_level=isolation,
        )


PASSING: Final = frozenset(
    {
        "_ALL_BROKERS_DOWN",
        "_MAX_POLL_EXCEEDED",  # the loss of the partitions follows, and is what is acted upon
        "_RESOLVE",
        "_TIMED_OUT",
        "_TRANSPORT",
        "_WAIT_COORD",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "COORDINATOR_NOT_AVAILABLE",
        "FENCED_LEADER_EPOCH",
        "LEADER_NOT_AVAILABLE",
        "NETWORK_EXCEPTION",
        "NOT_COORDINATOR",
        "NOT_LEADER_FOR_PARTITION",
        "OFFSET_NOT_AVAILABLE",
        "REBALANCE_IN_PROGRESS",
        "REQUEST_TIMED_OUT",
        "UNKNOWN_LEADER_EPOCH",  # a broker that has just come back
        "UNSTABLE_OFFSET_COMMIT",
    }
)
"""Errors that go by themselves: brokers come back, leaders are chosen, somebody else's transaction ends."""


def is_passing(error: Any) -> bool:
    """Whether it is enough to ask again."""
    return bool(error.retriable()) or error.name() in PASSING


def close_quietly(consumer: Any) -> None:
    """Leaves the group; whatever goes wrong with that, its session ends by itself."""
    with suppress(KafkaException, RuntimeError):
        consumer.close()
