"""What the commands that speak with Kafka have in common: which cluster, reached how."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from volspike.streams.clients import KafkaSettings

Servers: TypeAlias = Annotated[
    str | None,
    typer.Option("--bootstrap-servers", help="Brokers, host:port; else $KAFKA_BOOTSTRAP_SERVERS, else localhost:9092."),
]
Options: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka-option",
        envvar="KAFKA_OPTIONS",
        help="key=value of librdkafka, as for TLS and SASL: security.protocol=SASL_SSL …",
    ),
]


def cluster_settings(servers: str | None, options: list[str] | None, **topics: str | None) -> KafkaSettings:
    """The cluster from flags and environment; ``topics`` are fields of ``KafkaSettings``, None where not given.

    Raises:
        UsageError: an option that is none, or one that volspike sets; Kafka's client is not installed.
    """
    from volspike.config import settle
    from volspike.streams.clients import KafkaSettings, read_options

    given = read_options(options) if options else None
    return settle(KafkaSettings, {"bootstrap_servers": servers, "options": given, **topics}, os.environ, None, "kafka")
