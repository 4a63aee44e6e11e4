"""The partitions that a worker has: brought to what is committed when they come, closed when they go.

What a worker takes next: the messages that came, by partition, and what the consumer says in their place.

What a transaction carries besides results: dead letters, snapshots, and the offsets that make all of it one step.

Consume, process, produce: each message's result exactly once, whatever dies in between.

A batch is a transaction: what it made, its dead letters, its snapshots and its offsets are committed together or not
at all. A worker that lost its place in the group cannot commit (KIP-447), so a partition has one master at a time.
After a transaction is taken back, and whenever a partition arrives, its state is rebuilt from what is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException, TopicPartition

from volspike.errors import StreamTruncated, WorkerFenced
from volspike.streams.clients import KafkaSettings, stream_error
from volspike.streams.metrics import Tally, WorkerMetrics, WorkerProgress
from volspike.streams.state import (
    Bookmark,
    Held,
    Made,
    MakeStage,
    Recovery,
    WorkerPlan,
    chunks_of,
    offset_of,
    state_key,
)
from volspike.streams.transactions import ASK_S, Aborted, Links, Transactions, close_quietly, is_passing
from volspike.streams.wire import dead_headers


class Partitions:
    """The partitions of ``topic`` that are held, each with its stage.

    Args:
        gives_up: whether to stop asking a cluster that does not answer.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        recovery: Recovery,
        *,
        gives_up: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._recovery = recovery
        self._gives_up = gives_up
        self._clock = clock
        self._held: dict[int, Held] = {}

    def get(self, number: int) -> Held | None:
        """The partition of this number, if it is held."""
        return self._held.get(number)

    def all(self) -> list[Held]:
        """All of them."""
        return list(self._held.values())

    def by_number(self) -> dict[int, Held]:
        """All of them as they are now, whatever comes or goes after."""
        return dict(self._held)

    def bring(self, consumer: Any, numbers: Iterable[int]) -> list[TopicPartition]:
        """Takes partitions in at their committed offsets; where each is to be read from.

        Raises:
            StreamTruncated, SchemaMismatch: as ``Recovery.recover`` does.
            StreamError: the cluster refuses, or it was given up.
        """
        places = [TopicPartition(self._topic, number) for number in numbers]
        for place in self._committed(consumer, places) if places else ():
            held = self._recovery.recover(place.partition, offset_of(place), place.metadata, self._clock())
            self._held[place.partition] = held
        return [TopicPartition(self._topic, place.partition, self._held[place.partition].position) for place in places]

    def bring_back(self, consumer: Any) -> None:
        """Goes back to what is committed. Partitions that are lost, which only the next poll tells, go then."""
        for place in self.bring(consumer, [place.partition for place in consumer.assignment()]):
            try:
                consumer.seek(place)
            except KafkaException:  # it was assigned a moment ago, and is not being read yet
                consumer.incremental_unassign([place])
                consumer.incremental_assign([place])

    def let_go(self, numbers: Iterable[int]) -> None:
        """Closes what of these is held; what is not committed is forgotten."""
        for number in numbers:
            held = self._held.pop(number, None)
            if held is not None:
                held.stage.close()

    def let_all_go(self) -> None:
        """Closes all."""
        self.let_go(list(self._held))

    def _committed(self, consumer: Any, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Waits while a transaction that may yet commit others is open, and while nobody answers."""
        while True:
            try:
                found: list[TopicPartition] = consumer.committed(list(places), ASK_S)
            except KafkaException as error:
                cause = error.args[0]
                if self._gives_up() or not is_passing(cause):
                    raise stream_error(self._settings, cause, self._topic) from error
            else:
                return found


IDLE_S: Final = 0.1
"""How long a poll waits for a first message; also how soon a wish to stop is seen."""


class Intake:
    """Polls for the partitions that are held. At most ``most`` messages come at a time."""

    def __init__(self, settings: KafkaSettings, topic: str, partitions: Partitions, most: int) -> None:
        self._settings = settings
        self._topic = topic
        self._partitions = partitions
        self._most = most

    def poll(self, consumer: Any, wait_s: float) -> list[tuple[Held, list[Any]]]:
        """The next messages of each partition; after a first one, more are awaited for ``wait_s``.

        Those of a partition that went meanwhile are left out: they come again.

        Raises:
            StreamTruncated: messages were deleted before they were read.
            StreamError: the cluster refuses.
        """
        first = consumer.consume(1, IDLE_S)
        owners = self._partitions.by_number()
        if not first:
            return []
        rest = consumer.consume(self._most - 1, max(0.0, wait_s)) if self._most > 1 else []
        batches: dict[int, list[Any]] = {}
        expected: dict[int, int] = {}
        for place, message in enumerate((*first, *rest)):
            error = message.error()
            number = message.partition()
            if error is not None:
                self._refuse(error, number)
                continue
            held = self._partitions.get(number)
            if held is None or (place == 0 and owners.get(number) is not held):
                continue
            offset = message.offset()
            if offset < expected.get(number, held.position):
                continue
            expected[number] = offset + 1
            batches.setdefault(number, []).append(message)
            held.has_ended = False
        found = ((self._partitions.get(number), batch) for number, batch in batches.items())
        return [(held, batch) for held, batch in found if held is not None]

    def _refuse(self, error: Any, number: int) -> None:
        """Acts on what the consumer says instead of a message."""
        name = error.name()
        if name == "_PARTITION_EOF":
            if (held := self._partitions.get(number)) is not None:
                held.has_ended = True
        elif name in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
            reason = "the log was cut before it was read, or is another one"
            raise StreamTruncated(self._topic, number, reason)
        elif error.fatal() or not is_passing(error):
            raise stream_error(self._settings, error, self._topic)


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


ABORTS_IN_A_ROW: Final = 10
LEAVE_ATTEMPTS: Final = 3
AWAITED_S: Final = 5.0
"""How long a worker that is to end at the end waits for partitions: who joins others is given none at first."""


class Worker:
    """One member of a group, with a stage for each partition that it has.

    Args:
        stop: whether to end after the batch at hand; asked several times a second.
        show: told of the progress about twice a second.
    """

    def __init__(
        self,
        links: Links,
        plan: WorkerPlan,
        make_stage: MakeStage,
        *,
        stop: Callable[[], bool] = lambda: False,
        show: Callable[[WorkerProgress], None] = lambda _: None,
        metrics: WorkerMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        settings = links.settings
        self._links = links
        self._settings = settings
        self._plan = plan
        self._stop = stop
        self._clock = clock
        self._tally = Tally(show, metrics or WorkerMetrics(), clock)
        recovery = Recovery(
            links,
            plan.group,
            plan.topic_in,
            make_stage,
            cold_start=plan.cold_start,
            on_messages=self._tally.recovered,
        )
        self._partitions = Partitions(settings, plan.topic_in, recovery, gives_up=stop, clock=clock)
        self._intake = Intake(settings, plan.topic_in, self._partitions, plan.commit_rows)
        self._transactions = Transactions(
            settings, lambda: links.producer(f"{plan.group}-{plan.name}"), gives_up=stop, clock=clock
        )
        self._commits = Commits(settings, plan, self._transactions, 1, clock=clock)
        self._consumer: Any = None
        self._assigned_at: float | None = None
        self._is_closing = False
        self._due = clock()
        self._in_a_row = 0

    @property
    def progress(self) -> WorkerProgress:
        """How far it is."""
        return self._tally.progress

    def run(self) -> WorkerProgress:
        """Works until it is told to stop; then what is at hand is committed with a snapshot, and the group left.

        Raises:
            TopicMissing, BrokerUnavailable, StreamError: the cluster cannot be worked with.
            StreamTruncated: messages that are needed are gone.
            WorkerFenced: another worker of the same name has taken over.
        """
        plan, settings = self._plan, self._settings
        for topic in (plan.topic_in, plan.topic_out, settings.topic_dead):
            self._links.partitions(topic)
        states = self._links.partitions(settings.topic_state)
        self._commits = Commits(settings, plan, self._transactions, states, clock=self._clock)
        self._tally.begin()
        try:
            self._transactions.start()
            self._consumer = self._links.consumer(plan.group, tells_end=plan.finish)
            self._consumer.subscribe(
                [plan.topic_in], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop() and not self._has_finished():
                self._step()
                self._tally.pass_by(self._partitions.all(), self._consumer, plan.topic_in)
            self._leave()
        finally:
            self._close()
        self._tally.tell((), self._consumer, plan.topic_in)
        return self.progress

    def _leave(self) -> None:
        """Commits what is at hand with snapshots; what is taken back meanwhile is rebuilt and tried again."""
        for _ in range(LEAVE_ATTEMPTS):
            if self._settle(self._partitions.all()):
                self.progress.is_settled = True
                return
            self._partitions.bring_back(self._consumer)

    def _has_finished(self) -> bool:
        if not self._plan.finish or self._assigned_at is None:
            return False
        helds = self._partitions.all()
        return all(held.has_ended for held in helds) if helds else self._clock() - self._assigned_at >= AWAITED_S

    def _step(self) -> None:
        batches = self._intake.poll(self._consumer, self._due - self._clock())
        if not batches:
            return
        try:
            self._transact(batches)
        except Aborted as aborted:
            self._take_back(aborted)
        except WorkerFenced:
            if not self._transactions.has_stood_still:
                raise
            self._partitions.let_all_go()  # the cluster has ended our transaction because we stood still
            self._transactions.start()
            self._partitions.bring_back(self._consumer)
        else:
            self._in_a_row = 0

    def _transact(self, batches: Sequence[tuple[Held, list[Any]]]) -> None:
        """Takes the messages and commits everything that follows from them."""
        self._transactions.begin()
        taken = results = dead = 0
        for held, messages in batches:
            made = held.stage.take(messages)
            self._transactions.produce(self._plan.topic_out, made.keys, made.values, made.timestamps_ms, made.headers)
            self._commits.bury(held, messages, made)
            held.position = messages[-1].offset() + 1
            held.since += len(messages)
            taken, results, dead = taken + len(messages), results + len(made.values), dead + len(made.dead)
        helds = [held for held, _ in batches]
        self._commit(helds, self._commits.due(helds), {held.number: part[0].offset() for held, part in batches})
        self._tally.committed(taken, results, dead)

    def _commit(self, helds: Sequence[Held], due: Sequence[Held], told: dict[int, int]) -> None:
        began = self._clock()
        self._commits.commit(helds, due, told, self._consumer)
        now = self._clock()
        self._due = now + self._plan.commit_ms / 1000
        self._tally.ended(now - began)

    def _take_back(self, aborted: Aborted) -> None:
        """Undoes the transaction, here and there; a cause that does not pass is not tried for ever."""
        self._in_a_row += 1
        self._tally.aborted()
        self._partitions.let_all_go()
        self._transactions.abort()
        if self._in_a_row >= ABORTS_IN_A_ROW and aborted.cause is not None:
            raise stream_error(self._settings, aborted.cause, self._plan.topic_out) from aborted
        self._partitions.bring_back(self._consumer)

    # --- partitions that come and go

    def _on_assign(self, _: Any, places: Sequence[TopicPartition]) -> None:
        if self._is_closing:  # who leaves takes nothing up any more
            return
        if places or self._assigned_at is None:  # being told again of nothing is no news
            self._assigned_at = self._clock()
        found = self._partitions.bring(self._consumer, [place.partition for place in places])
        self._consumer.incremental_assign(found)

    def _on_revoke(self, _: Any, places: Sequence[TopicPartition]) -> None:
        helds = [self._partitions.get(place.partition) for place in places]
        self._settle([held for held in helds if held is not None])
        self._partitions.let_go([place.partition for place in places])

    def _on_lost(self, _: Any, places: Sequence[TopicPartition]) -> None:
        self._partitions.let_go([place.partition for place in places])

    def _settle(self, helds: Sequence[Held]) -> bool:
        """Commits snapshots, so that whoever comes next need not read back; nothing is lost where that fails."""
        changed = [held for held in helds if held.since or held.bookmark.told < held.position]
        if not changed:
            return True
        try:
            self._transactions.begin()
            self._commit(changed, changed, {held.number: held.position for held in changed})
        except Aborted:
            self._transactions.abort()
            self._partitions.let_go([held.number for held in changed])
            return False
        return True

    def _close(self) -> None:
        self._is_closing = True
        self._transactions.close()
        self._partitions.let_all_go()
        if self._consumer is not None:
            close_quietly(self._consumer)
