"""Consume, process, produce: each message's result exactly once, whatever dies in between.

A batch is a transaction: what it made, its dead letters, its snapshots and its offsets are committed together or not
at all. A worker that lost its place in the group cannot commit (KIP-447), so a partition has one master at a time.
After a transaction is taken back, and whenever a partition arrives, its state is rebuilt from what is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaException, TopicPartition

from volspike.errors import StreamTruncated, WorkerFenced
from volspike.streams.clients import stream_error
from volspike.streams.links import ASK_S, Links, close_quietly, is_passing
from volspike.streams.metrics import WorkerMetrics
from volspike.streams.recovery import Held, Recovery, offset_of
from volspike.streams.snapshots import Bookmark, chunks_of, state_key
from volspike.streams.stage import Made, MakeStage
from volspike.streams.transactions import Aborted, Transactions
from volspike.streams.wire import dead_headers

IDLE_S: Final = 0.1
"""How long a poll waits for a first message; also how soon a wish to stop is seen."""

SHOW_EVERY_S: Final = 0.5
ABORTS_IN_A_ROW: Final = 10
LEAVE_ATTEMPTS: Final = 3
_NOW: Final = 0


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
    commit_rows: int = 5_000
    snapshot_rows: int = 100_000
    snapshot_s: float = 30.0
    cold_start: bool = False
    finish: bool = False
    """End once everything that lies in the topic is taken."""


@dataclass(slots=True)
class WorkerProgress:
    """How far a worker is; ``lag`` counts offsets that wait in its partitions."""

    messages: int = 0
    results: int = 0
    dead: int = 0
    transactions: int = 0
    aborts: int = 0
    recovered: int = 0
    lag: int = 0
    partitions: tuple[int, ...] = ()
    seconds: float = 0.0
    is_settled: bool = False
    """Whether the end was in order: everything that was taken is committed, with snapshots."""

    @property
    def rate(self) -> float:
        """Messages a second since the start."""
        return self.messages / self.seconds if self.seconds > 0 else 0.0


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
        self.progress = WorkerProgress()
        self._links = links
        self._settings = links.settings
        self._plan = plan
        self._stop = stop
        self._show = show
        self._metrics = metrics or WorkerMetrics()
        self._clock = clock
        self._recovery = Recovery(
            links, plan.group, plan.topic_in, make_stage, cold_start=plan.cold_start, on_messages=self._count_recovered
        )
        self._transactions = Transactions(
            self._settings,
            lambda: links.producer(f"{plan.group}-{plan.name}"),
            gives_up=stop,
            clock=clock,
        )
        self._consumer: Any = None
        self._held: dict[int, Held] = {}
        self._was_assigned = False
        self._due = clock()
        self._in_a_row = 0
        self._state_partitions = 1

    def run(self) -> WorkerProgress:
        """Works until it is told to stop; then what is at hand is committed with a snapshot, and the group left.

        Raises:
            TopicMissing, BrokerUnavailable, StreamError: the cluster cannot be worked with.
            StreamTruncated: messages that are needed are gone.
            WorkerFenced: another worker of the same name has taken over.
        """
        plan = self._plan
        for topic in (plan.topic_in, plan.topic_out, self._settings.topic_dead):
            self._links.partitions(topic)
        self._state_partitions = self._links.partitions(self._settings.topic_state)
        began = shown = self._clock()
        try:
            self._transactions.start()
            self._consumer = self._links.consumer(plan.group, tells_end=plan.finish)
            self._consumer.subscribe(
                [plan.topic_in], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._stop() and not self._has_finished():
                self._step()
                now = self._clock()
                self.progress.seconds = now - began
                if now - shown >= SHOW_EVERY_S:
                    shown = now
                    self._tell()
            self._leave()
        finally:
            self._close()
        self._tell()
        return self.progress

    def _leave(self) -> None:
        """Commits what is at hand with snapshots; what is taken back meanwhile is rebuilt and tried again."""
        for _ in range(LEAVE_ATTEMPTS):
            if self._settle(list(self._held.values())):
                self.progress.is_settled = True
                return
            self._recover_all()

    def _has_finished(self) -> bool:
        return self._plan.finish and self._was_assigned and all(held.has_ended for held in self._held.values())

    def _step(self) -> None:
        batches = self._poll()
        if not batches:
            return
        try:
            self._transact(batches)
        except Aborted as aborted:
            self._take_back(aborted)
        except WorkerFenced:
            if not self._transactions.has_stood_still:
                raise
            self._forget_all()  # the cluster has ended our transaction because we stood still, nobody has our name
            self._transactions.start()
            self._recover_all()
        else:
            self._in_a_row = 0

    # --- reading

    def _poll(self) -> list[tuple[Held, list[Any]]]:
        """The next messages of each partition. Those of one that went meanwhile are left out: they come again."""
        first = self._consumer.consume(1, IDLE_S)
        owners = dict(self._held)
        if not first:
            return []
        rest = self._consumer.consume(self._plan.commit_rows - 1, max(0.0, self._due - self._clock()))
        batches: dict[int, list[Any]] = {}
        expected: dict[int, int] = {}
        for place, message in enumerate((*first, *rest)):
            error = message.error()
            number = message.partition()
            if error is not None:
                self._refuse(error, number)
                continue
            held = self._held.get(number)
            if held is None or (place == 0 and owners.get(number) is not held):
                continue
            offset = message.offset()
            if offset < expected.get(number, held.position):
                continue
            expected[number] = offset + 1
            batches.setdefault(number, []).append(message)
            held.has_ended = False
        return [(self._held[number], batch) for number, batch in batches.items()]

    def _refuse(self, error: Any, number: int) -> None:
        """Acts on what the consumer says instead of a message."""
        name = error.name()
        if name == "_PARTITION_EOF":
            if number in self._held:
                self._held[number].has_ended = True
        elif name in {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE"}:
            reason = "the log was cut before it was read, or is another one"
            raise StreamTruncated(self._plan.topic_in, number, reason)
        elif error.fatal() or not is_passing(error):
            raise stream_error(self._settings, error, self._plan.topic_in)

    # --- writing

    def _transact(self, batches: Sequence[tuple[Held, list[Any]]]) -> None:
        """Takes the messages and commits everything that follows from them."""
        self._transactions.begin()
        taken = results = dead = 0
        for held, messages in batches:
            made = held.stage.take(messages)
            self._transactions.produce(self._plan.topic_out, made.keys, made.values, made.timestamps_ms, made.headers)
            self._bury(held, messages, made)
            held.position = messages[-1].offset() + 1
            held.since += len(messages)
            taken, results, dead = taken + len(messages), results + len(made.values), dead + len(made.dead)
        due = [held for held, _ in batches if self._wants_snapshot(held)]
        firsts = {held.number: messages[0].offset() for held, messages in batches}
        self._commit([held for held, _ in batches], due, firsts)
        self._count(taken, results, dead)

    def _wants_snapshot(self, held: Held) -> bool:
        is_late = self._clock() - held.snapshot_at >= self._plan.snapshot_s
        return is_late or held.since >= self._plan.snapshot_rows

    def _commit(self, helds: Sequence[Held], due: Sequence[Held], told: dict[int, int]) -> None:
        """Ends the transaction with the positions of ``helds``, and snapshots of those that are due one."""
        began = self._clock()
        places = {held.number: self._write_snapshot(held) for held in due}
        if places:
            self._transactions.deliver()
        bookmarks = {}
        for held in helds:
            bookmark = msgspec.structs.replace(held.bookmark, told=told[held.number])
            if held.number in places:
                at, chunks = places[held.number]
                if not at:  # not delivered; the commit says why
                    at.append(-1)
                bookmark = Bookmark(told=bookmark.told, snapshot=held.position, at=at[0], chunks=chunks)
            bookmarks[held.number] = bookmark
        offsets = [
            TopicPartition(self._plan.topic_in, held.number, held.position, bookmarks[held.number].encoded())
            for held in helds
        ]
        self._transactions.commit(offsets, self._consumer)
        now = self._clock()
        self._due = now + self._plan.commit_ms / 1000
        self._metrics.commit_seconds.observe(now - began)
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

    def _bury(self, held: Held, messages: Sequence[Any], made: Made) -> None:
        """Dead letters keep their key, value and time."""
        for place, reason in made.dead:
            message = messages[place]
            headers = dead_headers(reason, self._plan.topic_in, held.number, message.offset())
            _, timestamp = message.timestamp()
            self._transactions.produce_one(
                self._settings.topic_dead, message.key(), message.value(), max(_NOW, timestamp), headers
            )

    # --- partitions that come and go

    def _on_assign(self, _: Any, places: Sequence[TopicPartition]) -> None:
        self._was_assigned = True
        self._consumer.incremental_assign(self._recover([place.partition for place in places]))

    def _on_revoke(self, _: Any, places: Sequence[TopicPartition]) -> None:
        helds = [self._held[place.partition] for place in places if place.partition in self._held]
        self._settle(helds)
        self._forget(places)

    def _on_lost(self, _: Any, places: Sequence[TopicPartition]) -> None:
        self._forget(places)

    def _forget(self, places: Sequence[TopicPartition]) -> None:
        for place in places:
            held = self._held.pop(place.partition, None)
            if held is not None:
                held.stage.close()

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
            for held in changed:
                held.stage.close()
                self._held.pop(held.number, None)
            return False
        return True

    def _take_back(self, aborted: Aborted) -> None:
        """Undoes the transaction, here and there; a cause that does not pass is not tried for ever."""
        self._in_a_row += 1
        self.progress.aborts += 1
        self._metrics.aborts.inc()
        self._forget_all()
        self._transactions.abort()
        if self._in_a_row >= ABORTS_IN_A_ROW and aborted.cause is not None:
            raise stream_error(self._settings, aborted.cause, self._plan.topic_out) from aborted
        self._recover_all()

    def _forget_all(self) -> None:
        for held in self._held.values():
            held.stage.close()
        self._held.clear()

    def _recover_all(self) -> None:
        """Goes back to what is committed. Partitions that are lost, which only the next poll tells, go then."""
        for place in self._recover([place.partition for place in self._consumer.assignment()]):
            try:
                self._consumer.seek(place)
            except KafkaException:  # it was assigned a moment ago, and is not being read yet
                self._consumer.incremental_unassign([place])
                self._consumer.incremental_assign([place])

    def _recover(self, numbers: Sequence[int]) -> list[TopicPartition]:
        """Brings partitions to their committed offsets; where each is to be read from."""
        places = [TopicPartition(self._plan.topic_in, number) for number in numbers]
        for place in self._committed(places) if places else ():
            held = self._recovery.recover(place.partition, offset_of(place), place.metadata, self._clock())
            self._held[place.partition] = held
        return [TopicPartition(self._plan.topic_in, number, self._held[number].position) for number in numbers]

    def _committed(self, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Waits while a transaction that may yet commit others is open, and while nobody answers."""
        while True:
            try:
                found: list[TopicPartition] = self._consumer.committed(list(places), ASK_S)
            except KafkaException as error:
                cause = error.args[0]
                if self._stop() or not is_passing(cause):
                    raise stream_error(self._settings, cause, self._plan.topic_in) from error
            else:
                return found

    # --- telling

    def _count(self, taken: int, results: int, dead: int) -> None:
        progress, metrics = self.progress, self._metrics
        progress.messages += taken
        progress.results += results
        progress.dead += dead
        progress.transactions += 1
        metrics.messages.inc(taken)
        metrics.results.inc(results)
        metrics.dead.inc(dead)

    def _count_recovered(self, messages: int) -> None:
        self.progress.recovered += messages
        self._metrics.recovered.inc(messages)

    def _tell(self) -> None:
        """Shows how it goes; the partitions' ends are those that the last fetches told."""
        lags = {}
        for held in self._held.values():
            place = TopicPartition(self._plan.topic_in, held.number)
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            lags[held.number] = max(0, high - held.position)
        self.progress.lag = sum(lags.values())
        self.progress.partitions = tuple(sorted(self._held))
        self._metrics.set_lag(lags)
        self._metrics.partitions.set(len(lags))
        self._show(self.progress)

    def _close(self) -> None:
        self._transactions.close()
        self._forget_all()
        if self._consumer is not None:
            close_quietly(self._consumer)
