"""What a worker does with the messages of one partition; everything about Kafka is the worker's own affair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from volspike.streams.wire import Headers


class Taken(Protocol):
    """A message that was read, as ``confluent_kafka.Message`` is one."""

    def key(self) -> bytes | None:
        """Its key."""

    def value(self) -> bytes | None:
        """Its value."""

    def headers(self) -> list[tuple[str, bytes]] | None:
        """Its headers."""

    def offset(self) -> int:
        """Where it stands in its partition."""


@dataclass(slots=True)
class Made:
    """What messages became: n values with n keys and n timestamps (ms), and the headers of them all.

    ``dead`` are messages that cannot be read, by their place in what was taken, each with the reason.
    """

    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    headers: Headers = field(default_factory=list)
    dead: list[tuple[int, str]] = field(default_factory=list)


class Stage(Protocol):
    """The state of one partition and what it makes of messages: the same messages, however they are cut into batches,
    give the same results and the same state.

    After a failure a stage is let go, and a new one restored to what was committed.
    """

    def restore(self, snapshot: bytes | None, offset: int, earlier: Sequence[int]) -> None:
        """Takes up where ``snapshot`` was made, before ``offset``; None is the beginning. Called once, first.

        ``earlier`` are offsets of committed snapshots before it, as far as they are known.

        Raises:
            DataError, SchemaMismatch: the snapshot is not one of this stage.
        """

    def take(self, messages: Sequence[Taken]) -> Made:
        """The next messages, in order. After a restore also those once more that were taken between the snapshot and
        the failure; what is made of them then was committed before, and goes nowhere.
        """

    def recovered(self, told: int) -> None:
        """The messages taken so far were committed before; what they gave rise to outside was told up to ``told``."""

    def snapshot(self, offset: int) -> bytes:
        """Everything that later results depend on; ``offset`` is the next message's."""

    def committed(self) -> None:
        """What was taken so far, and the snapshot if one was made, is committed for good."""

    def close(self) -> None:
        """The partition is let go; what is not committed is forgotten."""


MakeStage: TypeAlias = Callable[[int], Stage]
"""A fresh stage for a partition."""
