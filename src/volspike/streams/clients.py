"""Clients of the cluster, made from the settings, and what their errors mean in volspike's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata

from volspike.errors import BrokerUnavailable, StreamError, TopicMissing, UsageError
from volspike.streams.settings import KafkaSettings

REACH_WITHIN_S: Final = 5.0
"""How long a command waits for the first answer of a cluster."""

MAX_MESSAGE_BYTES: Final = 4 << 20
"""The longest message that a client sends or takes; a snapshot is longer than a tick."""

C = TypeVar("C")


def open_producer(settings: KafkaSettings, **more: Any) -> Producer:
    """An idempotent producer whose messages lie with all replicas when they count as delivered.

    A key's partition is the one that Kafka's own clients choose. ``more`` as for ``KafkaSettings.client``.

    Raises:
        UsageError: an option is not one of librdkafka's, or has a value that it cannot have.
    """
    own = {
        "enable_idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "compression_type": "lz4",
        "message_max_bytes": MAX_MESSAGE_BYTES,
    }
    return _opened(Producer, settings, settings.client(**{**own, **more}))


def open_consumer(settings: KafkaSettings, **more: Any) -> Consumer:
    """A consumer of what was committed; it commits nothing by itself. ``more`` must name a ``group_id``.

    Raises:
        UsageError: as for ``open_producer``.
    """
    own = {"isolation_level": "read_committed", "enable_auto_commit": False, "fetch_wait_max_ms": 50}
    return _opened(Consumer, settings, settings.client(**{**own, **more}))


def open_admin(settings: KafkaSettings, **more: Any) -> AdminClient:
    """A client that makes and describes topics.

    Raises:
        UsageError: as for ``open_producer``.
    """
    return _opened(AdminClient, settings, settings.client(**more))


def metadata_of(settings: KafkaSettings, within_s: float = REACH_WITHIN_S) -> ClusterMetadata:
    """The brokers and all topics of the cluster.

    Raises:
        BrokerUnavailable: nobody answers in time; with what the connections last told.
    """
    told: list[KafkaError] = []
    admin = open_admin(settings, error_cb=told.append)
    try:
        return admin.list_topics(timeout=within_s)
    except KafkaException as error:
        admin.poll(0)
        causes = [each for each in told if each.name() != "_ALL_BROKERS_DOWN"] or [error.args[0]]
        raise BrokerUnavailable(settings.bootstrap_servers, _words(settings, causes[-1])) from error


def require_topic(settings: KafkaSettings, topic: str, within_s: float = REACH_WITHIN_S) -> int:
    """The number of partitions of ``topic``.

    Raises:
        BrokerUnavailable: nobody answers in time.
        TopicMissing: there is no such topic.
    """
    found = metadata_of(settings, within_s).topics.get(topic)
    if found is None or found.error is not None:
        raise TopicMissing(topic, settings.bootstrap_servers)
    return len(found.partitions)


def stream_error(settings: KafkaSettings, error: KafkaError, topic: str = "") -> StreamError:
    """What an error of a client means; ``topic`` is what it was about."""
    name = error.name()
    if name in {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_SSL", "_AUTHENTICATION"}:
        return BrokerUnavailable(settings.bootstrap_servers, _words(settings, error))
    if name in {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"}:
        return TopicMissing(topic or "of that name", settings.bootstrap_servers)
    about = f"{topic}: " if topic else ""
    return StreamError(f"{about}{_words(settings, error)} ({name.lstrip('_').lower()})")


def _words(settings: KafkaSettings, error: KafkaError) -> str:
    """The error's own sentence, on one line."""
    return settings.without_secrets(" ".join(error.str().split()))


def _opened(kind: Callable[[Mapping[str, Any]], C], settings: KafkaSettings, client: Mapping[str, Any]) -> C:
    try:
        return kind(client)
    except KafkaException as error:
        raise UsageError(f"Kafka settings: {_words(settings, error.args[0])}") from error
