"""Consume, process, produce: each message's result exactly once, whatever dies in between.

A batch is a transaction: what it made, its dead letters, its snapshots and its offsets are committed together or not
at all. A worker that lost its place in the group cannot commit (KIP-447), so a partition has one master at a time.
After a transaction is taken back, and whenever a partition arrives, its state is rebuilt from what is committed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import TopicPartition

from volspike.errors import WorkerFenced
from volspike.streams.clients import stream_error
from volspike.streams.commits import Commits
from volspike.streams.intake import Intake
from volspike.streams.links import Links, close_quietly
from volspike.streams.metrics import WorkerMetrics
from volspike.streams.partitions import Partitions
from volspike.streams.plan import WorkerPlan
from volspike.streams.progress import Tally, WorkerProgress
from volspike.streams.recovery import Held, Recovery
from volspike.streams.stage import MakeStage
from volspike.streams.transactions import Aborted, Transactions

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
