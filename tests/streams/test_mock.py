"""The contract on librdkafka's mock cluster, which needs nothing but Python."""

from __future__ import annotations

from tests.streams.contract import BrokerContract


class TestOnMock(BrokerContract):
    """See ``BrokerContract``."""
