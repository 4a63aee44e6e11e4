"""``volspike up``: listens, scores, records and serves the dashboard in one process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from volspike.cli import options
from volspike.cli.ingest import feed_settings
from volspike.cli.screen import out
from volspike.errors import UsageError

if TYPE_CHECKING:
    from volspike.background import BackgroundTask
    from volspike.config import ServingSettings
    from volspike.live.sources import Source
    from volspike.live.up import Background

EXAMPLES = "Example: volspike up --pair binance:BTC-USDT --pair coinbase:BTC-USD --pair kraken:ETH-USD"

SWITCH_INTERVAL_S: Final = 1e-4
"""How soon a thread gives the interpreter back to the event loop. With Python's default of 5 ms, a tick that arrives
while a thread works, as on a large `/predict`, waits that long."""


def run(
    pair: options.Products = None,
    source: Annotated[
        str,
        typer.Option(
            help="auto, simulator, tape:PATH, or a protocol (coinbase, coinbase-exchange, binance, kraken, okx, "
            "bybit). auto listens to each product's venue, or to the simulator if none answers; it decides once, at "
            "start. A replayed tape is scored by the model that a live market of its kind would get."
        ),
    ] = "auto",
    model: options.Model = None,
    variant: options.Variant = None,
    host: options.Host = None,
    port: options.Port = None,
    allowed_host: options.AllowedHosts = None,
    root_path: options.RootPath = None,
    api_key_file: options.KeyFile = None,
    rate_limit: options.RateLimit = None,
    tape: Annotated[Path, typer.Option(help="Folder for the tape.")] = Path("data/raw"),
    outcomes: Annotated[Path, typer.Option(help="File for predictions and their outcomes (SQLite).")] = Path(
        "data/outcomes.sqlite"
    ),
    alert: options.Receivers = None,
    quiet_hours: options.QuietHoursOption = None,
    alert_threshold: options.AlertThresholdOption = None,
    keep_days: options.KeepDays = 30.0,
    record: Annotated[bool, typer.Option("--record/--no-record", help="Record the market.")] = True,
    retrain: Annotated[
        bool | None,
        typer.Option(
            "--retrain/--no-retrain",
            help="Retrain on the recorded market in a separate process (default: if a real market is recorded).",
        ),
    ] = None,
    retrain_at: Annotated[
        str, typer.Option(help="When to check for drift, as a cron expression in UTC with weekdays by name.")
    ] = "0 2 * * mon",
    speed: Annotated[float, typer.Option(help="Speed of a tape or simulated market; 0 for the fastest.")] = 1.0,
    config: options.AlertConfig = None,
) -> None:
    """Listen to a market, score every tick, record it, and show it on a page.

    A model promoted meanwhile takes over between two ticks.
    """
    import uvloop

    from volspike.api.server import listen, warn_if_open
    from volspike.live.up import LiveOptions, serve_live
    from volspike.logs import configure_logs
    from volspike.models.choice import named_model

    options.require_amount("--speed", speed)
    options.require_amount("--keep-days", keep_days)
    serving = options.serving_settings(
        config,
        api_key_file,
        model=model,
        variant=variant,
        host=host,
        port=port,
        allowed_hosts=tuple(allowed_host) if allowed_host else None,
        root_path=root_path,
        rate_limit=rate_limit,
    )
    alerts = options.alerting(config, alert, quiet_hours, alert_threshold)
    is_recorded = record and not source.startswith("tape:")
    if retrain and not is_recorded:
        raise UsageError("--retrain needs a recorded market: remove --no-record or the tape source")
    if is_recorded:
        options.check_writable(tape, "--tape")
    wanted = retrain if retrain is not None else None if is_recorded and named_model(serving) is None else False
    live = LiveOptions(
        source=source,
        speed=speed,
        tape=tape if record else None,
        outcomes=outcomes,
        keep_days=keep_days,
        alerts=alerts.receivers,
        quiet_hours=alerts.quiet_hours,
        thresholds=alerts.thresholds,
        background=_retraining(wanted, retrain_at, tape, outcomes, serving),
    )
    feed = feed_settings(pair)
    configure_logs(serving.log_level)
    with listen(serving.host, serving.port) as listener:
        warn_if_open(serving, listener)
        address, bound = listener.getsockname()[:2]

        def announce(opened: Source) -> None:
            shown = f"the {opened.mode} of {opened.name}" if opened.mode.is_replay else f"the {opened.mode} market"
            out.print(f"http://{address}:{bound}/ shows {shown}, /docs the API; stop with Ctrl-C", markup=False)

        sys.setswitchinterval(SWITCH_INTERVAL_S)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_live(live, feed, serving, listener, announce))


def _retraining(wanted: bool | None, at: str, tape: Path, outcomes: Path, serving: ServingSettings) -> Background:
    """The retraining schedule; if ``wanted`` is None, it runs for a real market only.

    Raises:
        UsageError: an invalid schedule.
    """
    from volspike.lifecycle.schedule import RetrainingSchedule, cron

    cron(at)
    places = {"--tape": tape, "--outcomes": outcomes, "--artifacts": serving.artifacts, "--results": serving.results}
    arguments = [str(word) for place in places.items() for word in place]

    def background(simulated: bool) -> AbstractContextManager[Sequence[BackgroundTask]]:
        is_wanted = not simulated if wanted is None else wanted
        return RetrainingSchedule(arguments, at) if is_wanted else nullcontext(())

    return background
