"""librdkafka's mock cluster in a process of its own; it speaks the protocol, and keeps little of what Kafka promises.

Aborted transactions show to ``read_committed``, offsets sent to a transaction are lost, ``offsets_for_times`` answers
-1, topics cannot be made by an admin client, each partition forgets what is older than about 5 MB, and only groups
with ``group.protocol=consumer`` get on.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self


class MockKafka:
    """A mock cluster that answers after construction; it ends with the process that created it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603  our own command
            [sys.executable, str(Path(__file__).with_name("mock_process.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._bootstrap = self._line()

    @property
    def bootstrap(self) -> str:
        """All brokers."""
        return self._bootstrap

    def create_topic(self, name: str, partitions: int = 3) -> None:
        """Makes a topic."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {partitions}\n")
        self._process.stdin.flush()
        told = self._line()
        if told != "ok":
            raise RuntimeError(f"topic {name}: {told}")

    def close(self) -> None:
        """Ends the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(10)
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError(f"the mock cluster ended with status {self._process.wait(10)}")
        return line
