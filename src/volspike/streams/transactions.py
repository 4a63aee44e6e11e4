"""One worker's transactions: begun, filled, committed with the offsets of what they were made from, or taken back.

What an error of the client means here: one that is *retriable* is tried again, with the same effect as once; one that
*requires an abort* takes the transaction back (``Aborted``), and whoever fills it goes back to what is committed; a
*fatal* one means that this producer may not write any more.

The clients of one worker, opened as exactly-once processing needs them. Tests put others in their place.
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
"""How long a transaction may stay open: so long others wait for what a worker without a name left when it died."""

ATTEMPT_S: Final = 5.0
STUCK_AFTER_S: Final = 7.5
"""A call that ought to have ended after ``ATTEMPT_S`` will not come back."""

SERVE_EVERY: Final = 1_000
_ROOM_S: Final = 0.05

T = TypeVar("T")


class Aborted(Exception):
    """The transaction was taken back; ``cause`` is why, None where this worker is no member of the group any more."""

    def __init__(self, cause: KafkaError | None = None) -> None:
        self.cause = cause
        super().__init__("not a member of the group" if cause is None else cause.str())


class Transactions:
    """The transactional producer of one worker.

    Args:
        open_producer: gives a producer with the worker's ``transactional.id``.
        gives_up: whether to stop trying again; asked after every attempt.
        clock: counts seconds.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        open_producer: Callable[[], Any],
        *,
        gives_up: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._open = open_producer
        self._gives_up = gives_up
        self._clock = clock
        self._began = clock()
        self._is_open = False
        self._is_stuck = False
        self._producer: Any = None

    def start(self) -> None:
        """Opens the producer; what an earlier one of its name left open is taken back, and that one is fenced.

        Raises:
            StreamError: the cluster does not allow it, or it was stopped while nobody answered.
        """
        self._is_open = self._is_stuck = False
        self._producer = self._open()
        self._call(lambda: self._producer.init_transactions(ATTEMPT_S))

    @property
    def has_stood_still(self) -> bool:
        """Whether the last transaction was open for so long that the cluster itself has taken it back."""
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
        """Hands over messages of one topic; waits for room where there is none."""
        produce = self._producer.produce
        told = headers or None
        for number, (key, value, at) in enumerate(zip(keys, values, timestamps_ms, strict=True)):
            try:
                produce(topic, value, key, timestamp=at, headers=told)
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
        """Hands over one message, to a partition of its own where one is named."""
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

    def deliver(self) -> None:
        """Waits until what was handed over is with the brokers, or given up."""
        while self._producer.flush(ATTEMPT_S) and not self._gives_up():
            pass

    def commit(self, offsets: Sequence[Any], consumer: Any) -> None:
        """Commits the transaction and with it ``offsets``, as long as ``consumer`` has a place in its group.

        The member id is asked for after the group's metadata: one that has lost its place has none until it is polled
        again, and metadata without a member would be taken by the brokers without looking at the group.

        Raises:
            Aborted: nothing of it is committed, or it is not known; the committed offsets tell.
        """
        metadata = consumer.consumer_group_metadata()
        if not consumer.memberid():
            raise Aborted
        self._call(lambda: self._send_offsets(list(offsets), metadata))
        self._call(lambda: self._producer.commit_transaction(ATTEMPT_S))
        self._is_open = False

    def abort(self) -> None:
        """Takes the open transaction back; nothing where there is none."""
        if self._is_stuck:
            self.start()  # whose first act is to take back what the one before it left open
        elif self._is_open:
            with suppress(Aborted):  # which is what was wanted
                self._call(lambda: self._producer.abort_transaction(ATTEMPT_S))
            self._is_open = False

    def close(self) -> None:
        """Takes back what is open, as far as somebody answers, and lets the producer go."""
        if self._producer is None:
            return
        if self._is_open:
            with suppress(KafkaException):
                self._producer.abort_transaction(ATTEMPT_S)
        self._producer.purge()
        self._producer.flush(0)
        self._producer = None

    def _send_offsets(self, offsets: list[Any], metadata: Any) -> None:
        """Waits for an answer in a thread of its own, which is given up with its producer where none comes.

        A group coordinator that goes away at this moment may leave librdkafka 2.16 waiting for ever, whatever timeout
        it is given: https://github.com/confluentinc/librdkafka/issues/5456.
        """
        producer, answer = self._producer, Future[None]()

        def ask() -> None:
            try:
                answer.set_result(producer.send_offsets_to_transaction(offsets, metadata, ATTEMPT_S))
            except BaseException as error:  # noqa: BLE001 - told to whoever waits
                answer.set_exception(error)

        Thread(target=ask, name="offsets", daemon=True).start()
        try:
            answer.result(STUCK_AFTER_S)
        except TimeoutError:
            self._is_stuck = True
            raise Aborted(KafkaError(KafkaError._TIMED_OUT)) from None  # noqa: SLF001 - how the client names its errors

    def _call(self, operation: Callable[[], T]) -> T:
        began = self._clock()
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
                has_time = self._clock() - began < ATTEMPT_S or not self._gives_up()
                if not (error.retriable() and has_time):
                    raise stream_error(self._settings, error) from exception

    def _fenced(self, error: KafkaError) -> Exception:
        if error.name() in {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING"}:
            return WorkerFenced(
                "another worker of this name has taken over; give each a --worker name of its own, or stop the other"
            )
        return stream_error(self._settings, error)


SESSION_MS: Final = 10_000
HEARTBEAT_MS: Final = 1_000
RETRY_MS: Final = 5
"""The next transaction begins while the brokers still write the last one's end; waiting 100 ms would be the delay."""

READ_WITHIN_S: Final = 30.0
ASK_S: Final = 10.0
_READ: Final = 10_000
_PREFETCHED: Final = 20_000
_PREFETCHED_KBYTES: Final = 16 << 10
_REFILL_MS: Final = 10
"""A full queue is looked at again so soon; after librdkafka's second it would have been empty for most of it."""

_SLICE_S: Final = 0.2


class Links(Protocol):
    """How a worker reaches its cluster."""

    @property
    def settings(self) -> KafkaSettings:
        """The cluster and its topics."""

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has; raises TopicMissing."""

    def consumer(self, group: str, *, tells_end: bool) -> Any:
        """A consumer of the group, not subscribed yet."""

    def producer(self, transactional_id: str) -> Any:
        """A transactional producer, before its initialisation."""

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset, and the one after the last."""

    def read(
        self, topic: str, partition: int, start: int, end: int | None, *, committed: bool = True
    ) -> Iterator[list[Any]]:
        """The messages of offsets ``start`` up to, and without, ``end`` (None: the end at the time), in parts."""


class KafkaLinks:
    """Links to Apache Kafka."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.settings = settings

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return require_topic(self.settings, topic)

    def consumer(self, group: str, *, tells_end: bool) -> Any:
        """A consumer whose partitions move one by one, and that never begins anywhere by itself."""
        own: dict[str, Any] = {}
        if self.settings.options.get("group.protocol") != "consumer":  # there the brokers say how
            own = {
                "partition_assignment_strategy": "cooperative-sticky",
                "session_timeout_ms": SESSION_MS,
                "heartbeat_interval_ms": HEARTBEAT_MS,
            }
        return open_consumer(
            self.settings,
            group_id=group,
            auto_offset_reset="error",
            enable_partition_eof=tells_end,
            queued_min_messages=_PREFETCHED,
            queued_max_messages_kbytes=_PREFETCHED_KBYTES,
            fetch_queue_backoff_ms=_REFILL_MS,
            **own,
        )

    def producer(self, transactional_id: str) -> Any:
        """A transactional producer that sends at once."""
        return open_producer(
            self.settings,
            transactional_id=transactional_id,
            transaction_timeout_ms=round(TRANSACTION_TIMEOUT_S * 1000),
            retry_backoff_ms=RETRY_MS,
            linger_ms=2,
        )

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        """First offset, and the one after the last."""
        reader = self._reader("read_uncommitted")
        place, until = TopicPartition(topic, partition), time.monotonic() + READ_WITHIN_S
        try:
            while True:
                try:
                    low, high = reader.get_watermark_offsets(place, ASK_S)
                except KafkaException as error:
                    cause = error.args[0]
                    if not is_passing(cause) or time.monotonic() > until:
                        raise stream_error(self.settings, cause, topic) from error
                    time.sleep(_SLICE_S)
                else:
                    return int(low), int(high)
        finally:
            reader.close()

    def read(
        self, topic: str, partition: int, start: int, end: int | None, *, committed: bool = True
    ) -> Iterator[list[Any]]:
        """The messages of these offsets.

        Raises:
            StreamError: nothing came for half a minute, or the cluster refuses.
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
                if has_ended:  # told once, perhaps together with the last messages
                    return
                if not messages and (waited := waited + _SLICE_S) >= READ_WITHIN_S:
                    raise StreamError(f"{topic}[{partition}]: nothing came from offset {position} on")
        finally:
            reader.close()

    def _part(self, reader: Any, topic: str) -> tuple[list[Any], bool]:
        """The next messages, and whether the end was met."""
        messages, has_ended = [], False
        for message in reader.consume(_READ, _SLICE_S):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.name() == "_PARTITION_EOF":
                has_ended = True
            elif not is_passing(error):
                raise stream_error(self.settings, error, topic)
        return messages, has_ended

    def _reader(self, isolation: str) -> Any:
        return open_consumer(
            self.settings,
            group_id="volspike-reader",
            auto_offset_reset="error",
            enable_partition_eof=True,
            isolation_level=isolation,
        )


PASSING: Final = frozenset(
    {
        "_ALL_BROKERS_DOWN",
        "_MAX_POLL_EXCEEDED",  # the loss of the partitions follows, and is what is acted upon
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
        "UNKNOWN_LEADER_EPOCH",  # a broker that has just come back
        "UNSTABLE_OFFSET_COMMIT",
    }
)
"""Errors that go by themselves: brokers come back, leaders are chosen, somebody else's transaction ends."""


def is_passing(error: Any) -> bool:
    """Whether it is enough to ask again."""
    return bool(error.retriable()) or error.name() in PASSING


def close_quietly(consumer: Any) -> None:
    """Leaves the group; whatever goes wrong with that, its session ends by itself."""
    with suppress(KafkaException, RuntimeError):
        consumer.close()
