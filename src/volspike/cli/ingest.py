"""``volspike ingest``: listens to a market and records it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from volspike.cli.options import MetricsHost, MetricsPort, Options, Servers, cluster_settings, metrics_server
from volspike.cli.screen import err, note_if_simulated, out, warn
from volspike.errors import BrokerUnavailable, StreamError, UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from volspike.config import FeedSettings
    from volspike.live.collector import FeedWatch
    from volspike.live.sources import Source
    from volspike.streams.clients import KafkaSettings
    from volspike.streams.producer import TickRelay
    from volspike.tape.recorder import Recorder

EXAMPLES = "Example: volspike ingest --pair BTC-USD --minutes 60 --save-disk"

LOOK_EVERY_S = 1.0
DELIVER_WITHIN_S = 10.0


def run(
    pair: Annotated[list[str] | None, typer.Option("--pair", "--pairs", help="Products; BTC-USD when absent.")] = None,
    minutes: Annotated[float, typer.Option(help="How long; 0 is until stopped.")] = 0.0,
    save_disk: Annotated[bool, typer.Option("--save-disk/--no-save-disk", help="Record what comes.")] = True,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder of the tape and its ledger of gaps.")] = Path(
        "data/raw"
    ),
    source: Annotated[
        str, typer.Option(help="auto, coinbase, coinbase-exchange or simulator; auto takes Coinbase where it answers.")
    ] = "auto",
    speed: Annotated[float, typer.Option(help="How fast the simulated market runs; 0: as fast as it goes.")] = 1.0,
    kafka: Annotated[
        bool, typer.Option("--kafka/--no-kafka", help="Send every tick to a Kafka topic as well.")
    ] = False,
    topic: Annotated[str | None, typer.Option(help="That topic; $KAFKA_TOPIC_RAW, else ticks.raw when absent.")] = None,
    bootstrap_servers: Servers = None,
    kafka_option: Options = None,
    metrics_port: MetricsPort = 0,
    metrics_host: MetricsHost = "127.0.0.1",
) -> None:
    """Record an exchange's market hour by hour, with a ledger of every gap."""
    if minutes < 0 or speed < 0:
        raise UsageError(f"--minutes and --speed must not be below 0, were {minutes:g} and {speed:g}")
    if source.startswith("tape:"):
        raise UsageError("a tape is recorded already; `volspike convert` writes it anew")
    if not 0 <= metrics_port < 65_536:
        raise UsageError(f"--metrics-port is a port, was {metrics_port}")
    cluster = cluster_settings(bootstrap_servers, kafka_option, topic_raw=topic) if kafka else None
    at = MetricsAt(metrics_host, metrics_port)
    asyncio.run(_ingest(source, feed_settings(pair), minutes, out_folder if save_disk else None, speed, cluster, at))


class MetricsAt(NamedTuple):
    """Where metrics are told; port 0: nowhere."""

    host: str
    port: int


def feed_settings(pairs: list[str] | None) -> FeedSettings:
    """What is listened to: the pairs, and what the environment says of the rest."""
    from volspike.config import FeedSettings, settle

    return settle(FeedSettings, {"products": tuple(pairs) if pairs else None}, os.environ, None, "feed")


async def _ingest(
    name: str,
    settings: FeedSettings,
    minutes: float,
    folder: Path | None,
    speed: float,
    cluster: KafkaSettings | None,
    at: MetricsAt,
) -> None:
    from volspike.live.collector import FeedWatch
    from volspike.live.sources import open_source
    from volspike.tape.recorder import Recorder

    async with open_source(name, settings, speed=speed) as source:
        note_if_simulated(source.simulated)
        relay = None if cluster is None else _relay(cluster, source)
        recorder = None if folder is None else Recorder(folder, simulated=source.simulated)
        err.print(f"listening to {source.name} for {', '.join(settings.products)}", markup=False)
        told, watch = Told(), FeedWatch(source.timed_from)
        with metrics_server(_registry(source, watch, recorder), at.host, at.port):
            looking = asyncio.create_task(_look_for(cluster)) if cluster is not None else None
            listening = asyncio.create_task(_listen(source, recorder, relay, told, watch))
            stop_on_signals(listening)
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(listening), minutes * 60 or None)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        if recorder is not None:
            recorder.close()
            if recorder.fault:
                warn(recorder.fault)
        if looking is not None:
            await looking
    told.show(recorder)
    if relay is not None:
        relay.close(DELIVER_WITHIN_S)
        _tell_relayed(relay, folder)


class Told:
    """Counts of what came."""

    def __init__(self) -> None:
        self.frames = self.ticks = self.malformed = self.gaps = 0
        self.began = time.monotonic()

    def show(self, recorder: Recorder | None) -> None:
        """One line with the figures."""
        kept = "not recorded" if recorder is None else f"{recorder.recorded:,} recorded in {recorder.folder}"
        out.print(
            f"{self.ticks:,} ticks in {self.frames:,} frames over {time.monotonic() - self.began:.0f} s, "
            f"{self.malformed:,} malformed, {self.gaps:,} gaps, {kept}"
        )


def _registry(source: Source, watch: FeedWatch, recorder: Recorder | None) -> CollectorRegistry:
    """What Prometheus is told of the feed."""
    from prometheus_client import CollectorRegistry

    from volspike.live.collector import FeedCollector

    registry = CollectorRegistry()
    registry.register(FeedCollector(source.name, simulated=source.simulated, watch=watch, recorder=recorder))
    return registry


def _relay(cluster: KafkaSettings, source: Source) -> TickRelay:
    from volspike.streams.producer import TickRelay

    return TickRelay(cluster, warn, simulated=source.simulated)


async def _look_for(cluster: KafkaSettings) -> None:
    """Says soon that the topic is not there; the market is listened to meanwhile, and afterwards."""
    from volspike.streams.clients import require_topic

    try:
        await asyncio.to_thread(require_topic, cluster, cluster.topic_raw)
    except BrokerUnavailable:
        pass  # the relay tells it once there are ticks
    except StreamError as error:
        warn(f"{error}; ticks wait for it, listening goes on")


def _tell_relayed(relay: TickRelay, folder: Path | None) -> None:
    out.print(f"{relay.delivered:,} ticks delivered to {relay.topic}")
    if relay.undelivered:
        again = "" if folder is None else f"; the tapes in {folder} have them: volspike replay-to-kafka"
        warn(f"{relay.undelivered:,} ticks were not delivered to {relay.topic}{again}")


async def _listen(
    source: Source, recorder: Recorder | None, relay: TickRelay | None, told: Told, watch: FeedWatch
) -> None:
    from volspike.feeds.events import FeedError, FeedFault, FeedFrame, FeedState
    from volspike.market import Gap

    flushing = asyncio.create_task(_flush(recorder, relay))
    try:
        async for event in source.events:
            watch.take(event)
            match event:
                case FeedFrame():
                    told.frames += 1
                    told.ticks += len(event.frame.ticks)
                    if recorder is not None:
                        recorder.frame(event.received, event.frame)
                    if relay is not None:
                        relay.frame(event.received, event.frame)
                case Gap():
                    told.gaps += 1
                    warn(f"gap ({event.cause}): {(event.end - event.start) / 1e9:.1f} s of {', '.join(event.products)}")
                    if recorder is not None:
                        recorder.gap(event)
                case FeedFault():
                    told.malformed += 1
                    warn(str(event.error))
                case FeedState():
                    err.print(f"{'connected' if event.is_connected else 'not connected'}: {event.reason}", markup=False)
                case FeedError():
                    warn(event.reason)
    finally:
        flushing.cancel()


async def _flush(recorder: Recorder | None, relay: TickRelay | None) -> None:
    """Lets the recorder write while the market is silent, and the relay say how it fares."""
    while recorder is not None or relay is not None:
        await asyncio.sleep(LOOK_EVERY_S)
        if recorder is not None:
            recorder.tick(time.time_ns())
        if relay is not None:
            relay.tick()


def stop_on_signals(task: asyncio.Task[None]) -> None:
    """Ends the task on SIGINT and SIGTERM, so that what was recorded is written out."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
