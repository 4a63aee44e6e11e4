"""The broker contract on Apache Kafka."""

from __future__ import annotations

from tests.streams.contract import BrokerContract


class TestOnKafka(BrokerContract):
    """Runs every test of ``BrokerContract`` on a real broker."""
