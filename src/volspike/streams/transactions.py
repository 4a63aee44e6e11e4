"""The transactions of a worker, and its Kafka clients configured for exactly-once processing.

A client error has one of three consequences: a *retriable* one is retried, which has the same effect as one call; one
that *requires an abort* aborts the transaction (``Aborted``), and the worker returns to the committed state; after a
*fatal* one this producer may no longer write.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Final, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from volspike.errors import StreamError, WorkerFenced
from volspike.streams.clients import KafkaSettings, open_consumer, open_producer, require_topic, stream_error
from volspike.streams.wire import Headers

TRANSACTION_TIMEOUT_S: Final = 10.0
"""Longest time that a transaction may stay open. Readers wait this long for the transaction of a crashed worker."""

ATTEMPT_S: Final = 5.0
STUCK_AFTER_S: Final = 7.5
"""A call with the timeout ``ATTEMPT_S`` that takes this long will never return."""

SERVE_EVERY: Final = 1_000
_ROOM_S: Final = 0.05

T = TypeVar("T")


class Aborted(Exception):
    """The transaction was aborted; ``cause`` is the reason, None if this worker has left the group."""

    def __init__(self, cause: KafkaError | None = None) -> None:
        self.cause = cause
        super().__init__("not a member of the group" if cause is None else cause.str())


class Transactions:
    """The transactional producer of one worker.

    Args:
        open_producer: returns a producer with the worker's ``transactional.id``.
        should_stop: whether to stop retrying; called after every attempt.
        clock: returns seconds.
        sleep: waits for so many seconds between two attempts.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        open_producer: Callable[[], Any],
        *,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._sleep = sleep
        self._open = open_producer
        self._should_stop = should_stop
        self._clock = clock
        self._began = clock()
        self._is_open = False
        self._is_stuck = False
        self._producer: Any = None

    def start(self) -> None:
        """Opens the producer; aborts the open transaction of an earlier producer of this name and fences that producer.

        Raises:
            StreamError: the cluster refuses, or the worker was stopped while no broker answered.
        """
        self._is_open = self._is_stuck = False
        self._producer = self._open()
        self._call(lambda: self._producer.init_transactions(ATTEMPT_S))

    @property
    def has_timed_out(self) -> bool:
        """Whether the last transaction was open for so long that the cluster has aborted it."""
        return self._clock() - self._began >= TRANSACTION_TIMEOUT_S

    def begin(self) -> None:
        """Begins a transaction."""
        self._began = self._clock()
        self._call(self._producer.begin_transaction)
        self._is_open = True

    def produce(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Headers,
    ) -> None:
        """Queues messages for one topic; waits while the queue is full."""
        produce = self._producer.produce
        headers_or_none = headers or None
        for number, (key, value, at) in enumerate(zip(keys, values, timestamps_ms, strict=True)):
            try:
                produce(topic, value, key, timestamp=at, headers=headers_or_none)
            except (BufferError, KafkaException):
                self.produce_one(topic, key, value, at, headers)
            if number % SERVE_EVERY == 0:
                self._producer.poll(0)

    def produce_one(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        timestamp_ms: int,
        headers: Headers,
        *,
        partition: int = -1,
        on_delivery: Callable[[Any, Any], None] | None = None,
    ) -> None:
        """Queues one message, for the given partition or for that of its key (-1)."""
        more: dict[str, Any] = {"partition": partition} if partition >= 0 else {}
        if on_delivery is not None:
            more["on_delivery"] = on_delivery

        def attempt() -> None:
            while True:
                try:
                    self._producer.produce(topic, value, key, timestamp=timestamp_ms, headers=headers or None, **more)
                except BufferError:
                    self._producer.poll(_ROOM_S)
                else:
                    return

        self._call(attempt)

    def flush(self) -> None:
        """Waits until all queued messages are delivered or have failed."""
        while self._producer.flush(ATTEMPT_S) and not self._should_stop():
            pass

    def commit(self, offsets: Sequence[Any], consumer: Any) -> None:
        """Commits the transaction together with ``offsets`` if ``consumer`` is still a member of its group.

        The member id is read after the group metadata: a consumer that was removed from the group has none until its
        next poll, and the brokers accept metadata without a member without checking the group.

        Raises:
            Aborted: nothing is committed, or the outcome is unknown; the committed offsets show which.
        """
        metadata = consumer.consumer_group_metadata()
        if not consumer.memberid():
            raise Aborted
        self._call(lambda: self._send_offsets(list(offsets), metadata))
        self._call(lambda: self._producer.commit_transaction(ATTEMPT_S))
        self._is_open = False

    def abort(self) -> None:
        """Aborts the open transaction, if there is one."""
        if self._is_stuck:
            self.start()  # it begins by aborting the open transaction of the previous producer
        elif self._is_open:
            with suppress(Aborted):  # the desired result
                self._call(lambda: self._producer.abort_transaction(ATTEMPT_S))
            self._is_open = False

    def close(self) -> None:
        """Aborts the open transaction if a broker answers, and closes the producer."""
        if self._producer is None:
            return
        if self._is_open:
            with suppress(KafkaException):
                self._producer.abort_transaction(ATTEMPT_S)
        self._producer.purge()
        self._producer.flush(0)
        self._producer = None

    def _send_offsets(self, offsets: list[Any], metadata: Any) -> None:
        """Sends the offsets from a separate thread, which is abandoned together with its producer if it never returns.

        If the group coordinator disappears during the call, librdkafka 2.16 may wait for ever despite the timeout:
        https://github.com/confluentinc/librdkafka/issues/5456.
        """
        producer, answer = self._producer, Future[None]()

        def send() -> None:
            try:
                answer.set_result(producer.send_offsets_to_transaction(offsets, metadata, ATTEMPT_S))
            except BaseException as error:  # noqa: BLE001 - raised again by the waiting thread
                answer.set_exception(error)

        Thread(target=send, name="offsets", daemon=True).start()
        try:
            answer.result(STUCK_AFTER_S)
        except TimeoutError:
            self._is_stuck = True
            raise Aborted(KafkaError(KafkaError._TIMED_OUT)) from None  # noqa: SLF001 - how the client names its errors

    def _call(self, operation: Callable[[], T]) -> T:
        began, pauses = self._clock(), retry_pauses()
        while True:
            try:
                return operation()
            except KafkaException as exception:
                error = exception.args[0]
                if error.fatal():
                    self._is_open = False
                    raise self._fenced(error) from exception
                if error.txn_requires_abort():
                    raise Aborted(error) from exception
                has_time = self._clock() - began < ATTEMPT_S or not self._should_stop()
                if not (error.retriable() and has_time):
                    raise stream_error(self._settings, error) from exception
                self._sleep(next(pauses))

    def _fenced(self, error: KafkaError) -> Exception:
        if error.name() in {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING"}:
            return WorkerFenced(
                "another worker of this name has taken over; give each its own --worker name, or stop the other one"
            )
        return stream_error(self._settings, error)


SESSION_MS: Final = 10_000
HEARTBEAT_MS: Final = 1_000
RETRY_MS: Final = 5
"""The brokers may still be ending the last transaction when the next begins; a retry after 100 ms would add latency."""

LONGEST_RETRY_S: Final = 1.0


def retry_pauses() -> Iterator[float]:
    """The pauses between attempts in seconds: ``RETRY_MS``, doubling up to ``LONGEST_RETRY_S``.

    A retriable error may be returned at once, and a loop without pauses would then occupy a processor and the brokers.
    """
    pause_s = RETRY_MS / 1000
    while True:
        yield pause_s
        pause_s = min(2.0 * pause_s, LONGEST_RETRY_S)


READ_WITHIN_S: Final = 30.0
ASK_S: Final = 10.0
_READ: Final = 10_000
_PREFETCHED: Final = 20_000
_PREFETCHED_KBYTES: Final = 16 << 10
_REFILL_MS: Final = 10
"""Pause before a full queue is filled again; with librdkafka's default of 1 s the queue would run empty."""

_SLICE_S: Final = 0.2


class Clients(Protocol):
    """The cluster as a worker sees it; tests use a fake."""

    @property
    def settings(self) -> KafkaSettings:
        """The cluster and its topics."""

    def partitions(self, topic: str) -> int:
        """Number of partitions of the topic; raises TopicMissing."""

    def consumer(self, group: str, *, reports_end: bool) -> Any:
        """A consumer of the group, not subscribed yet."""

    def producer(self, transactional_id: str) -> Any:
        """A transactional producer that is not initialised yet."""

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset, and the one after the last."""

    def read(
        self, topic: str, partition: int, start: int, end: int | None, *, committed: bool = True
    ) -> Iterator[list[Any]]:
        """The messages with offsets from ``start`` to before ``end`` (None: the current end), in batches."""


class KafkaClients:
    """The clients of a worker for Apache Kafka."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    def partitions(self, topic: str) -> int:
        """Number of partitions of the topic."""
        return require_topic(self.settings, topic)

    def consumer(self, group: str, *, reports_end: bool) -> Any:
        """A consumer with cooperative rebalancing that never chooses a start offset by itself."""
        own: dict[str, Any] = {}
        if self.settings.options.get("group.protocol") != "consumer":  # with that protocol the brokers decide
            own = {
                "partition_assignment_strategy": "cooperative-sticky",
                "session_timeout_ms": SESSION_MS,
                "heartbeat_interval_ms": HEARTBEAT_MS,
            }
        return open_consumer(
            self.settings,
            group_id=group,
            auto_offset_reset="error",
            enable_partition_eof=reports_end,
            queued_min_messages=_PREFETCHED,
            queued_max_messages_kbytes=_PREFETCHED_KBYTES,
            fetch_queue_backoff_ms=_REFILL_MS,
            **own,
        )

    def producer(self, transactional_id: str) -> Any:
        """A transactional producer that sends almost immediately."""
        return open_producer(
            self.settings,
            transactional_id=transactional_id,
            transaction_timeout_ms=round(TRANSACTION_TIMEOUT_S * 1000),
            retry_backoff_ms=RETRY_MS,
            linger_ms=2,
        )

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        """The first offset, and the one after the last."""
        reader = self._reader("read_uncommitted")
        place, until = TopicPartition(topic, partition), time.monotonic() + READ_WITHIN_S
        try:
            while True:
                try:
                    low, high = reader.get_watermark_offsets(place, ASK_S)
                except KafkaException as error:
                    cause = error.args[0]
                    if not is_transient(cause) or time.monotonic() > until:
                        raise stream_error(self.settings, cause, topic) from error
                    time.sleep(_SLICE_S)
                else:
                    return int(low), int(high)
        finally:
            reader.close()

    def read(
        self, topic: str, partition: int, start: int, end: int | None, *, committed: bool = True
    ) -> Iterator[list[Any]]:
        """The messages with these offsets, in batches.

        Raises:
            StreamError: no message arrived for 30 s, or the cluster refuses.
        """
        reader = self._reader("read_committed" if committed else "read_uncommitted")
        try:
            reader.assign([TopicPartition(topic, partition, start)])
            waited, position = 0.0, start
            while end is None or position < end:
                messages, has_ended = self._part(reader, topic)
                if messages:
                    waited, position = 0.0, messages[-1].offset() + 1
                    yield messages if end is None or position <= end else [m for m in messages if m.offset() < end]
                if has_ended:  # reported once, perhaps together with the last messages
                    return
                if not messages and (waited := waited + _SLICE_S) >= READ_WITHIN_S:
                    raise StreamError(
                        f"{topic}[{partition}]: no message arrived from offset {position} on within {READ_WITHIN_S:g} s"
                    )
        finally:
            reader.close()

    def _part(self, reader: Any, topic: str) -> tuple[list[Any], bool]:
        """The next messages, and whether the end was reached."""
        messages, has_ended = [], False
        for message in reader.consume(_READ, _SLICE_S):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.name() == "_PARTITION_EOF":
                has_ended = True
            elif not is_transient(error):
                raise stream_error(self.settings, error, topic)
            elif not messages:  # returned at once, where a silent partition waits
                time.sleep(_SLICE_S)
        return messages, has_ended

    def _reader(self, isolation: str) -> Any:
        return open_consumer(
            self.settings,
            group_id="volspike-reader",
            auto_offset_reset="error",
            enable_partition_eof=True,
            isolation_level=isolation,
        )


TRANSIENT: Final = frozenset(
    {
        "_ALL_BROKERS_DOWN",
        "_MAX_POLL_EXCEEDED",  # the loss of the partitions follows and is handled
        "_RESOLVE",
        "_TIMED_OUT",
        "_TRANSPORT",
        "_WAIT_COORD",
        "COORDINATOR_LOAD_IN_PROGRESS",
        "COORDINATOR_NOT_AVAILABLE",
        "FENCED_LEADER_EPOCH",
        "LEADER_NOT_AVAILABLE",
        "NETWORK_EXCEPTION",
        "NOT_COORDINATOR",
        "NOT_LEADER_FOR_PARTITION",
        "OFFSET_NOT_AVAILABLE",
        "REBALANCE_IN_PROGRESS",
        "REQUEST_TIMED_OUT",
        "UNKNOWN_LEADER_EPOCH",  # a broker that has just restarted
        "UNSTABLE_OFFSET_COMMIT",
    }
)
"""Errors that disappear by themselves: brokers restart, leaders are elected, other transactions end."""


def is_transient(error: Any) -> bool:
    """Whether a retry can succeed."""
    return bool(error.retriable()) or error.name() in TRANSIENT


def close_quietly(consumer: Any) -> None:
    """Leaves the group; if that fails, the session of the member expires."""
    with suppress(KafkaException, RuntimeError):
        consumer.close()
