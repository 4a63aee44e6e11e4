"""What a transaction carries besides results: dead letters, snapshots, and the offsets that make all of it one step."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import TopicPartition

from volspike.streams.plan import WorkerPlan
from volspike.streams.recovery import Held
from volspike.streams.settings import KafkaSettings
from volspike.streams.snapshots import Bookmark, chunks_of, state_key
from volspike.streams.stage import Made
from volspike.streams.transactions import Transactions
from volspike.streams.wire import dead_headers

_NOW: Final = 0


class Commits:
    """Ends transactions. ``state_partitions`` is how many the topic of states has."""

    def __init__(
        self,
        settings: KafkaSettings,
        plan: WorkerPlan,
        transactions: Transactions,
        state_partitions: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._transactions = transactions
        self._state_partitions = state_partitions
        self._clock = clock

    def due(self, helds: Sequence[Held]) -> list[Held]:
        """Those whose snapshot is to be made now."""
        now, plan = self._clock(), self._plan
        return [held for held in helds if now - held.snapshot_at >= plan.snapshot_s or held.since >= plan.snapshot_rows]

    def bury(self, held: Held, messages: Sequence[Any], made: Made) -> None:
        """Sends dead letters; they keep their key, value and time."""
        for place, reason in made.dead:
            message = messages[place]
            headers = dead_headers(reason, self._plan.topic_in, held.number, message.offset())
            _, timestamp = message.timestamp()
            self._transactions.produce_one(
                self._settings.topic_dead, message.key(), message.value(), max(_NOW, timestamp), headers
            )

    def commit(self, helds: Sequence[Held], due: Sequence[Held], told: Mapping[int, int], consumer: Any) -> None:
        """Ends the open transaction with the positions of ``helds``, and snapshots of those that are ``due`` one.

        ``told`` is by partition what its bookmark is to say of alerts.

        Raises:
            Aborted: as ``Transactions.commit`` does.
        """
        places = {held.number: self._write_snapshot(held) for held in due}
        if places:
            self._transactions.deliver()
        bookmarks = {held.number: _bookmark(held, told[held.number], places.get(held.number)) for held in helds}
        offsets = [
            TopicPartition(self._plan.topic_in, held.number, held.position, bookmarks[held.number].encoded())
            for held in helds
        ]
        self._transactions.commit(offsets, consumer)
        now = self._clock()
        for held in helds:
            held.bookmark = bookmarks[held.number]
            held.stage.committed()
        for held in due:
            held.earlier, held.since, held.snapshot_at = (*held.earlier, held.position), 0, now

    def _write_snapshot(self, held: Held) -> tuple[list[int], int]:
        """Hands a snapshot over; where its first chunk stands is known once it is delivered."""
        key = state_key(self._plan.group, self._plan.topic_in, held.number)
        chunks = chunks_of(key, held.position, held.earlier, held.stage.snapshot(held.position))
        at: list[int] = []

        def keep(error: Any, message: Any) -> None:
            if error is None:
                at.append(message.offset())

        for number, chunk in enumerate(chunks):
            self._transactions.produce_one(
                self._settings.topic_state,
                chunk.key,
                chunk.value,
                _NOW,
                [],
                partition=held.number % self._state_partitions,
                on_delivery=keep if number == 0 else None,
            )
        return at, len(chunks)


def _bookmark(held: Held, told: int, place: tuple[list[int], int] | None) -> Bookmark:
    """What stands beside the offset; ``place`` is where a new snapshot lies."""
    if place is None:
        return msgspec.structs.replace(held.bookmark, told=told)
    at, chunks = place
    # one that was not delivered stands nowhere; the commit says why
    return Bookmark(told=told, snapshot=held.position, at=at[0] if at else -1, chunks=chunks)
