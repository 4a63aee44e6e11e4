"""A broker for tests that need the protocol only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.streams.brokers import MockKafka


@pytest.fixture(scope="session")
def cluster() -> Iterator[MockKafka]:
    """A mock cluster; topics are named per test."""
    with MockKafka() as mock:
        yield mock
