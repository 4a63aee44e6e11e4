"""A partition's stage brought to its committed offset: the snapshot first, then the messages since, in silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from volspike.errors import DataError, SchemaMismatch, StreamTruncated
from volspike.streams.links import Links
from volspike.streams.snapshots import Bookmark, Snapshot, joined, read_bookmark, state_key
from volspike.streams.stage import MakeStage, Stage


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
