"""The contract on Apache Kafka."""

from __future__ import annotations

from tests.streams.contract import BrokerContract


class TestOnKafka(BrokerContract):
    """See ``BrokerContract``."""
