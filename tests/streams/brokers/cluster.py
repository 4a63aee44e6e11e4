"""The interface of a cluster for tests."""

from __future__ import annotations

from typing import Protocol


class Cluster(Protocol):
    """A running cluster; ``close`` ends it, and a second call does nothing."""

    @property
    def bootstrap(self) -> str:
        """``host:port`` of its brokers, with commas between."""
        ...

    def create_topic(self, name: str, partitions: int = 3) -> None:
        """Makes a topic; it can be produced to once this returns."""
        ...

    def close(self) -> None:
        """Ends every process of the cluster and removes what it wrote."""
        ...
