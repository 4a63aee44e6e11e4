"""``volspike topics``: creates and lists the topics of the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Options, Servers, cluster_settings
from volspike.cli.screen import out, table, warn
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.streams.topics import TopicCreation, TopicExtent

EXAMPLES = "Example: volspike topics create --partitions 3"


class TopicAction(StrEnum):
    """The operation on the topics."""

    CREATE = "create"
    LIST = "list"


def run(
    action: Annotated[TopicAction, typer.Argument(help="`create` adds missing topics; `list` shows all topics.")],
    partitions: Annotated[
        int, typer.Option(help="Partitions of a new topic, and so the most workers that can share it.")
    ] = 3,
    replication: Annotated[
        int | None, typer.Option(help="Copies of a new topic (default: one per broker, up to 3).")
    ] = None,
    bootstrap_servers: Servers = None,
    kafka_option: Options = None,
) -> None:
    """Create the pipeline's Kafka topics, or list the topics of a cluster."""
    if partitions < 1 or (replication is not None and replication < 1):
        raise UsageError(f"--partitions and --replication must be at least 1, got {partitions} and {replication}")
    settings = cluster_settings(bootstrap_servers, kafka_option)
    from volspike.streams.topics import create_topics, describe_topics, pipeline_topics

    if action is TopicAction.CREATE:
        _print_created(create_topics(settings, pipeline_topics(settings, partitions, replication)))
    else:
        show_topics(describe_topics(settings))


def _print_created(created: Sequence[TopicCreation]) -> None:
    for topic in created:
        out.print(f"{topic.name}: {'created' if topic.is_new else 'exists'}, {topic.partitions} partitions")
        for name, (there, planned) in topic.differs.items():
            warn(f"{topic.name} has {name}={there}, not {planned}")


def show_topics(topics: Sequence[TopicExtent]) -> None:
    """Prints a table of topics without the internal ones of the cluster."""
    rows = [
        [topic.name, str(len(topic.partitions)), str(topic.partitions[0].copies), f"{topic.offsets:,}"]
        for topic in topics
    ]
    table("topics", ["topic", "partitions", "copies", "offsets"], rows)
