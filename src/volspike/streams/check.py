"""Whether messages are in a topic: read from its beginning, without a group, so that nobody else notices."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_NOT_AVAILABLE, KafkaError, Message, TopicPartition

from volspike.streams.clients import open_consumer, require_topic, stream_error
from volspike.streams.settings import KafkaSettings

BATCH: Final = 1_000
_SLICE_S: Final = 0.1
_NOT_LOST: Final = {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_PARTITION_EOF", "_TIMED_OUT"}
"""Errors that the client mends by itself."""


@dataclass(slots=True)
class TopicCheck:
    """What was read: messages by partition and by key, their bytes, and Kafka's first and last timestamp (ms)."""

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    partitions: Counter[int] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None

    def add(self, message: Message) -> None:
        """Counts a message."""
        self.messages += 1
        self.bytes += len(message.value() or b"")
        self.partitions[message.partition()] += 1
        key = message.key()
        self.keys["" if key is None else key.decode(errors="replace")] += 1
        kind, timestamp = message.timestamp()
        if kind != TIMESTAMP_NOT_AVAILABLE:
            self.first_ms = timestamp if self.first_ms is None else min(self.first_ms, timestamp)
            self.last_ms = timestamp if self.last_ms is None else max(self.last_ms, timestamp)


def check_topic(
    settings: KafkaSettings,
    topic: str,
    at_least: int,
    within_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> TopicCheck:
    """Reads ``topic`` from its beginning until ``at_least`` committed messages have come or the time is over.

    Raises:
        BrokerUnavailable: nobody answers.
        TopicMissing: there is no such topic.
        StreamError: the cluster does not let it be read.
    """
    partitions = require_topic(settings, topic)
    found = TopicCheck()
    faults: list[KafkaError] = []
    consumer = open_consumer(settings, group_id="volspike-check", auto_offset_reset="earliest", error_cb=faults.append)
    try:
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
        began = clock()
        while found.messages < at_least and (left := began + within_s - clock()) > 0:
            for message in consumer.consume(min(BATCH, at_least - found.messages), min(left, _SLICE_S)):
                if (error := message.error()) is None:
                    found.add(message)
                elif error.name() not in _NOT_LOST:
                    raise stream_error(settings, error, topic)
            for fault in faults:
                if fault.name() not in _NOT_LOST:
                    raise stream_error(settings, fault, topic)
        found.seconds = clock() - began
    finally:
        consumer.close()
    return found
