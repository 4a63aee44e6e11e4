"""A real Apache Kafka broker, shared by the tests of this folder; they fail if it cannot start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.streams.brokers import Kafka


@pytest.fixture(scope="session")
def cluster() -> Iterator[Kafka]:
    """A running broker. Each test uses topic names of its own, and no test stops the broker."""
    with Kafka() as kafka:
        yield kafka
