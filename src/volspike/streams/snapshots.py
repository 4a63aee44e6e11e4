"""Where a stage's state lies: in the compacted topic of states, found by what is committed beside the offset.

A snapshot goes out in the transaction that commits its offset, in chunks that fit into a message. The offset's own
metadata (a *bookmark*) says where its first chunk stands, so that it is read back without searching. What was
committed is the newest bookmark; older snapshots are left to compaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa

from volspike.errors import StreamError
from volspike.streams.stage import Taken

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
