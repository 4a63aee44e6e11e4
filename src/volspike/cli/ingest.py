"""``volspike ingest``: listens to a market and records it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.screen import err, note_if_simulated, out, warn
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.config import FeedSettings
    from volspike.serving.sources import Source
    from volspike.tape.recorder import Recorder

EXAMPLES = "Example: volspike ingest --pair BTC-USD --minutes 60 --save-disk"

LOOK_EVERY_S = 1.0


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
) -> None:
    """Listen to an exchange and record its market, hour by hour, with every gap named."""
    if minutes < 0 or speed < 0:
        raise UsageError(f"--minutes and --speed must not be below 0, were {minutes:g} and {speed:g}")
    if source.startswith("tape:"):
        raise UsageError("a tape is recorded already; `volspike convert` writes it anew")
    asyncio.run(_ingest(source, feed_settings(pair), minutes, out_folder if save_disk else None, speed))


def feed_settings(pairs: list[str] | None) -> FeedSettings:
    """What is listened to: the pairs, and what the environment says of the rest."""
    from volspike.config import FeedSettings, settle

    return settle(FeedSettings, {"products": tuple(pairs) if pairs else None}, os.environ, None, "feed")


async def _ingest(name: str, settings: FeedSettings, minutes: float, folder: Path | None, speed: float) -> None:
    from volspike.serving.sources import open_source
    from volspike.tape.recorder import Recorder

    async with open_source(name, settings, speed=speed) as source:
        note_if_simulated(source.simulated)
        recorder = None if folder is None else Recorder(folder, simulated=source.simulated)
        err.print(f"listening to {source.name} for {', '.join(settings.products)}", markup=False)
        told = Told()
        listening = asyncio.create_task(_listen(source, recorder, told))
        stop_on_signals(listening)
        with contextlib.suppress(TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(asyncio.shield(listening), minutes * 60 or None)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        if recorder is not None:
            recorder.close()
            if recorder.fault:
                warn(recorder.fault)
    told.show(recorder)


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


async def _listen(source: Source, recorder: Recorder | None, told: Told) -> None:
    from volspike.feeds.session_events import FeedError, FeedFault, FeedFrame, FeedState
    from volspike.market import Gap

    flushing = asyncio.create_task(_flush(recorder))
    try:
        async for event in source.events:
            match event:
                case FeedFrame():
                    told.frames += 1
                    told.ticks += len(event.frame.ticks)
                    if recorder is not None:
                        recorder.frame(event.received, event.data, event.frame)
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


async def _flush(recorder: Recorder | None) -> None:
    """Lets the recorder write while the market is silent."""
    while recorder is not None:
        await asyncio.sleep(LOOK_EVERY_S)
        recorder.tick(time.time_ns())


def stop_on_signals(task: asyncio.Task[None]) -> None:
    """Ends the task on SIGINT and SIGTERM, so that what was recorded is written out."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
