"""Source, pipeline and API in one process and one event loop, until a signal or an error ends them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from volspike.api.app import create_app
from volspike.api.server import Server, server_config
from volspike.api.service import validate
from volspike.config import FeedSettings, ServingSettings
from volspike.live.dashboard import dashboard_routes
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.live.sources import Source, open_source
from volspike.models import Artifact
from volspike.models.choice import model_to_serve, named_model, production_model, with_companion
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder

Background: TypeAlias = Callable[[bool], AbstractContextManager[object]]
"""Makes a context to run in while a source is served, such as a retraining schedule; receives ``simulated``."""

HEAD_START_S: Final = 420
"""Seconds that a simulated market sends at once, so that the windows are full when the page opens."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """Options of a live run in addition to feed and serving settings.

    Attributes:
        source: one of ``sources.SOURCES``.
        speed: of a tape or the simulated market.
        tape: folder to record to, None to record nothing.
        outcomes: file of predictions and outcomes, None to store none.
        alerts: Apprise URLs of alert receivers, which are secrets.
        background: runs while the source is served.
    """

    source: str = "auto"
    speed: float = 1.0
    tape: Path | None = None
    outcomes: Path | None = None
    alerts: tuple[str, ...] = field(default=(), repr=False)
    background: Background = lambda _: nullcontext()


async def serve_live(
    options: LiveOptions, feed: FeedSettings, serving: ServingSettings, listener: socket.socket
) -> None:
    """Serve the dashboard and the API of a live source on ``listener`` until told to stop.

    A replayed tape is not recorded again, and its predictions are not stored. The model is the one in the settings, or
    the one in production, or the one that the package includes for such a source.

    Raises:
        UsageError: unknown source.
        ModelError: the model cannot be loaded, or not used with this source.
    """
    async with open_source(options.source, feed, speed=options.speed, head_start_s=HEAD_START_S) as source:
        folder = model_to_serve(named_model(serving), production_model(serving), simulated=source.simulated)
        artifact = Artifact.load(folder)
        validate(artifact)
        scorer = LiveScorer(artifact)
        scorer.check_source(set(source.kinds))
        log.info("source_opened", source=source.name, simulated=source.simulated)
        pipeline = _pipeline(scorer, feed, source, options)
        app = create_app(
            with_companion(serving),
            pages=dashboard_routes(pipeline.publisher, pipeline.snapshot),
            served=artifact,
            adopt=pipeline.adopt,
            collectors=[pipeline.collector()],
        )
        server = Server(server_config(app, serving), on_stop=pipeline.publisher.close)
        running = asyncio.create_task(pipeline.run(source.events), name="pipeline")
        running.add_done_callback(lambda task: _source_ended(task, server))
        try:
            with options.background(source.simulated):
                await server.serve(sockets=[listener])
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    log.info("server_stopped")
    if not running.cancelled() and (fault := running.exception()) is not None:
        raise fault


def _pipeline(scorer: LiveScorer, feed: FeedSettings, source: Source, options: LiveOptions) -> LivePipeline:
    is_live = not options.source.startswith("tape:")
    return LivePipeline(
        scorer,
        feed.products,
        source.name,
        simulated=source.simulated,
        timed_from=source.timed_from,
        recorder=Recorder(options.tape, simulated=source.simulated) if options.tape is not None and is_live else None,
        outcomes=OutcomeStore(options.outcomes) if options.outcomes is not None and is_live else None,
        router=AlertRouter(options.alerts),
    )


def _source_ended(task: asyncio.Task[None], server: Server) -> None:
    """After the end of a tape the server keeps showing its last state; after a pipeline error it stops."""
    if not task.cancelled() and task.exception() is not None:
        server.should_exit = True
    log.info("source_ended")
