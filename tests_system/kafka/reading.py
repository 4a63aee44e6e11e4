"""A topic read whole."""

from __future__ import annotations

from confluent_kafka import Message

from volspike.streams.clients import KafkaSettings
from volspike.streams.transactions import KafkaLinks


def read_whole(settings: KafkaSettings, topic: str) -> list[Message]:
    """Every committed message from the beginning to the end."""
    links = KafkaLinks(settings)
    found: list[Message] = []
    for partition in range(links.partitions(topic)):
        low, _ = links.extent(topic, partition)
        for part in links.read(topic, partition, low, None):
            found += part
    return found
