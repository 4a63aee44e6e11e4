"""``volspike up``: a live market, scored, recorded and shown, in one process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from volspike.cli.ingest import feed_settings
from volspike.cli.screen import out
from volspike.errors import UsageError

EXAMPLES = "Example: volspike up --pair BTC-USD --pair ETH-USD"


def run(
    pair: Annotated[list[str] | None, typer.Option("--pair", "--pairs", help="Products; BTC-USD when absent.")] = None,
    source: Annotated[
        str, typer.Option(help="auto, coinbase, coinbase-exchange, simulator, or tape:PATH; auto looks once, at start.")
    ] = "auto",
    model: Annotated[
        Path | None,
        typer.Option(
            help="An artifact's folder (env MODEL_PATH; else models/artifacts/production, else the shipped one)."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on (env API_HOST; default 127.0.0.1).")] = None,
    port: Annotated[int | None, typer.Option(help="Port (env API_PORT; default 8000).")] = None,
    tape: Annotated[Path, typer.Option(help="Folder to record to.")] = Path("data/raw"),
    outcomes: Annotated[
        Path, typer.Option(help="File of predictions and what became of them a minute later (SQLite).")
    ] = Path("data/outcomes.sqlite"),
    alert: Annotated[
        list[str] | None,
        typer.Option(
            help="Where alerts go, an address of Apprise (mailto://, slack://, json://, …).", envvar="ALERT_URLS"
        ),
    ] = None,
    record: Annotated[bool, typer.Option("--record/--no-record", help="Record what comes.")] = True,
    speed: Annotated[
        float, typer.Option(help="How fast a tape or simulated market runs; 0: as fast as it goes.")
    ] = 1.0,
) -> None:
    """Listen to a market, score every tick, record it, and show it on a page."""
    import uvloop

    from volspike.config import ServingSettings, settle
    from volspike.serving.logs import configure_logs
    from volspike.serving.run import listen
    from volspike.serving.up import LiveWishes, serve_live

    if speed < 0:
        raise UsageError(f"--speed must not be below 0, was {speed:g}")
    serving = settle(ServingSettings, {"host": host, "port": port}, os.environ, None, "serving")
    wishes = LiveWishes(
        source=source,
        speed=speed,
        model=model if model is not None or "MODEL_PATH" not in os.environ else serving.model,
        tape=tape if record else None,
        outcomes=outcomes,
        alerts=tuple(alert or ()),
    )
    feed = feed_settings(pair)
    configure_logs(serving.log_level)
    with listen(serving.host, serving.port) as listener:
        address, bound = listener.getsockname()[:2]
        out.print(f"http://{address}:{bound}/ shows the market, /docs the API; stop with Ctrl-C", markup=False)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_live(wishes, feed, serving, listener))
