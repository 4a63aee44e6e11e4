"""``volspike replay-to-kafka``: recorded tapes into a topic, at any speed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Options, Servers, cluster_settings, handling
from volspike.cli.screen import note_if_simulated, out, print_tape_report, warn, working
from volspike.errors import UsageError
from volspike.progress import Step

if TYPE_CHECKING:
    from volspike.streams.producer import TopicProducer
    from volspike.streams.replay import ReplayProgress
    from volspike.streams.wire import Message
    from volspike.tape import TapeReport

EXAMPLES = 'Example: volspike replay-to-kafka --input "data/raw/*.ndjson" --speed 10'

DELIVER_WITHIN_S = 60.0
STOP_WITHIN_S = 5.0


def run(
    tapes: Annotated[list[str], typer.Option("--input", help="Tapes, folders or globs; merged by receive time.")],
    topic: Annotated[
        str | None, typer.Option(help="Topic for the ticks (env KAFKA_TOPIC_RAW; default ticks.raw).")
    ] = None,
    speed: Annotated[
        float, typer.Option(help="1 for the original speed, 10 for ten times that, 0 for the fastest.")
    ] = 1.0,
    max_messages: Annotated[int, typer.Option(help="Most messages to send; 0 for all.")] = 0,
    bootstrap_servers: Servers = None,
    kafka_option: Options = None,
) -> None:
    """Replay recorded tapes into a Kafka topic, line for line, keyed by product."""
    if not 0 <= speed < float("inf") or max_messages < 0:
        raise UsageError(f"--speed and --max-messages must not be negative, got {speed:g} and {max_messages}")
    settings = cluster_settings(bootstrap_servers, kafka_option, topic_raw=topic)
    from volspike.streams.clients import require_topic
    from volspike.streams.producer import TopicProducer
    from volspike.streams.replay import ReplayProgress, tape_messages
    from volspike.tape import TapeReport

    report, progress = TapeReport(), ReplayProgress()
    messages = tape_messages(tapes, report)
    require_topic(settings, settings.topic_raw)
    producer = TopicProducer(settings, settings.topic_raw)
    chosen = islice(messages, max_messages) if max_messages else messages
    with handling(_interrupt, signal.SIGTERM):
        try:
            _replay(chosen, producer, speed, progress, lambda: _share(report, progress, max_messages))
        finally:
            _print_result(producer, progress, report)
    producer.raise_if_failed()


def _share(report: TapeReport, progress: ReplayProgress, max_messages: int) -> float:
    """The share that is sent: of the most messages, or of the bytes of the tapes."""
    read = report.bytes_read / max(1, report.total_bytes)
    return max(read, progress.sent / max_messages) if max_messages else read


def _replay(
    messages: Iterator[Message],
    producer: TopicProducer,
    speed: float,
    progress: ReplayProgress,
    share: Callable[[], float],
) -> None:
    """Sends the messages; after Ctrl-C, queued messages are still delivered for a few seconds."""
    from volspike.streams.replay import replay

    with working("replaying") as say:

        def show(at: ReplayProgress) -> None:
            text = (
                f"{at.sent:,} sent, {producer.delivered:,} delivered to {producer.topic}, "
                f"{at.rate:,.0f} messages/s, {at.market_seconds:,.0f} s of the market"
            )
            say(Step(text, share()))

        within_s = STOP_WITHIN_S
        try:
            replay(messages, producer, speed, progress, show=show)
            within_s = DELIVER_WITHIN_S
        finally:
            producer.flush(within_s)
            producer.give_up()


def _print_result(producer: TopicProducer, progress: ReplayProgress, report: TapeReport) -> None:
    print_tape_report(report)
    note_if_simulated(report.simulated)
    out.print(
        f"{producer.delivered:,} of {progress.sent:,} messages delivered to {producer.topic} "
        f"in {progress.seconds:.1f} s ({progress.rate:,.0f}/s), {progress.market_seconds:,.1f} s of the market"
    )
    if progress.behind_s > 1.0:
        warn(f"up to {progress.behind_s:.1f} s behind the requested speed: the broker or this machine is too slow")


def _interrupt(*_: object) -> None:
    """SIGTERM ends the command as Ctrl-C does."""
    raise KeyboardInterrupt
