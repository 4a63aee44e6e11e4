"""Fixtures of the live tests: the API's client."""

from __future__ import annotations

import pytest
from tests.api.conftest import Client


@pytest.fixture
def new_client() -> type[Client]:
    """The client class, for use in a ``with`` statement."""
    return Client
