"""``volspike consume-check``: whether messages arrive in a topic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Options, Servers, cluster_settings
from volspike.cli.screen import out, table, working
from volspike.cli.topics import show_topics
from volspike.errors import NotEnoughData, TopicMissing, UsageError

if TYPE_CHECKING:
    from volspike.streams.clients import KafkaSettings
    from volspike.streams.topics import TopicCheck

EXAMPLES = "Example: volspike consume-check --topic ticks.raw --min 100"

MOST_KEYS = 5


def run(
    topic: Annotated[str | None, typer.Option(help="Topic to read (env KAFKA_TOPIC_RAW; default ticks.raw).")] = None,
    at_least: Annotated[int, typer.Option("--min", help="Least number of messages.")] = 1,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for them.")] = 30.0,
    list_topics: Annotated[
        bool, typer.Option("--list", help="List the topics of the cluster without reading messages.")
    ] = False,
    info: Annotated[
        bool, typer.Option("--info", help="Show the partitions of the topic without reading messages.")
    ] = False,
    bootstrap_servers: Servers = None,
    kafka_option: Options = None,
) -> None:
    """Read a Kafka topic from its beginning until enough messages arrive; status 3 if they do not."""
    if at_least < 1 or timeout <= 0:
        raise UsageError(f"--min must be at least 1 and --timeout above 0, got {at_least} and {timeout:g}")
    settings = cluster_settings(bootstrap_servers, kafka_option)
    name = settings.topic_raw if topic is None else topic
    if list_topics:
        from volspike.streams.topics import describe_topics

        show_topics(describe_topics(settings))
    if info:
        _info(settings, name)
    if not list_topics and not info:
        _check(settings, name, at_least, timeout)


def _info(settings: KafkaSettings, topic: str) -> None:
    from volspike.streams.topics import describe_topics

    extents = describe_topics(settings, [topic])
    if not extents:
        raise TopicMissing(topic, settings.bootstrap_servers)
    rows = [
        [str(part.partition), str(part.leader), f"{part.in_sync}/{part.copies}", *map(_count, (part.low, part.high))]
        for part in extents[0].partitions
    ]
    table(topic, ["partition", "leader", "copies in sync", "first offset", "next offset"], rows)
    out.print(f"{extents[0].offsets:,} offsets in {len(rows)} partitions")


def _count(number: int) -> str:
    return f"{number:,}"


def _check(settings: KafkaSettings, topic: str, at_least: int, timeout: float) -> None:
    from volspike.streams.topics import check_topic

    with working(f"reading {topic}"):
        found = check_topic(settings, topic, at_least, timeout)
    if found.messages < at_least:
        raise NotEnoughData(
            f"{topic} had {found.messages:,} messages within {timeout:g} s, expected {at_least:,}: is a producer up?"
        )
    parts = ", ".join(f"{number}: {count:,}" for number, count in sorted(found.partitions.items()))
    out.print(f"{found.messages:,} messages of {topic} in {found.seconds:.1f} s ({found.bytes:,} bytes)")
    out.print(f"partitions {parts}; keys {_keys(found)}; {_span(found)}")


def _keys(found: TopicCheck) -> str:
    most = sorted(found.keys.items(), key=lambda item: (-item[1], item[0]))[:MOST_KEYS]
    listed = [f"{key or '(none)'}: {count:,}" for key, count in most]
    more = len(found.keys) - len(listed)
    return ", ".join(listed) + (f" and {more:,} more" if more > 0 else "")


def _span(found: TopicCheck) -> str:
    from volspike.market import format_time

    if found.first_ms is None or found.last_ms is None:
        return "no timestamps"
    return f"from {format_time(found.first_ms * 1_000_000)} to {format_time(found.last_ms * 1_000_000)}"
