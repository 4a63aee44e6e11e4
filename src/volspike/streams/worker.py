"""The Kafka worker: consume, process, produce, with each result written exactly once.

A batch is a transaction: its results, dead letters, snapshots and offsets are committed together or not at all. A
worker that was removed from the group cannot commit (KIP-447), so a partition has one owner at a time. After an abort,
and whenever a partition is assigned, its state is rebuilt from the last commit.

    poll → process → produce results and dead letters → commit with offsets and due snapshots
      ↑                                                   │ aborted
      └────── rewind to the committed state ◀─────────────┘
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException, TopicPartition

from volspike.errors import StreamTruncated, WorkerFenced
from volspike.streams.clients import KafkaSettings, stream_error
from volspike.streams.metrics import WorkerMetrics, WorkerProgress, WorkerTally
from volspike.streams.state import (
    AssignedPartition,
    Bookmark,
    MakeStage,
    Recovery,
    StageOutput,
    WorkerPlan,
    committed_offset,
    snapshot_chunks,
    state_key,
)
from volspike.streams.transactions import (
    ASK_S,
    Aborted,
    Clients,
    Transactions,
    close_quietly,
    is_transient,
    retry_pauses,
)
from volspike.streams.wire import dead_letter_headers

IDLE_S: Final = 0.1
"""Longest wait of a poll for a first message, and so the longest delay of a stop."""


class Partitions:
    """The partitions of ``topic`` that are assigned to a worker, each with its stage.

    Args:
        should_stop: whether to stop retrying when the cluster does not answer.
        sleep: waits for so many seconds between two attempts, and after an error.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: str,
        recovery: Recovery,
        *,
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._sleep = sleep
        self._topic = topic
        self._recovery = recovery
        self._should_stop = should_stop
        self._clock = clock
        self._held: dict[int, AssignedPartition] = {}

    def get(self, number: int) -> AssignedPartition | None:
        """The partition of this number; None if it is not assigned."""
        return self._held.get(number)

    def all(self) -> list[AssignedPartition]:
        """All assigned partitions."""
        return list(self._held.values())

    def recover(self, consumer: Any, numbers: Iterable[int]) -> list[TopicPartition]:
        """Restores partitions to their committed offsets; returns the position from which each is to be read.

        Raises:
            StreamTruncated, SchemaMismatch: as ``Recovery.recover`` does.
            StreamError: the cluster refuses, or the worker is to stop.
        """
        places = [TopicPartition(self._topic, number) for number in numbers]
        for place in self._committed(consumer, places) if places else ():
            partition = self._recovery.recover(place.partition, committed_offset(place), place.metadata, self._clock())
            self._held[place.partition] = partition
        return [TopicPartition(self._topic, place.partition, self._held[place.partition].position) for place in places]

    def rewind(self, consumer: Any) -> None:
        """Returns to the committed state. Lost partitions are released by the next poll, which reports them."""
        for place in self.recover(consumer, [place.partition for place in consumer.assignment()]):
            try:
                consumer.seek(place)
            except KafkaException:  # it was assigned a moment ago and is not being fetched yet
                consumer.incremental_unassign([place])
                consumer.incremental_assign([place])

    def poll(self, consumer: Any, most: int, wait_s: float) -> list[tuple[AssignedPartition, list[Any]]]:
        """The next messages of each partition, at most ``most``; after the first one, the poll goes on for ``wait_s``.

        Messages of a partition that was revoked meanwhile are dropped: its next owner receives them again.

        Raises:
            StreamTruncated: messages were deleted before they were read.
            StreamError: the cluster refuses.
        """
        first = consumer.consume(1, IDLE_S)
        owners = dict(self._held)
        if not first:
            return []
        rest = consumer.consume(most - 1, max(0.0, wait_s)) if most > 1 else []
        batches: dict[int, list[Any]] = {}
        expected: dict[int, int] = {}
        has_failed = False
        for place, message in enumerate((*first, *rest)):
            error = message.error()
            number = message.partition()
            if error is not None:
                has_failed |= self._handle_error(error, number)
                continue
            partition = self._held.get(number)
            if partition is None or (place == 0 and owners.get(number) is not partition):
                continue
            offset = message.offset()
            if offset < expected.get(number, partition.position):
                continue
            expected[number] = offset + 1
            batches.setdefault(number, []).append(message)
            partition.has_ended = False
        if has_failed and not batches:
            self._sleep(IDLE_S)  # an error is returned at once, where a silent topic waits
        return [(self._held[number], batch) for number, batch in batches.items() if number in self._held]

    def _handle_error(self, error: Any, number: int) -> bool:
        """Handles an error that the consumer returns in place of a message; whether it is one that will disappear."""
        name = error.name()
        if name == "_PARTITION_EOF":
            if (partition := self._held.get(number)) is not None:
                partition.has_ended = True
            return False
        if name in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
            reason = "the log was truncated before it was read, or the topic was recreated"
            raise StreamTruncated(self._topic, number, reason)
        if error.fatal() or not is_transient(error):
            raise stream_error(self._settings, error, self._topic)
        return True

    def release(self, numbers: Iterable[int]) -> None:
        """Closes those of these partitions that are assigned; uncommitted state is discarded."""
        for number in numbers:
            partition = self._held.pop(number, None)
            if partition is not None:
                partition.stage.close()

    def release_all(self) -> None:
        """Closes all partitions."""
        self.release(list(self._held))

    def _committed(self, consumer: Any, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        """The committed offsets; retries while no broker answers or an open transaction may still change them."""
        pauses = retry_pauses()
        while True:
            try:
                found: list[TopicPartition] = consumer.committed(list(places), ASK_S)
            except KafkaException as error:
                cause = error.args[0]
                if self._should_stop() or not is_transient(cause):
                    raise stream_error(self._settings, cause, self._topic) from error
                self._sleep(next(pauses))
            else:
                return found


_NOW: Final = 0


class Checkpoints:
    """Commits offsets with dead letters and snapshots; ``state_partitions`` counts those of the state topic."""

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

    def due_snapshots(self, assigned: Sequence[AssignedPartition]) -> list[AssignedPartition]:
        """The partitions whose snapshot is due."""
        now, plan = self._clock(), self._plan
        return [
            partition
            for partition in assigned
            if now - partition.snapshot_at >= plan.snapshot_s or partition.since >= plan.snapshot_rows
        ]

    def send_dead_letters(self, partition: AssignedPartition, messages: Sequence[Any], output: StageOutput) -> None:
        """Sends the unreadable messages of a batch as dead letters with their key, value and time."""
        for place, reason in output.dead:
            message = messages[place]
            headers = dead_letter_headers(reason, self._plan.topic_in, partition.number, message.offset())
            _, timestamp = message.timestamp()
            self._transactions.produce_one(
                self._settings.topic_dead, message.key(), message.value(), max(_NOW, timestamp), headers
            )

    def commit(
        self,
        assigned: Sequence[AssignedPartition],
        due: Sequence[AssignedPartition],
        alerted: Mapping[int, int],
        consumer: Any,
    ) -> None:
        """Commits the open transaction with the positions of ``assigned`` and the snapshots of those in ``due``.

        ``alerted`` is, by partition, the offset before which alerts are sent.

        Raises:
            Aborted: as ``Transactions.commit`` does.
        """
        places = {partition.number: self._write_snapshot(partition) for partition in due}
        if places:
            self._transactions.flush()
        bookmarks = {
            partition.number: _bookmark(partition, alerted[partition.number], places.get(partition.number))
            for partition in assigned
        }
        offsets = [
            TopicPartition(
                self._plan.topic_in, partition.number, partition.position, bookmarks[partition.number].encode()
            )
            for partition in assigned
        ]
        self._transactions.commit(offsets, consumer)
        now = self._clock()
        for partition in assigned:
            partition.bookmark = bookmarks[partition.number]
            partition.stage.after_commit()
        for partition in due:
            partition.earlier, partition.since, partition.snapshot_at = (*partition.earlier, partition.position), 0, now

    def _write_snapshot(self, partition: AssignedPartition) -> tuple[list[int], int]:
        """Queues a snapshot; the offset of its first chunk is known once it is delivered."""
        key = state_key(self._plan.group, self._plan.topic_in, partition.number)
        chunks = snapshot_chunks(
            key, partition.position, partition.earlier, partition.stage.snapshot(partition.position)
        )
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
                partition=partition.number % self._state_partitions,
                on_delivery=keep if number == 0 else None,
            )
        return at, len(chunks)


def _bookmark(partition: AssignedPartition, alerted: int, place: tuple[list[int], int] | None) -> Bookmark:
    """The metadata of the offset; ``place`` is the offset and number of chunks of a new snapshot."""
    if place is None:
        return msgspec.structs.replace(partition.bookmark, alerted=alerted)
    at, chunks = place
    # a snapshot that was not delivered has no offset; the commit then fails with the reason
    return Bookmark(alerted=alerted, snapshot=partition.position, at=at[0] if at else -1, chunks=chunks)


MOST_CONSECUTIVE_ABORTS: Final = 10
LEAVE_ATTEMPTS: Final = 3
AWAITED_S: Final = 5.0
"""How long a worker with ``finish`` waits for partitions: one that joins others is assigned none at first."""


class Worker:
    """One member of a consumer group, with a stage for each of its partitions.

    Args:
        stop: whether to end after the current batch; called several times a second.
        show: called with the progress about twice a second.
        sleep: waits for so many seconds between two attempts.
    """

    def __init__(
        self,
        clients: Clients,
        plan: WorkerPlan,
        make_stage: MakeStage,
        *,
        stop: Callable[[], bool] = lambda: False,
        show: Callable[[WorkerProgress], None] = lambda _: None,
        metrics: WorkerMetrics | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        settings = clients.settings
        self._sleep = sleep
        self._abort_pauses = retry_pauses()
        self._clients = clients
        self._settings = settings
        self._plan = plan
        self._stop = stop
        self._clock = clock
        self._tally = WorkerTally(show, metrics or WorkerMetrics(), clock)
        recovery = Recovery(
            clients,
            plan.group,
            plan.topic_in,
            make_stage,
            cold_start=plan.cold_start,
            on_messages=self._tally.count_recovered,
        )
        self._partitions = Partitions(settings, plan.topic_in, recovery, should_stop=stop, clock=clock, sleep=sleep)
        self._transactions = Transactions(
            settings,
            lambda: clients.producer(f"{plan.group}-{plan.name}"),
            should_stop=stop,
            clock=clock,
            sleep=sleep,
        )
        self._checkpoints = Checkpoints(settings, plan, self._transactions, 1, clock=clock)
        self._consumer: Any = None
        self._assigned_at: float | None = None
        self._is_closing = False
        self._due = clock()
        self._consecutive_aborts = 0

    @property
    def progress(self) -> WorkerProgress:
        """The progress so far."""
        return self._tally.progress

    def run(self) -> WorkerProgress:
        """Works until it is stopped; then commits with snapshots and leaves the group.

        Raises:
            TopicMissing, BrokerUnavailable, StreamError: the cluster cannot be used.
            StreamTruncated: required messages were deleted.
            WorkerFenced: another worker of the same name has taken over.
        """
        plan, settings = self._plan, self._settings
        for topic in (plan.topic_in, plan.topic_out, settings.topic_dead):
            self._clients.partitions(topic)
        states = self._clients.partitions(settings.topic_state)
        self._checkpoints = Checkpoints(settings, plan, self._transactions, states, clock=self._clock)
        self._tally.begin()
        try:
            self._transactions.start()
            self._consumer = self._clients.consumer(plan.group, reports_end=plan.finish)
            self._consumer.subscribe(
                [plan.topic_in], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop() and not self._has_finished():
                self._step()
                self._tally.update(self._partitions.all(), self._consumer, plan.topic_in)
            self._leave()
        finally:
            self._close()
        self._tally.report((), self._consumer, plan.topic_in)
        return self.progress

    def _leave(self) -> None:
        """Commits with snapshots; after an abort the state is rebuilt and the commit is tried again."""
        for _ in range(LEAVE_ATTEMPTS):
            if self._commit_snapshots(self._partitions.all()):
                self.progress.is_settled = True
                return
            self._partitions.rewind(self._consumer)

    def _has_finished(self) -> bool:
        if not self._plan.finish or self._assigned_at is None:
            return False
        assigned = self._partitions.all()
        return (
            all(partition.has_ended for partition in assigned)
            if assigned
            else self._clock() - self._assigned_at >= AWAITED_S
        )

    def _step(self) -> None:
        batches = self._partitions.poll(self._consumer, self._plan.commit_rows, self._due - self._clock())
        if not batches:
            return
        try:
            self._transact(batches)
        except Aborted as aborted:
            self._abort(aborted)
        except WorkerFenced:
            if not self._transactions.has_timed_out:
                raise
            self._partitions.release_all()  # the cluster has aborted our transaction because it was open for too long
            self._transactions.start()
            self._partitions.rewind(self._consumer)
        else:
            if self._consecutive_aborts:
                self._consecutive_aborts, self._abort_pauses = 0, retry_pauses()

    def _transact(self, batches: Sequence[tuple[AssignedPartition, list[Any]]]) -> None:
        """Processes the messages and commits their results, dead letters, offsets and due snapshots."""
        self._transactions.begin()
        taken = results = dead = 0
        for partition, messages in batches:
            output = partition.stage.process(messages)
            self._transactions.produce(
                self._plan.topic_out, output.keys, output.values, output.timestamps_ms, output.headers
            )
            self._checkpoints.send_dead_letters(partition, messages, output)
            partition.position = messages[-1].offset() + 1
            partition.since += len(messages)
            taken, results, dead = taken + len(messages), results + len(output.values), dead + len(output.dead)
        assigned = [partition for partition, _ in batches]
        self._commit(
            assigned,
            self._checkpoints.due_snapshots(assigned),
            {partition.number: part[0].offset() for partition, part in batches},
        )
        self._tally.count_commit(taken, results, dead)

    def _commit(
        self, assigned: Sequence[AssignedPartition], due: Sequence[AssignedPartition], alerted: dict[int, int]
    ) -> None:
        began = self._clock()
        self._checkpoints.commit(assigned, due, alerted, self._consumer)
        now = self._clock()
        self._due = now + self._plan.commit_ms / 1000
        self._tally.observe_commit(now - began)

    def _abort(self, aborted: Aborted) -> None:
        """Aborts the transaction and returns to the committed state; raises if one cause aborts again and again."""
        self._consecutive_aborts += 1
        self._tally.count_abort()
        self._partitions.release_all()
        self._transactions.abort()
        if self._consecutive_aborts >= MOST_CONSECUTIVE_ABORTS and aborted.cause is not None:
            raise stream_error(self._settings, aborted.cause, self._plan.topic_out) from aborted
        self._sleep(next(self._abort_pauses))
        self._partitions.rewind(self._consumer)

    # --- rebalancing

    def _on_assign(self, _: Any, places: Sequence[TopicPartition]) -> None:
        if self._is_closing:  # a worker that leaves accepts no partitions
            return
        if places or self._assigned_at is None:  # an empty assignment may be repeated
            self._assigned_at = self._clock()
        found = self._partitions.recover(self._consumer, [place.partition for place in places])
        self._consumer.incremental_assign(found)

    def _on_revoke(self, _: Any, places: Sequence[TopicPartition]) -> None:
        assigned = [self._partitions.get(place.partition) for place in places]
        self._commit_snapshots([partition for partition in assigned if partition is not None])
        self._partitions.release([place.partition for place in places])

    def _on_lost(self, _: Any, places: Sequence[TopicPartition]) -> None:
        self._partitions.release([place.partition for place in places])

    def _commit_snapshots(self, assigned: Sequence[AssignedPartition]) -> bool:
        """Commits snapshots, so that the next owner need not process messages again; nothing is lost if that fails."""
        changed = [
            partition for partition in assigned if partition.since or partition.bookmark.alerted < partition.position
        ]
        if not changed:
            return True
        try:
            self._transactions.begin()
            self._commit(changed, changed, {partition.number: partition.position for partition in changed})
        except Aborted:
            self._transactions.abort()
            self._partitions.release([partition.number for partition in changed])
            return False
        return True

    def _close(self) -> None:
        self._is_closing = True
        self._transactions.close()
        self._partitions.release_all()
        if self._consumer is not None:
            close_quietly(self._consumer)
