"""One worker's transactions: begun, filled, committed with the offsets of what they were made from, or taken back.

What an error of the client means here: one that is *retriable* is tried again, with the same effect as once; one that
*requires an abort* takes the transaction back (``Aborted``), and whoever fills it goes back to what is committed; a
*fatal* one means that this producer may not write any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException

from volspike.errors import WorkerFenced
from volspike.streams.clients import stream_error
from volspike.streams.settings import KafkaSettings
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
