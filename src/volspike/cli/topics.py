"""``volspike topics``: the pipeline's topics, made and listed."""

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


class Action(StrEnum):
    """What is done with the topics."""

    CREATE = "create"
    LIST = "list"


def run(
    action: Annotated[Action, typer.Argument(help="`create` makes what is missing; `list` tells what is there.")],
    partitions: Annotated[int, typer.Option(help="Partitions of a new topic: as many workers can share it.")] = 3,
    replication: Annotated[
        int | None, typer.Option(help="Copies of a new topic; one on each broker, up to 3, when absent.")
    ] = None,
    bootstrap_servers: Servers = None,
    kafka_option: Options = None,
) -> None:
    """Create the pipeline's Kafka topics, or list the topics of a cluster."""
    if partitions < 1 or (replication is not None and replication < 1):
        raise UsageError(f"--partitions and --replication are at least 1, were {partitions} and {replication}")
    settings = cluster_settings(bootstrap_servers, kafka_option)
    from volspike.streams.topics import create_topics, describe_topics, pipeline_topics

    if action is Action.CREATE:
        _tell(create_topics(settings, pipeline_topics(settings, partitions, replication)))
    else:
        show_topics(describe_topics(settings))


def _tell(made: Sequence[TopicCreation]) -> None:
    for topic in made:
        out.print(f"{topic.name}: {'made' if topic.is_new else 'is there'}, {topic.partitions} partitions")
        for name, (there, planned) in topic.differs.items():
            warn(f"{topic.name} has {name}={there}, not {planned}")


def show_topics(topics: Sequence[TopicExtent]) -> None:
    """A table of topics; the cluster's own are not among them."""
    rows = [
        [topic.name, str(len(topic.partitions)), str(topic.partitions[0].copies), f"{topic.offsets:,}"]
        for topic in topics
    ]
    table("topics", ["topic", "partitions", "copies", "offsets"], rows)
