"""What a worker does with the messages of one partition; everything about Kafka is the worker's own affair.

What a worker is asked to do.

Where a stage's state lies: in the compacted topic of states, found by what is committed beside the offset.

A snapshot goes out in the transaction that commits its offset, in chunks that fit into a message. The offset's own
metadata (a *bookmark*) says where its first chunk stands, so that it is read back without searching. What was
committed is the newest bookmark; older snapshots are left to compaction.

A partition's stage brought to its committed offset: the snapshot first, then the messages since, in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import msgspec
import pyarrow as pa

from volspike.errors import DataError, SchemaMismatch, StreamError, StreamTruncated
from volspike.streams.transactions import Links
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


class WorkerPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a worker reads and writes, and how often it commits.

    ``name`` tells the workers of a group apart: one that comes back under its name takes back at once what it left
    open. A transaction has at most ``commit_rows`` messages, and a new one ends at the earliest ``commit_ms`` after the
    last. A snapshot is made after ``snapshot_rows`` messages or ``snapshot_s``, whichever comes first.
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
    """End once everything that lies in the topic is taken."""


CHUNK_BYTES: Final = 900_000
"""Below the 1 MiB that a topic takes where nobody said otherwise."""

REMEMBERED: Final = 256
"""How many earlier snapshots' offsets a snapshot names."""

_CODEC: Final = "zstd"


class Bookmark(msgspec.Struct, frozen=True, kw_only=True):
    """What is committed beside an offset.

    Alerts and the like of messages before ``told`` went out. ``snapshot`` is the offset of the newest snapshot, which
    begins at offset ``at`` of its partition of the topic of states; -1 without one.
    """

    told: int
    snapshot: int = -1
    at: int = -1
    chunks: int = 0

    def encoded(self) -> str:
        """As the metadata of an offset."""
        return msgspec.json.encode(self).decode()


def read_bookmark(metadata: str | None) -> Bookmark | None:
    """The bookmark of an offset's metadata; None where somebody else has committed it."""
    try:
        return msgspec.json.decode(metadata or "", type=Bookmark)
    except msgspec.DecodeError:
        return None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A stage's state before ``offset``; ``earlier`` are the offsets of some committed snapshots before it."""

    offset: int
    earlier: tuple[int, ...]
    size: int
    packed: bytes

    @property
    def stage(self) -> bytes:
        """What the stage gave."""
        return bytes(pa.decompress(self.packed, self.size, codec=_CODEC, asbytes=True))


class Chunk(NamedTuple):
    """A message of the topic of states."""

    key: bytes
    value: bytes


def state_key(group: str, topic: str, partition: int) -> str:
    """The key of a partition's snapshots, before the number of the chunk."""
    return f"{group}/{topic}/{partition}"


def chunks_of(key: str, offset: int, earlier: Sequence[int], stage: bytes) -> list[Chunk]:
    """A stage's snapshot as messages."""
    packed = bytes(pa.compress(stage, codec=_CODEC, asbytes=True))
    kept = tuple(earlier)[-REMEMBERED:]
    whole = msgspec.msgpack.encode(Snapshot(offset=offset, earlier=kept, size=len(stage), packed=packed))
    starts = range(0, len(whole), CHUNK_BYTES)
    return [
        Chunk(f"{key}/{number}".encode(), whole[start : start + CHUNK_BYTES]) for number, start in enumerate(starts)
    ]


def joined(key: str, bookmark: Bookmark, messages: Iterable[Taken]) -> Snapshot:
    """The snapshot that the bookmark means; ``messages`` are those of the partition of states from ``at`` on.

    Raises:
        StreamError: it is not there whole.
    """
    wanted = [f"{key}/{number}".encode() for number in range(bookmark.chunks)]
    parts: list[bytes] = []
    for message in messages:
        if message.key() == wanted[len(parts)]:
            parts.append(message.value() or b"")
        if len(parts) == len(wanted):
            break
    try:
        snapshot = msgspec.msgpack.decode(b"".join(parts), type=Snapshot)
    except msgspec.DecodeError as error:
        raise StreamError(f"the snapshot of {key} at offset {bookmark.at} is not there whole: {error}") from error
    if snapshot.offset != bookmark.snapshot:
        raise StreamError(f"the snapshot of {key} is of offset {snapshot.offset}, not of {bookmark.snapshot}")
    return snapshot


@dataclass(slots=True)
class Held:
    """A partition that a worker has: its stage, the next offset, and what was committed last."""

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
    """Brings stages back.

    Args:
        cold_start: where the past is gone, go on with an empty stage instead of raising.
        on_messages: told how many were read once more.
    """

    def __init__(
        self,
        links: Links,
        group: str,
        topic: str,
        make_stage: MakeStage,
        *,
        cold_start: bool = False,
        on_messages: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._links = links
        self._group = group
        self._topic = topic
        self._make_stage = make_stage
        self._cold_start = cold_start
        self._on_messages = on_messages

    def recover(self, number: int, committed: int, metadata: str | None, now: float) -> Held:
        """The partition as it was when ``committed`` was; a negative one stands for nothing committed yet.

        Raises:
            StreamTruncated: what is needed for that is no longer in the log.
            SchemaMismatch: the group has worked with other features.
        """
        low, _ = self._links.extent(self._topic, number)
        if committed < 0:
            return self._empty(number, low)
        bookmark = read_bookmark(metadata)
        has_snapshot = bookmark is not None and bookmark.snapshot >= 0
        start = bookmark.snapshot if bookmark is not None and has_snapshot else 0
        if committed < low:
            return self._without(number, low, f"offsets {committed} to {low} were deleted before they were taken")
        if start < low and start != committed:
            what = "the newest snapshot is of" if has_snapshot else "no snapshot was made, and state begins at"
            return self._without(number, committed, f"{what} offset {start}, the log begins at {low}")
        told = committed if bookmark is None else bookmark.told
        held = Held(number, self._make_stage(number), start, bookmark or Bookmark(told=told), snapshot_at=now)
        if bookmark is not None and has_snapshot:
            snapshot = self._snapshot(number, bookmark)
            held.earlier = snapshot.earlier
            self._restore(held, snapshot)
        else:
            held.snapshot_at = float("-inf")
            held.stage.restore(None, start, ())
        self._replay(held, committed)
        held.stage.recovered(told)
        return held

    def _empty(self, number: int, position: int) -> Held:
        stage = self._make_stage(number)
        stage.restore(None, position, ())
        return Held(number, stage, position, Bookmark(told=position))

    def _without(self, number: int, position: int, reason: str) -> Held:
        if not self._cold_start:
            raise StreamTruncated(self._topic, number, reason)
        return self._empty(number, position)

    def _snapshot(self, number: int, bookmark: Bookmark) -> Snapshot:
        key = state_key(self._group, self._topic, number)
        topic = self._links.settings.topic_state
        partition = number % self._links.partitions(topic)
        # the bookmark is committed, so this is, too: others' open transactions need not be waited for
        parts = self._links.read(topic, partition, bookmark.at, None, committed=False)
        return joined(key, bookmark, (message for part in parts for message in part))

    def _restore(self, held: Held, snapshot: Snapshot) -> None:
        try:
            held.stage.restore(snapshot.stage, snapshot.offset, snapshot.earlier)
        except (DataError, SchemaMismatch) as error:
            raise SchemaMismatch(
                f"group {self._group} has worked on {self._topic} otherwise: {error}",
                remedy="give what is new a --group of its own",
            ) from error

    def _replay(self, held: Held, committed: int) -> None:
        for part in self._links.read(self._topic, held.number, held.position, committed):
            if part:
                held.stage.take(part)
                held.position = part[-1].offset() + 1
                held.since += len(part)
                self._on_messages(len(part))
        held.position = committed


def offset_of(place: Any) -> int:
    """The committed offset of a ``TopicPartition``, -1 for none."""
    return max(-1, int(place.offset))
