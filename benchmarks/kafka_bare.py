"""The reference for a worker: the same client and transactions without any processing."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import TopicPartition

from volspike.streams.clients import KafkaSettings
from volspike.streams.transactions import KafkaClients

HEADERS: Final = [("a", b"3644e382a19d"), ("b", b"tick"), ("c", b"ticker"), ("d", b"false")]
IDLE_S: Final = 0.1


def pass_on(
    settings: KafkaSettings,
    group: str,
    name: str,
    topics: tuple[str, str],
    *,
    most: int,
    commit_ms: float = 0.0,
    finish: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_batch: Callable[[int], None] = lambda _: None,
) -> None:
    """Copy messages from one topic to another; ``on_batch`` receives the size of each batch before it is sent.

    ``most``, ``commit_ms`` and ``finish`` are those of a worker's plan.
    """
    source, target = topics
    clients = KafkaClients(settings)
    producer = clients.producer(f"{group}-{name}")
    producer.init_transactions()
    consumer = clients.consumer(group, reports_end=finish)
    has_ended: dict[int, bool] = {}

    def assigned(_: Any, places: list[TopicPartition]) -> None:
        has_ended.update({place.partition: False for place in places})
        starts = consumer.committed(places, 10)
        consumer.incremental_assign([TopicPartition(source, p.partition, max(0, p.offset)) for p in starts])

    def revoked(_: Any, places: list[TopicPartition]) -> None:
        for place in places:
            has_ended.pop(place.partition)

    consumer.subscribe([source], on_assign=assigned, on_revoke=revoked)
    due = time.monotonic()
    while not stop() and not (finish and has_ended and all(has_ended.values())):
        messages = consumer.consume(1, IDLE_S)
        if messages:
            messages += consumer.consume(most - 1, max(0.0, due - time.monotonic()))
        has_ended.update({each.partition(): True for each in messages if each.error() is not None})
        messages = [each for each in messages if each.error() is None]
        if messages:
            on_batch(len(messages))
            producer.begin_transaction()
            for message in messages:
                at = message.timestamp()[1]
                produce(producer, target, message, at)
            last = {message.partition(): message.offset() + 1 for message in messages}
            offsets = [TopicPartition(source, number, offset) for number, offset in last.items()]
            producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata())
            producer.commit_transaction()
            due = time.monotonic() + commit_ms / 1000
    consumer.close()


def produce(producer: Any, topic: str, message: Any, at: int) -> None:
    """Send a message; wait while the queue is full."""
    while True:
        try:
            producer.produce(topic, message.value(), message.key(), timestamp=at, headers=HEADERS)
        except BufferError:
            producer.poll(IDLE_S)
        else:
            return
