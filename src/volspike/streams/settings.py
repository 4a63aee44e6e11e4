"""How the cluster is reached, and what its topics are called. Secrets are shown to nobody but the client."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from volspike.errors import UsageError

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
