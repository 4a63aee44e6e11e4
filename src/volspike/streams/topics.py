"""The topics of the pipeline: creating them, describing them, and checking that messages arrive."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import (
    OFFSET_BEGINNING,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from volspike.streams.clients import (
    MAX_MESSAGE_BYTES,
    REACH_WITHIN_S,
    KafkaSettings,
    cluster_metadata,
    open_admin,
    open_consumer,
    require_topic,
    stream_error,
)

PARTITIONS: Final = 3
MOST_COPIES: Final = 3
KEPT_BYTES: Final = 8 << 30
ADMIN_TIMEOUT_S: Final = 30.0

LEADER_RETRY_S: Final = 0.1
_NO_LEADER_YET: Final = {"NOT_LEADER_FOR_PARTITION", "LEADER_NOT_AVAILABLE", "UNKNOWN_TOPIC_OR_PART"}
"""Errors of a partition that was created a moment ago or whose leader changes."""

_MARKET: Final = {
    "cleanup.policy": "delete",
    # Time would be counted from the ticks' own format_times: the cluster would delete an old tape while it is replayed.
    "retention.ms": "-1",
    "retention.bytes": str(KEPT_BYTES),
    "message.timestamp.type": "CreateTime",
    # a simulated market may run ahead of the clock; the default limit is one hour
    "message.timestamp.after.max.ms": str(2**63 - 1),
}
_DEAD: Final = {**_MARKET, "retention.bytes": str(1 << 30)}
_STATE: Final = {
    "cleanup.policy": "compact",
    "min.cleanable.dirty.ratio": "0.1",
    "segment.ms": "600000",
    "max.message.bytes": str(MAX_MESSAGE_BYTES),
    "message.timestamp.after.max.ms": str(2**63 - 1),
}


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """The intended settings of a topic; ``copies`` None means one per broker, up to three."""

    name: str
    config: Mapping[str, str]
    partitions: int = PARTITIONS
    copies: int | None = None


@dataclass(frozen=True, slots=True)
class TopicCreation:
    """The result for one topic; ``differs`` lists settings of an existing topic as (actual, planned)."""

    name: str
    partitions: int
    is_new: bool
    differs: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PartitionExtent:
    """The offsets of a partition from ``low`` to before ``high``; ``leader`` is -1 if there is none."""

    partition: int
    leader: int
    copies: int
    in_sync: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class TopicExtent:
    """The partitions of a topic. ``offsets`` is an upper bound of its messages: markers and compacted ones count."""

    name: str
    partitions: tuple[PartitionExtent, ...]

    @property
    def offsets(self) -> int:
        """Offsets of all partitions together."""
        return sum(each.high - each.low for each in self.partitions)


def pipeline_topics(
    settings: KafkaSettings, partitions: int = PARTITIONS, copies: int | None = None
) -> list[TopicPlan]:
    """The five topics of the pipeline. Ticks, rows and predictions are kept up to 8 GiB per partition."""
    named = {
        settings.topic_raw: _MARKET,
        settings.topic_features: _MARKET,
        settings.topic_predictions: _MARKET,
        settings.topic_dead: _DEAD,
        settings.topic_state: _STATE,
    }
    return [TopicPlan(name, config, partitions, copies) for name, config in named.items()]


def create_topics(settings: KafkaSettings, plans: Sequence[TopicPlan]) -> list[TopicCreation]:
    """Creates missing topics; leaves existing ones unchanged and reports how they differ.

    Raises:
        BrokerUnavailable: no broker answers.
        StreamError: the cluster refuses a topic; those before it may exist.
    """
    cluster = cluster_metadata(settings)
    brokers = len(cluster.brokers)
    admin = open_admin(settings)
    absent = [plan for plan in plans if plan.name not in cluster.topics]
    new = _create(settings, admin, absent, brokers)
    made = []
    for plan in plans:
        if plan.name in new:
            made.append(TopicCreation(plan.name, plan.partitions, is_new=True))
            continue
        there = len(cluster.topics[plan.name].partitions) if plan.name in cluster.topics else plan.partitions
        made.append(TopicCreation(plan.name, there, is_new=False, differs=_differences(settings, admin, plan, there)))
    return made


def describe_topics(
    settings: KafkaSettings, names: Sequence[str] | None = None, within_s: float = REACH_WITHIN_S
) -> list[TopicExtent]:
    """The named topics, sorted by name; without names all but internal ones. Missing topics are skipped.

    Raises:
        BrokerUnavailable: no broker answers in time.
    """
    found = cluster_metadata(settings, within_s).topics
    chosen = sorted(name for name in found if (name in names if names is not None else not name.startswith("__")))
    if not chosen:
        return []
    places = [TopicPartition(name, number) for name in chosen for number in found[name].partitions]
    low, high = _ends(settings, places, within_s)
    extents = []
    for name in chosen:
        parts = [
            PartitionExtent(
                number, part.leader, len(part.replicas), len(part.isrs), low[name, number], high[name, number]
            )
            for number, part in sorted(found[name].partitions.items())
        ]
        extents.append(TopicExtent(name, tuple(parts)))
    return extents


def _create(settings: KafkaSettings, admin: AdminClient, plans: Sequence[TopicPlan], brokers: int) -> set[str]:
    """The names of the topics that this call created; another program may create one at the same time."""
    topics = [
        NewTopic(plan.name, plan.partitions, _copies(plan, brokers), config=_config(plan, brokers)) for plan in plans
    ]
    if not topics:
        return set()
    made = set()
    for name, outcome in admin.create_topics(topics, operation_timeout=ADMIN_TIMEOUT_S).items():
        try:
            outcome.result(ADMIN_TIMEOUT_S)
            made.add(name)
        except KafkaException as error:
            if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise stream_error(settings, error.args[0], name) from error
    return made


def _copies(plan: TopicPlan, brokers: int) -> int:
    return min(MOST_COPIES, brokers) if plan.copies is None else plan.copies


def _config(plan: TopicPlan, brokers: int) -> dict[str, str]:
    """With three copies, two must have a message before it is acknowledged, so one broker may fail without loss."""
    return {**plan.config, "min.insync.replicas": "2" if _copies(plan, brokers) >= 3 else "1"}


def _differences(
    settings: KafkaSettings, admin: AdminClient, plan: TopicPlan, partitions: int
) -> dict[str, tuple[str, str]]:
    differs: dict[str, tuple[str, str]] = {}
    if partitions != plan.partitions:
        differs["partitions"] = (str(partitions), str(plan.partitions))
    requested = ConfigResource(ResourceType.TOPIC, plan.name)
    try:
        found_config: Mapping[str, Any] = admin.describe_configs([requested])[requested].result(ADMIN_TIMEOUT_S)
    except KafkaException as error:
        raise stream_error(settings, error.args[0], plan.name) from error
    there = {name: entry.value for name, entry in found_config.items()}
    differs |= {name: (there[name], value) for name, value in plan.config.items() if there.get(name, value) != value}
    return differs


def _ends(
    settings: KafkaSettings, places: Sequence[TopicPartition], within_s: float
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """The first and the next offset of each partition; a leader that is not known yet is awaited for ``within_s``."""
    admin = open_admin(settings)
    deadline = time.monotonic() + within_s

    def offsets(spec: OffsetSpec) -> dict[tuple[str, int], int]:
        while True:
            requested = admin.list_offsets(dict.fromkeys(places, spec), request_timeout=within_s)
            found = _offsets(settings, requested, has_time=time.monotonic() < deadline)
            if found is not None:
                return found
            time.sleep(LEADER_RETRY_S)

    return offsets(OffsetSpec.earliest()), offsets(OffsetSpec.latest())


def _offsets(
    settings: KafkaSettings, requested: Mapping[TopicPartition, Any], *, has_time: bool
) -> dict[tuple[str, int], int] | None:
    """The offset of each partition; None if one has no leader yet and ``has_time``."""
    found = {}
    for place, outcome in requested.items():
        try:
            found[place.topic, place.partition] = int(outcome.result(ADMIN_TIMEOUT_S).offset)
        except KafkaException as error:
            if has_time and error.args[0].name() in _NO_LEADER_YET:
                return None
            raise stream_error(settings, error.args[0], place.topic) from error
    return found


BATCH: Final = 1_000
_SLICE_S: Final = 0.1
_NOT_LOST: Final = {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_PARTITION_EOF", "_TIMED_OUT"}
"""Errors from which the client recovers by itself."""


@dataclass(slots=True)
class TopicCheck:
    """The messages read, by partition and key, their bytes, and Kafka's first and last timestamp (ms)."""

    messages: int = 0
    bytes: int = 0
    seconds: float = 0.0
    partitions: Counter[int] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    first_ms: int | None = None
    last_ms: int | None = None

    def add(self, message: Message) -> None:
        """Counts a message."""
        self.messages += 1
        self.bytes += len(message.value() or b"")
        self.partitions[message.partition()] += 1
        key = message.key()
        self.keys["" if key is None else key.decode(errors="replace")] += 1
        kind, timestamp = message.timestamp()
        if kind != TIMESTAMP_NOT_AVAILABLE:
            self.first_ms = timestamp if self.first_ms is None else min(self.first_ms, timestamp)
            self.last_ms = timestamp if self.last_ms is None else max(self.last_ms, timestamp)


def check_topic(
    settings: KafkaSettings,
    topic: str,
    at_least: int,
    within_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> TopicCheck:
    """Reads ``topic`` from its beginning until ``at_least`` committed messages arrived or the time is over.

    It uses no consumer group, so other consumers are not affected.

    Raises:
        BrokerUnavailable: no broker answers.
        TopicMissing: the topic does not exist.
        StreamError: the cluster refuses to let it be read.
    """
    partitions = require_topic(settings, topic)
    found = TopicCheck()
    faults: list[KafkaError] = []
    consumer = open_consumer(settings, group_id="volspike-check", auto_offset_reset="earliest", error_cb=faults.append)
    try:
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(partitions)])
        began = clock()
        while found.messages < at_least and (left := began + within_s - clock()) > 0:
            messages = consumer.consume(min(BATCH, at_least - found.messages), min(left, _SLICE_S))
            if messages and all(message.error() is not None for message in messages):
                time.sleep(min(left, _SLICE_S))  # an error is returned at once, where a silent topic waits
            for message in messages:
                if (error := message.error()) is None:
                    found.add(message)
                elif error.name() not in _NOT_LOST:
                    raise stream_error(settings, error, topic)
            for fault in faults:
                if fault.name() not in _NOT_LOST:
                    raise stream_error(settings, fault, topic)
        found.seconds = clock() - began
    finally:
        consumer.close()
    return found
