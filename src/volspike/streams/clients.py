"""Kafka settings with their secrets masked, the clients made from them, and the translation of client errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, ClusterMetadata

from volspike.errors import BrokerUnavailable, StreamError, TopicMissing, UsageError

OWN_OPTIONS: Final = frozenset(
    {
        "acks",
        "bootstrap.servers",
        "delivery.report.only.error",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "group.id",
        "isolation.level",
        "partitioner",
        "request.required.acks",
        "transactional.id",
    }
)
"""Settings that exactly-once processing depends on or that have an option of their own; users cannot pass them."""

_SECRET_WORDS: Final = ("password", "secret", "token", "oauthbearer.config", "key.pem", "userinfo")
_MASK: Final = "***"


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster and the topics of the pipeline.

    ``options`` are librdkafka settings that every client receives unchanged, for example for TLS and SASL.
    """

    bootstrap_servers: str = "localhost:9092"
    topic_raw: str = "ticks.raw"
    topic_features: str = "ticks.features"
    topic_predictions: str = "ticks.predictions"
    topic_dead: str = "ticks.dead"
    topic_state: str = "ticks.state"
    options: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not self.bootstrap_servers.strip():
            raise ValueError("bootstrap_servers is empty: name at least one broker as host:port")
        if taken := sorted(OWN_OPTIONS & set(self.options)):
            raise ValueError(f"volspike sets {', '.join(taken)} itself: remove it from the options")

    def client(self, **more: Any) -> dict[str, Any]:
        """Settings of a client; ``more`` are those of its kind, with ``_`` for ``.``. The user's options override both.

        librdkafka's log lines on stderr are off: the same information arrives as errors.
        """
        own = {"bootstrap.servers": self.bootstrap_servers, "client.id": "volspike", "log_level": 0}
        return {**own, **{_option(name): value for name, value in more.items()}, **self.options}

    def without_secrets(self, text: str) -> str:
        """``text`` with every secret value masked."""
        for name, value in self.options.items():
            if is_secret(name) and value:
                text = text.replace(value, _MASK)
        return text

    def __repr__(self) -> str:
        return f"KafkaSettings({', '.join(f'{name}={value!r}' for name, value in self._shown().items())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return list(self._shown().items())

    def _shown(self) -> dict[str, Any]:
        return {**{name: getattr(self, name) for name in self.__struct_fields__}, "options": masked(self.options)}


def _option(name: str) -> str:
    """librdkafka's spelling of a setting; only names of callbacks have underscores."""
    return name if name.endswith("_cb") or name == "on_commit" else name.replace("_", ".")


def is_secret(option: str) -> bool:
    """Whether the value of an option is a secret.

    >>> is_secret("sasl.password"), is_secret("sasl.username")
    (True, False)
    """
    return any(word in option for word in _SECRET_WORDS)


def masked(options: Mapping[str, str]) -> dict[str, str]:
    """The options with secret values masked."""
    return {name: _MASK if is_secret(name) else value for name, value in options.items()}


def read_options(given: Iterable[str]) -> dict[str, str]:
    """``key=value`` texts as options; a later one overrides an earlier one.

    Raises:
        UsageError: a text without ``=``; the message does not repeat it, since it may be a secret.
    """
    options: dict[str, str] = {}
    for number, text in enumerate(given, 1):
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                f"--kafka-option takes key=value, for example security.protocol=SASL_SSL; option number {number} is not"
            )
        options[name.strip()] = value
    return options


REACH_WITHIN_S: Final = 5.0
"""Time limit of a command for the first answer of a cluster."""

MAX_MESSAGE_BYTES: Final = 4 << 20
"""Longest message that a client sends or accepts; snapshots are much longer than ticks."""

C = TypeVar("C")


def open_producer(settings: KafkaSettings, **more: Any) -> Producer:
    """An idempotent producer; a message counts as delivered once all in-sync replicas have it.

    The partition of a key is the one that Kafka's Java clients choose. ``more`` as for ``KafkaSettings.client``.

    Raises:
        UsageError: an option or its value is unknown to librdkafka.
    """
    own = {
        "enable_idempotence": True,
        "acks": "all",
        "partitioner": "murmur2_random",
        "compression_type": "lz4",
        "message_max_bytes": MAX_MESSAGE_BYTES,
    }
    return _open_client(Producer, settings, settings.client(**{**own, **more}))


def open_consumer(settings: KafkaSettings, **more: Any) -> Consumer:
    """A consumer of committed messages that commits nothing by itself. ``more`` must name a ``group_id``.

    Raises:
        UsageError: as for ``open_producer``.
    """
    own = {"isolation_level": "read_committed", "enable_auto_commit": False, "fetch_wait_max_ms": 50}
    return _open_client(Consumer, settings, settings.client(**{**own, **more}))


def open_admin(settings: KafkaSettings, **more: Any) -> AdminClient:
    """A client that creates and describes topics.

    Raises:
        UsageError: as for ``open_producer``.
    """
    return _open_client(AdminClient, settings, settings.client(**more))


def cluster_metadata(settings: KafkaSettings, within_s: float = REACH_WITHIN_S) -> ClusterMetadata:
    """The brokers and all topics of the cluster.

    Raises:
        BrokerUnavailable: no broker answers in time; with the last error of the connections.
    """
    errors: list[KafkaError] = []
    admin = open_admin(settings, error_cb=errors.append)
    try:
        return admin.list_topics(timeout=within_s)
    except KafkaException as error:
        admin.poll(0)
        causes = [each for each in errors if each.name() != "_ALL_BROKERS_DOWN"] or [error.args[0]]
        raise BrokerUnavailable(settings.bootstrap_servers, _error_text(settings, causes[-1])) from error


def require_topic(settings: KafkaSettings, topic: str) -> int:
    """The number of partitions of ``topic``.

    Raises:
        BrokerUnavailable: no broker answers in time.
        TopicMissing: the topic does not exist.
    """
    found = cluster_metadata(settings).topics.get(topic)
    if found is None or found.error is not None:
        raise TopicMissing(topic, settings.bootstrap_servers)
    return len(found.partitions)


def stream_error(settings: KafkaSettings, error: KafkaError, topic: str = "") -> StreamError:
    """A client error as an error of volspike; ``topic`` is the topic concerned."""
    name = error.name()
    if name in {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE", "_SSL", "_AUTHENTICATION"}:
        return BrokerUnavailable(settings.bootstrap_servers, _error_text(settings, error))
    if name in {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"}:
        return TopicMissing(topic or "of that name", settings.bootstrap_servers)
    about = f"{topic}: " if topic else ""
    return StreamError(f"{about}{_error_text(settings, error)} ({name.lstrip('_').lower()})")


def _error_text(settings: KafkaSettings, error: KafkaError) -> str:
    """The message of the error on one line, without secrets."""
    return settings.without_secrets(" ".join(error.str().split()))


def _open_client(kind: Callable[[Mapping[str, Any]], C], settings: KafkaSettings, client: Mapping[str, Any]) -> C:
    try:
        return kind(client)
    except KafkaException as error:
        raise UsageError(f"Kafka settings: {_error_text(settings, error.args[0])}") from error
