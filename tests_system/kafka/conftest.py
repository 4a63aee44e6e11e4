"""Apache Kafka itself, one broker for all tests of this folder. Where it cannot start, they fail."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.streams.brokers import Kafka


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kafka]:
    """A broker; topics are named per test, and nobody stops it."""
    with Kafka() as kafka:
        yield kafka
