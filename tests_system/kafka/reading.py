"""Reads a topic from beginning to end."""

from __future__ import annotations

from confluent_kafka import Message

from volspike.streams.clients import KafkaSettings
from volspike.streams.transactions import KafkaClients


def read_all(settings: KafkaSettings, topic: str) -> list[Message]:
    """All committed messages of a topic, partition by partition."""
    clients = KafkaClients(settings)
    found: list[Message] = []
    for partition in range(clients.partitions(topic)):
        low, _ = clients.extent(topic, partition)
        for part in clients.read(topic, partition, low, None):
            found += part
    return found
