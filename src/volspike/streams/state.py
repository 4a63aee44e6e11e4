"""The state of a partition: the stage that computes results, its snapshots in Kafka, and recovery from them.

A snapshot is written in the transaction that commits its offset, to the compacted state topic, in chunks that fit into
a message. The metadata of the committed offset (a *bookmark*) points to the first chunk, so recovery reads it without
searching. Recovery restores the snapshot and processes the messages since then again, without output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec
import pyarrow as pa

from volspike.errors import DataError, SchemaMismatch, StreamError, StreamTruncated
from volspike.streams.transactions import Clients
from volspike.streams.wire import Headers


class ReceivedMessage(Protocol):
    """A message as ``confluent_kafka.Message`` provides it."""

    def key(self) -> bytes | None:
        """Its key."""

    def value(self) -> bytes | None:
        """Its value."""

    def headers(self) -> list[tuple[str, bytes]] | None:
        """Its headers."""

    def offset(self) -> int:
        """Its offset in the partition."""


@dataclass(slots=True)
class StageOutput:
    """The results of a batch: n values with n keys and n timestamps (ms), and the headers that all of them carry.

    ``dead`` lists the unreadable messages: the position in the batch and the reason.
    """

    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    headers: Headers = field(default_factory=list)
    dead: list[tuple[int, str]] = field(default_factory=list)


class Stage(Protocol):
    """Computes the results of one partition. Results and state depend on the messages, not on how they are batched.

    After a failure the stage is closed, and a new one is restored to the committed state.
    """

    def restore(self, snapshot: bytes | None, offset: int, earlier: Sequence[int]) -> None:
        """Restores the state of ``snapshot``, taken before ``offset``; None is the initial state. Called once, first.

        ``earlier`` are the known offsets of earlier committed snapshots.

        Raises:
            DataError, SchemaMismatch: the snapshot belongs to another kind of stage.
        """

    def process(self, messages: Sequence[ReceivedMessage]) -> StageOutput:
        """The results of the next messages, in order.

        After a restore, the messages between the snapshot and the failure are processed again; their results were
        committed before and are discarded.
        """

    def after_recovery(self, alerted: int) -> None:
        """Recovery is complete; alerts of messages before offset ``alerted`` were sent before the failure."""

    def snapshot(self, offset: int) -> bytes:
        """The state that later results depend on; ``offset`` is that of the next message."""

    def after_commit(self) -> None:
        """The results so far, and the snapshot if one was taken, are committed."""

    def close(self) -> None:
        """The partition is released; uncommitted state is discarded."""


MakeStage: TypeAlias = Callable[[int], Stage]
"""Creates the stage of a partition."""


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The topics of a worker, and how often it commits.

    ``name`` distinguishes the workers of a group: a worker that restarts under its name aborts its open transaction
    at once. A transaction has at most ``commit_rows`` messages and ends ``commit_ms`` after the last one or later. A
    snapshot is taken after ``snapshot_rows`` messages or ``snapshot_s`` seconds, whichever comes first.
    """

    group: str
    name: str
    topic_in: str
    topic_out: str
    commit_ms: float = 20.0
    commit_rows: int = 10_000
    snapshot_rows: int = 100_000
    snapshot_s: float = 30.0
    cold_start: bool = False
    finish: bool = False
    """Exit once all messages in the topic are processed."""


CHUNK_BYTES: Final = 900_000
"""Below 1 MiB, the default limit of a topic."""

REMEMBERED: Final = 256
"""Number of earlier snapshot offsets that a snapshot lists."""

_CODEC: Final = "zstd"


class Bookmark(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of a committed offset.

    Attributes:
        alerted: alerts of messages before this offset were sent.
        snapshot: offset of the newest snapshot; -1 without one.
        at: offset of its first chunk in its partition of the state topic.
        chunks: number of its chunks.
    """

    alerted: int = msgspec.field(name="told")
    snapshot: int = -1
    at: int = -1
    chunks: int = 0

    def encode(self) -> str:
        """The bookmark as metadata of an offset."""
        return msgspec.json.encode(self).decode()


def read_bookmark(metadata: str | None) -> Bookmark | None:
    """The bookmark in the metadata of an offset; None if another program committed it."""
    try:
        return msgspec.json.decode(metadata or "", type=Bookmark)
    except msgspec.DecodeError:
        return None


class StageSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a stage before ``offset``; ``earlier`` are the offsets of earlier committed snapshots."""

    offset: int
    earlier: tuple[int, ...]
    size: int
    packed: bytes

    @property
    def stage(self) -> bytes:
        """The bytes from the stage."""
        return bytes(pa.decompress(self.packed, self.size, codec=_CODEC, asbytes=True))


class Chunk(NamedTuple):
    """A message of the state topic."""

    key: bytes
    value: bytes


def state_key(group: str, topic: str, partition: int) -> str:
    """The key of a partition's snapshots, without the number of the chunk."""
    return f"{group}/{topic}/{partition}"


def snapshot_chunks(key: str, offset: int, earlier: Sequence[int], stage: bytes) -> list[Chunk]:
    """The snapshot of a stage as messages."""
    packed = bytes(pa.compress(stage, codec=_CODEC, asbytes=True))
    kept = tuple(earlier)[-REMEMBERED:]
    encoded = msgspec.msgpack.encode(StageSnapshot(offset=offset, earlier=kept, size=len(stage), packed=packed))
    starts = range(0, len(encoded), CHUNK_BYTES)
    return [
        Chunk(f"{key}/{number}".encode(), encoded[start : start + CHUNK_BYTES]) for number, start in enumerate(starts)
    ]


def join_chunks(key: str, bookmark: Bookmark, messages: Iterable[ReceivedMessage]) -> StageSnapshot:
    """The snapshot that the bookmark points to; ``messages`` are those of the state partition from ``at`` on.

    Raises:
        StreamError: the snapshot is incomplete.
    """
    keys = [f"{key}/{number}".encode() for number in range(bookmark.chunks)]
    parts: list[bytes] = []
    for message in messages:
        if message.key() == keys[len(parts)]:
            parts.append(message.value() or b"")
        if len(parts) == len(keys):
            break
    try:
        snapshot = msgspec.msgpack.decode(b"".join(parts), type=StageSnapshot)
    except msgspec.DecodeError as error:
        raise StreamError(f"the snapshot of {key} at offset {bookmark.at} is incomplete: {error}") from error
    if snapshot.offset != bookmark.snapshot:
        raise StreamError(f"the snapshot of {key} was taken at offset {snapshot.offset}, expected {bookmark.snapshot}")
    return snapshot


@dataclass(slots=True)
class AssignedPartition:
    """A partition of a worker: its stage, the next offset, and the last commit."""

    number: int
    stage: Stage
    position: int
    bookmark: Bookmark
    earlier: tuple[int, ...] = ()
    since: int = 0
    """Messages since the newest snapshot."""
    snapshot_at: float = float("-inf")
    has_ended: bool = False


class Recovery:
    """Restores stages to their committed state.

    Args:
        cold_start: continue with an empty stage instead of raising if the log no longer holds the past.
        on_messages: called with the number of messages that were processed again.
    """

    def __init__(
        self,
        clients: Clients,
        group: str,
        topic: str,
        make_stage: MakeStage,
        *,
        cold_start: bool = False,
        on_messages: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._clients = clients
        self._group = group
        self._topic = topic
        self._make_stage = make_stage
        self._cold_start = cold_start
        self._on_messages = on_messages

    def recover(self, number: int, committed: int, metadata: str | None, now: float) -> AssignedPartition:
        """The partition as of the offset ``committed``; a negative offset means that nothing was committed yet.

        Raises:
            StreamTruncated: the log no longer holds the messages that recovery needs.
            SchemaMismatch: the group has worked with other features.
        """
        low, _ = self._clients.extent(self._topic, number)
        if committed < 0:
            return self._empty(number, low)
        bookmark = read_bookmark(metadata)
        has_snapshot = bookmark is not None and bookmark.snapshot >= 0
        start = bookmark.snapshot if bookmark is not None and has_snapshot else 0
        if committed < low:
            return self._without(number, low, f"offsets {committed} to {low} were deleted before they were processed")
        if start < low and start != committed:
            what = "the newest snapshot is at" if has_snapshot else "there is no snapshot, so recovery starts at"
            return self._without(number, committed, f"{what} offset {start}, but the log begins at {low}")
        alerted = committed if bookmark is None else bookmark.alerted
        partition = AssignedPartition(
            number, self._make_stage(number), start, bookmark or Bookmark(alerted=alerted), snapshot_at=now
        )
        if bookmark is not None and has_snapshot:
            snapshot = self._snapshot(number, bookmark)
            partition.earlier = snapshot.earlier
            self._restore(partition, snapshot)
        else:
            partition.snapshot_at = float("-inf")
            partition.stage.restore(None, start, ())
        self._replay(partition, committed)
        partition.stage.after_recovery(alerted)
        return partition

    def _empty(self, number: int, position: int) -> AssignedPartition:
        stage = self._make_stage(number)
        stage.restore(None, position, ())
        return AssignedPartition(number, stage, position, Bookmark(alerted=position))

    def _without(self, number: int, position: int, reason: str) -> AssignedPartition:
        if not self._cold_start:
            raise StreamTruncated(self._topic, number, reason)
        return self._empty(number, position)

    def _snapshot(self, number: int, bookmark: Bookmark) -> StageSnapshot:
        key = state_key(self._group, self._topic, number)
        topic = self._clients.settings.topic_state
        partition = number % self._clients.partitions(topic)
        # the snapshot was committed with its bookmark, so open transactions of others do not matter
        parts = self._clients.read(topic, partition, bookmark.at, None, committed=False)
        return join_chunks(key, bookmark, (message for part in parts for message in part))

    def _restore(self, partition: AssignedPartition, snapshot: StageSnapshot) -> None:
        try:
            partition.stage.restore(snapshot.stage, snapshot.offset, snapshot.earlier)
        except (DataError, SchemaMismatch) as error:
            raise SchemaMismatch(
                f"group {self._group} has processed {self._topic} with other settings: {error}",
                remedy="use a new --group for the new settings",
            ) from error

    def _replay(self, partition: AssignedPartition, committed: int) -> None:
        for part in self._clients.read(self._topic, partition.number, partition.position, committed):
            if part:
                partition.stage.process(part)
                partition.position = part[-1].offset() + 1
                partition.since += len(part)
                self._on_messages(len(part))
        partition.position = committed


def committed_offset(place: Any) -> int:
    """The committed offset of a ``TopicPartition``; -1 if there is none."""
    return max(-1, int(place.offset))
