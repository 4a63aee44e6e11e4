"""``volspike ingest``: listens to an exchange and records its market."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from volspike.cli import options
from volspike.cli.screen import err, note_if_simulated, out, warn
from volspike.errors import BrokerUnavailable, DataError, StreamError, UsageError

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from volspike.background import BackgroundTask
    from volspike.config import FeedSettings
    from volspike.live.metrics import FeedCounts
    from volspike.live.sources import Source
    from volspike.market import Gap
    from volspike.streams.clients import KafkaSettings
    from volspike.streams.producer import TickRelay
    from volspike.tape.recorder import Recorder
    from volspike.tape.upkeep import TapeUpkeep, UpkeepResult

EXAMPLES = "Example: volspike ingest --pair BTC-USD --minutes 60 --save-disk"

PeriodicWork: TypeAlias = "dict[BackgroundTask, Callable[[], Awaitable[None]]]"

CHECK_EVERY_S = 1.0
URL_SUFFIX = "_WS_URL"
DELIVER_WITHIN_S = 10.0


def run(
    pair: options.Products = None,
    minutes: Annotated[float, typer.Option(help="Minutes to listen; 0 to listen until stopped.")] = 0.0,
    save_disk: Annotated[bool, typer.Option("--save-disk/--no-save-disk", help="Record the market.")] = True,
    out_folder: Annotated[Path, typer.Option("--out", help="Folder for the tape and its gap ledger.")] = Path(
        "data/raw"
    ),
    source: Annotated[
        str,
        typer.Option(
            help="auto, simulator, or a protocol (coinbase, coinbase-exchange, binance, kraken, okx, bybit); auto "
            "listens to each product's venue, or to the simulator if none answers."
        ),
    ] = "auto",
    speed: Annotated[float, typer.Option(help="Speed of the simulated market; 0 for the fastest.")] = 1.0,
    kafka: Annotated[
        bool, typer.Option("--kafka/--no-kafka", help="Send every tick to a Kafka topic as well.")
    ] = False,
    topic: Annotated[
        str | None, typer.Option(help="Kafka topic for the ticks (env KAFKA_TOPIC_RAW; default ticks.raw).")
    ] = None,
    bootstrap_servers: options.Servers = None,
    kafka_option: options.Options = None,
    keep_days: options.KeepDays = 30.0,
    metrics_port: options.MetricsPort = 0,
    metrics_host: options.MetricsHost = "127.0.0.1",
) -> None:
    """Record an exchange's market hour by hour, with a ledger of every gap.

    The exit status is 3 if nothing was recorded.
    """
    for option, number in (("--minutes", minutes), ("--speed", speed), ("--keep-days", keep_days)):
        options.require_amount(option, number)
    if source.startswith("tape:"):
        raise UsageError("a tape is already recorded; `volspike convert` writes it in another format")
    options.require_folder("--out", out_folder)
    options.check_port(metrics_port)
    cluster = options.cluster_settings(bootstrap_servers, kafka_option, topic_raw=topic) if kafka else None
    folder = out_folder if save_disk else None
    if folder is not None:
        options.check_writable(folder, "--out")
    asyncio.run(
        _ingest(source, feed_settings(pair), minutes, folder, keep_days, speed, cluster, (metrics_host, metrics_port))
    )


def feed_settings(pairs: list[str] | None) -> FeedSettings:
    """The settings of the feed: the products, and the rest from the environment (``BINANCE_WS_URL`` for Binance)."""
    from volspike.config import FeedSettings, load_settings

    urls = {
        name.removesuffix(URL_SUFFIX).lower().replace("_", "-"): url
        for name, url in os.environ.items()
        if name.endswith(URL_SUFFIX)
    }
    products = tuple(map(_spelled, pairs)) if pairs else None
    return load_settings(FeedSettings, {"products": products, "urls": urls}, os.environ, None, "feed")


def _spelled(pair: str) -> str:
    """A product in the canonical spelling; Coinbase stays where it is stated, since ``--source`` may name another."""
    from volspike.market.product import COINBASE, canonical_product, split_product

    venue, name = split_product(pair.strip(), "")[0].lower(), canonical_product(pair)
    return f"{venue}:{name}" if venue == COINBASE else name


async def _ingest(
    name: str,
    settings: FeedSettings,
    minutes: float,
    folder: Path | None,
    keep_days: float,
    speed: float,
    cluster: KafkaSettings | None,
    metrics_at: tuple[str, int],
) -> None:
    from volspike.live.metrics import FeedCounts
    from volspike.live.sources import open_source
    from volspike.tape.recorder import Recorder
    from volspike.tape.upkeep import TapeUpkeep

    async with open_source(name, settings, speed=speed) as source:
        note_if_simulated(source.simulated)
        relay = None if cluster is None else _relay(cluster, source)
        recorder, upkeep = None, None
        if folder is not None:
            recorder = await asyncio.to_thread(Recorder, folder, simulated=source.simulated)
            upkeep = TapeUpkeep(folder, keep_days, report=_report_upkeep)
        err.print(f"listening to {source.name} for {', '.join(settings.products)}", markup=False)
        counts, began = FeedCounts(source.timed_from, source.stats, source.feeds), time.monotonic()
        periodic = _periodic_work(recorder, relay)
        tasks = [*periodic, *(task for part in (recorder, upkeep) if part is not None for task in part.tasks)]
        with options.metrics_server(_registry(source, counts, recorder, upkeep, tasks), *metrics_at):
            topic_check = asyncio.create_task(_warn_if_missing(cluster)) if cluster is not None else None
            listening = asyncio.create_task(_listen(source, recorder, relay, counts, periodic))
            options.on_stop_signals(listening.cancel)  # the recorder is closed properly
            with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(asyncio.shield(listening), minutes * 60 or None)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        if upkeep is not None:
            await asyncio.to_thread(upkeep.close)
        if recorder is not None:
            await asyncio.to_thread(recorder.close)
            if recorder.fault:
                warn(recorder.fault)
            if recorder.unrecorded:
                warn(f"{recorder.unrecorded:,} ticks could not be recorded; `volspike gaps --tape {folder}` lists when")
        if topic_check is not None:
            await topic_check
    _print_counts(counts, time.monotonic() - began, recorder)
    if relay is not None:
        relay.close(DELIVER_WITHIN_S)
        _print_relayed(relay, folder)
    kept = counts.ticks if recorder is None else recorder.recorded
    if not kept:
        where = "received" if recorder is None else f"recorded in {recorder.folder}"
        raise DataError(f"no tick was {where} from {source.name}: {_reason(counts, recorder)}")


def _reason(counts: FeedCounts, recorder: Recorder | None) -> str:
    """The reason for the missing ticks, and a remedy."""
    if recorder is not None and recorder.fault:
        return recorder.fault
    if not counts.connections:
        return f"{counts.reason}; check the network with volspike doctor"
    refused = () if counts.stats is None else counts.stats().refused
    if refused:
        return f"the exchange refuses {', '.join(refused)}; name other products with --pair"
    return "it sent none; listen longer with --minutes, or name other products with --pair"


def _print_counts(counts: FeedCounts, elapsed_s: float, recorder: Recorder | None) -> None:
    known = "known " if counts.unverifiable else ""
    kept = "not recorded" if recorder is None else f"{recorder.recorded:,} recorded in {recorder.folder}"
    out.print(
        f"{counts.ticks:,} ticks in {counts.frames:,} frames over {elapsed_s:.0f} s, "
        f"{counts.malformed:,} malformed, {sum(counts.gaps.values()):,} {known}gaps, {kept}"
    )


def _registry(
    source: Source,
    counts: FeedCounts,
    recorder: Recorder | None,
    upkeep: TapeUpkeep | None,
    tasks: list[BackgroundTask],
) -> CollectorRegistry:
    """The metrics of the feed for Prometheus."""
    from prometheus_client import CollectorRegistry

    from volspike.background import BackgroundCollector
    from volspike.live.metrics import FeedCollector

    registry = CollectorRegistry()
    registry.register(BackgroundCollector(lambda: tasks))
    feed = FeedCollector(source.name, mode=source.mode, counts=counts, recorder=recorder, upkeep=upkeep)
    registry.register(feed)
    return registry


def _report_upkeep(result: UpkeepResult) -> None:
    for note in result.notes:
        warn(f"not compacted: {note}")
    if result.hours:
        megabytes = f"{result.bytes_before / 1e6:,.1f} MB to {result.bytes_after / 1e6:,.1f} MB"
        err.print(f"{result.hours:,} recorded hours compacted from {megabytes}", markup=False)
    if result.deleted:
        oldest = min(result.deleted)
        warn(f"{len(result.deleted):,} tapes older than --keep-days deleted, {oldest} the first of them")


def _relay(cluster: KafkaSettings, source: Source) -> TickRelay:
    from volspike.streams.producer import TickRelay

    return TickRelay(cluster, warn, simulated=source.simulated)


async def _warn_if_missing(cluster: KafkaSettings) -> None:
    """Warns early if the topic is missing; listening continues."""
    from volspike.streams.clients import require_topic

    try:
        await asyncio.to_thread(require_topic, cluster, cluster.topic_raw)
    except BrokerUnavailable:
        pass  # the relay warns once there are ticks
    except StreamError as error:
        warn(f"{error}; ticks wait for it, listening continues")


def _print_relayed(relay: TickRelay, folder: Path | None) -> None:
    out.print(f"{relay.delivered:,} ticks delivered to {relay.topic}")
    if relay.undelivered:
        again = "" if folder is None else f"; the tapes in {folder} have them: send them with volspike replay-to-kafka"
        warn(f"{relay.undelivered:,} ticks were not delivered to {relay.topic}{again}")


def _print_gap(gap: Gap) -> None:
    if gap.verifiable:
        warn(f"gap ({gap.cause}): {(gap.end - gap.start) / 1e9:.1f} s of {', '.join(gap.products)}")
    elif gap.start == gap.end:  # at the beginning of the connection, and once more over its span at its end
        warn(f"{', '.join(gap.products)}: {gap.detail}")


async def _listen(
    source: Source, recorder: Recorder | None, relay: TickRelay | None, counts: FeedCounts, periodic: PeriodicWork
) -> None:
    from volspike.feeds.events import FeedError, FeedFault, FeedFrame, FeedState
    from volspike.market import Gap

    running = [asyncio.create_task(task.repeat(step, CHECK_EVERY_S)) for task, step in periodic.items()]
    try:
        async for event in source.events:
            counts.add(event)
            match event:
                case FeedFrame():
                    if recorder is not None:
                        recorder.frame(event.received, event.frame)
                    if relay is not None:
                        relay.frame(event.received, event.frame)
                case Gap():
                    _print_gap(event)
                    if recorder is not None:
                        recorder.gap(event)
                case FeedFault():
                    warn(str(event.error))
                case FeedState():
                    state = "connected" if event.is_connected else "not connected"
                    err.print(f"{event.feed} {state}: {event.reason}", markup=False)
                case FeedError():
                    warn(event.reason)
    finally:
        for task in running:
            task.cancel()


def _periodic_work(recorder: Recorder | None, relay: TickRelay | None) -> PeriodicWork:
    """Warns when the tape cannot be written, and lets the relay report stalls."""
    from volspike.background import BackgroundTask

    reported = ""

    async def check_tape() -> None:
        nonlocal reported
        if recorder is not None and recorder.fault != reported:
            reported = recorder.fault
            warn(reported or f"{recorder.folder}: the tape is written again; {recorder.unrecorded:,} ticks were lost")

    async def serve_relay() -> None:
        if relay is not None:
            relay.tick()

    parts = (("tape", recorder, check_tape), ("kafka", relay, serve_relay))
    return {BackgroundTask(name): step for name, part, step in parts if part is not None}
