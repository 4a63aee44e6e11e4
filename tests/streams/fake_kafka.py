"""A cluster in memory with transactions and one consumer group, whose calls fail as a test says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from volspike.streams.clients import KafkaSettings

PARTITIONS = 2


class Crash(BaseException):
    """The process is gone."""


@dataclass(frozen=True, slots=True)
class FakeMessage:
    """A message that lies in a log."""

    topic_: str
    partition_: int
    offset_: int
    key_: bytes | None
    value_: bytes | None
    timestamp_: int = 1
    headers_: tuple[tuple[str, bytes], ...] = ()

    def error(self) -> None:
        return None

    def partition(self) -> int:
        return self.partition_

    def offset(self) -> int:
        return self.offset_

    def key(self) -> bytes | None:
        return self.key_

    def value(self) -> bytes | None:
        return self.value_

    def timestamp(self) -> tuple[int, int]:
        return 1, self.timestamp_

    def headers(self) -> list[tuple[str, bytes]] | None:
        return list(self.headers_) or None


@dataclass(frozen=True, slots=True)
class FakeEnd:
    """The error of a consumer at the end of a partition."""

    partition_: int

    def error(self) -> KafkaError:
        return KafkaError(KafkaError._PARTITION_EOF)

    def partition(self) -> int:
        return self.partition_


@dataclass(slots=True)
class FakeCluster:
    """Logs, committed offsets, and ``faults``: what happens at the n-th call of a producer.

    ``abort`` and ``retry`` fail before they have an effect, ``unknown`` and ``crash-after`` after it, ``crash`` before.
    ``silent_at`` are the numbers of those calls with offsets that get no answer before ``answers`` is set. ``low`` cuts
    the logs. Who joins is given no partition before the poll ``assigned_from``.
    """

    faults: dict[int, str] = field(default_factory=dict)
    batch: int = 5
    rebalance_at: frozenset[int] = frozenset()
    logs: dict[tuple[str, int], list[FakeMessage]] = field(default_factory=dict)
    committed: dict[int, TopicPartition] = field(default_factory=dict)
    silent_at: frozenset[int] = frozenset()
    answers: Event = field(default_factory=Event)
    asked: int = 0
    low: int = 0
    assigned_from: int = 0
    calls: int = 0
    polls: int = 0
    epoch: int = 0
    settings: KafkaSettings = field(default_factory=KafkaSettings)

    def append(self, topic: str, partition: int, key: bytes, value: bytes | None) -> None:
        """A message from another producer."""
        log = self.logs.setdefault((topic, partition), [])
        log.append(FakeMessage(topic, partition, len(log), key, value))

    def values(self, topic: str) -> dict[str, list[bytes | None]]:
        """What lies in a topic by key, in order."""
        found: dict[str, list[bytes | None]] = {}
        for (name, _), log in sorted(self.logs.items()):
            for message in log if name == topic else ():
                found.setdefault((message.key() or b"").decode(), []).append(message.value())
        return found

    def count(self, effect: Callable[[], None]) -> None:
        """One call of a producer: its effect, or what goes wrong in its place."""
        self.calls += 1
        fault = self.faults.get(self.calls)
        if fault == "crash":
            raise Crash
        if fault == "retry":
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "later", False, True, False))
        if fault == "abort":
            raise KafkaException(KafkaError(KafkaError.ILLEGAL_GENERATION, "moved", False, False, True))
        effect()
        if fault == "crash-after":
            raise Crash
        if fault == "unknown":
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "nobody knows", False, False, True))

    # --- clients

    def partitions(self, topic: str) -> int:
        del topic
        return PARTITIONS

    def consumer(self, group: str, *, reports_end: bool) -> FakeConsumer:
        del group
        return FakeConsumer(self, reports_end=reports_end)

    def producer(self, transactional_id: str) -> FakeProducer:
        del transactional_id
        self.epoch += 1
        return FakeProducer(self, self.epoch)

    def extent(self, topic: str, partition: int) -> tuple[int, int]:
        return self.low, len(self.logs.get((topic, partition), []))

    def read(
        self, topic: str, partition: int, start: int, end: int | None, *, committed: bool = True
    ) -> Iterator[list[FakeMessage]]:
        del committed
        found = self.logs.get((topic, partition), [])[start:end]
        for first in range(0, len(found), 7):
            yield found[first : first + 7]


class FakeProducer:
    """A transactional producer; one of an older epoch is fenced."""

    def __init__(self, cluster: FakeCluster, epoch: int) -> None:
        self._cluster = cluster
        self._epoch = epoch
        self._messages: list[tuple[FakeMessage, Any]] = []
        self._offsets: list[TopicPartition] = []

    def init_transactions(self, timeout: float) -> None:
        del timeout

    def begin_transaction(self) -> None:
        if self._epoch != self._cluster.epoch:
            raise KafkaException(KafkaError(KafkaError._FENCED, "fenced", True, False, False))
        self._messages, self._offsets = [], []

    def produce(self, topic: str, value: bytes | None, key: bytes, **more: Any) -> None:
        partition = more.get("partition", sum(key) % PARTITIONS)
        log = self._cluster.logs.setdefault((topic, partition), [])
        waiting = sum((each.topic_, each.partition_) == (topic, partition) for each, _ in self._messages)
        headers = tuple(more["headers"] or ())
        message = FakeMessage(topic, partition, len(log) + waiting, key, value, more["timestamp"], headers)
        self._messages.append((message, more.get("on_delivery")))

    def flush(self, timeout: float) -> int:
        del timeout
        for message, tell in self._messages:
            if tell is not None:
                tell(None, message)
        return 0

    def poll(self, timeout: float) -> int:
        del timeout
        return 0

    def purge(self) -> None:
        pass

    def send_offsets_to_transaction(self, offsets: list[TopicPartition], metadata: object, timeout: float) -> None:
        del metadata, timeout
        self._cluster.asked += 1
        if self._cluster.asked in self._cluster.silent_at:
            self._cluster.answers.wait()
            return
        self._cluster.count(lambda: self._offsets.extend(offsets))

    def commit_transaction(self, timeout: float) -> None:
        del timeout
        self._cluster.count(self._commit)

    def _commit(self) -> None:
        for message, _ in self._messages:
            self._cluster.logs[message.topic_, message.partition_].append(message)
        self._cluster.committed |= {place.partition: place for place in self._offsets}
        self._messages, self._offsets = [], []

    def abort_transaction(self, timeout: float) -> None:
        del timeout
        self._messages, self._offsets = [], []


class FakeConsumer:
    """The only member of its group; it is given all partitions, and now and then they are taken and given again."""

    def __init__(self, cluster: FakeCluster, *, reports_end: bool) -> None:
        self._cluster = cluster
        self._reports_end = reports_end
        self._positions: dict[int, int] = {}
        self._calls: dict[str, Callable[[Any, Sequence[TopicPartition]], None]] = {}
        self._topic = ""
        self._is_member = False

    def subscribe(self, topics: list[str], **calls: Any) -> None:
        (self._topic,) = topics
        self._calls = calls

    def consumer_group_metadata(self) -> object:
        return object()

    def memberid(self) -> str:
        return "member" if self._is_member else ""

    def consume(self, count: int, timeout: float) -> list[FakeMessage | FakeEnd]:
        del timeout
        self._cluster.polls += 1
        if self._cluster.polls < self._cluster.assigned_from:
            self._calls["on_assign"](self, [])
            return []
        places = [TopicPartition(self._topic, number) for number in range(PARTITIONS)]
        if self._is_member and self._cluster.polls in self._cluster.rebalance_at:
            self._calls["on_revoke"](self, places)
            self._positions.clear()
            self._is_member = False
        if not self._is_member:
            self._is_member = True
            self._calls["on_assign"](self, places)
        found: list[FakeMessage | FakeEnd] = []
        for number, position in self._positions.items():
            log = self._cluster.logs.get((self._topic, number), [])
            part = log[position : position + min(count, self._cluster.batch) - len(found)]
            self._positions[number] += len(part)
            found += part
            if self._reports_end and self._positions[number] == len(log):
                found.append(FakeEnd(number))
        return found

    def committed(self, places: Sequence[TopicPartition], timeout: float) -> list[TopicPartition]:
        del timeout
        nothing = -1001
        return [
            self._cluster.committed.get(place.partition, TopicPartition(self._topic, place.partition, nothing))
            for place in places
        ]

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(self._topic, number) for number in self._positions]

    def incremental_assign(self, places: Sequence[TopicPartition]) -> None:
        self._positions |= {place.partition: place.offset for place in places}

    def seek(self, place: TopicPartition) -> None:
        self._positions[place.partition] = place.offset

    def get_watermark_offsets(self, place: TopicPartition, *, cached: bool) -> tuple[int, int]:
        del cached
        return self._cluster.extent(self._topic, place.partition)

    def close(self) -> None:
        pass
