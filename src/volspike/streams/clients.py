"""How the cluster is reached, and what its topics are called. Secrets are shown to nobody but the client.

Clients of the cluster, made from the settings, and what their errors mean in volspike's terms.
"""

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
"""What correctness rests on, or a flag of its own sets; it cannot be passed through."""

_SECRET_WORDS: Final = ("password", "secret", "token", "oauthbearer.config", "key.pem", "userinfo")
_MASK: Final = "***"


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster and the topics of the pipeline.

    ``options`` are settings of librdkafka that go to every client as they are: TLS, SASL and the like.
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
            raise ValueError("bootstrap_servers names no broker")
        if taken := sorted(OWN_OPTIONS & set(self.options)):
            raise ValueError(f"options must leave {', '.join(taken)} to volspike")

    def client(self, **more: Any) -> dict[str, Any]:
        """Settings of a client; ``more`` are those of its kind, with ``_`` for ``.``. Options come last and win.

        librdkafka's own lines on stderr are off: what they say comes as errors, too.
        """
        own = {"bootstrap.servers": self.bootstrap_servers, "client.id": "volspike", "log_level": 0}
        return {**own, **{_option(name): value for name, value in more.items()}, **self.options}

    def without_secrets(self, text: str) -> str:
        """``text`` with every secret value in it masked."""
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
    """librdkafka's spelling; the names of the client's callbacks have underscores."""
    return name if name.endswith("_cb") or name == "on_commit" else name.replace("_", ".")


def is_secret(option: str) -> bool:
    """Whether an option's value is for the client's eyes only.

    >>> is_secret("sasl.password"), is_secret("sasl.username")
    (True, False)
    """
    return any(word in option for word in _SECRET_WORDS)


def masked(options: Mapping[str, str]) -> dict[str, str]:
    """The options with their secrets hidden."""
    return {name: _MASK if is_secret(name) else value for name, value in options.items()}


def read_options(given: Iterable[str]) -> dict[str, str]:
    """``key=value`` texts as options; a later one wins.

    Raises:
        UsageError: one has no ``=``; it is not repeated, for it may be a secret.
    """
    options: dict[str, str] = {}
    for number, text in enumerate(given, 1):
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                f"--kafka-option takes key=value, as in security.protocol=SASL_SSL; number {number} is not"
            )
        options[name.strip()] = value
    return options


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
