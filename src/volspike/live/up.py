"""Source, pipeline and API in one process and one event loop, until a signal or the source ends it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias, cast

import structlog

from volspike.api.app import create_app
from volspike.api.served_model import Scorer, prove
from volspike.api.server import Server, server_config
from volspike.api.service import Adopt
from volspike.config import FeedSettings, ServingSettings
from volspike.live.collector import LiveCollector
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.live.sources import Source, open_source
from volspike.models import Artifact
from volspike.models.choice import model_to_serve, named_model, production_model, with_companion
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder

Beside: TypeAlias = Callable[[bool], AbstractContextManager[object]]
"""Makes what runs beside a source while it is served; it is told whether the market is a simulated one."""

HEAD_START_S: Final = 420
"""What a simulated market tells at once, so that its windows are warm when the page opens."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWishes:
    """What is asked of a live run besides feed and serving.

    ``tape`` is the folder to record to and ``outcomes`` the file of predictions and what became of them, None for
    neither; ``alerts`` are Apprise's addresses, which are secrets. ``beside`` runs while the source is served.
    """

    source: str = "auto"
    speed: float = 1.0
    tape: Path | None = None
    outcomes: Path | None = None
    alerts: tuple[str, ...] = field(default=(), repr=False)
    beside: Beside = lambda _: nullcontext()


async def serve_live(wishes: LiveWishes, feed: FeedSettings, serving: ServingSettings, listener: socket.socket) -> None:
    """Serves the dashboard and the API of a live source on ``listener`` until told to stop.

    A tape that is replayed is not recorded again, and its predictions are not kept. The model is what the settings
    mean, or else, until something is put there, the one that ships for such a source.

    Raises:
        UsageError: no such source.
        ModelError: the model cannot be used, or not on this source.
    """
    async with open_source(wishes.source, feed, speed=wishes.speed, head_start_s=HEAD_START_S) as source:
        wished, production = named_model(serving), production_model(serving)
        artifact = Artifact.load(model_to_serve(wished, production, simulated=source.simulated))
        prove(artifact)
        scorer = LiveScorer(artifact)
        scorer.admits(set(source.kinds))
        log.info("source_opened", source=source.name, simulated=source.simulated)
        pipeline = _pipeline(scorer, feed, source, wishes)
        app = create_app(
            with_companion(serving),
            Artifact.load,
            pipeline,
            served=artifact,
            adopt=_adopting(pipeline),
            collectors=[LiveCollector(pipeline)],
        )
        server = Server(server_config(app, serving), app.state.readers)
        listening = asyncio.create_task(pipeline.run(source.events), name="pipeline")
        listening.add_done_callback(lambda task: _tell_end(task, server))
        try:
            with wishes.beside(source.simulated):
                await server.serve(sockets=[listener])
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
    log.info("server_stopped")
    if not listening.cancelled() and (fault := listening.exception()) is not None:
        raise fault


def _adopting(pipeline: LivePipeline) -> Adopt:
    def adopt(scorer: Scorer) -> None:
        pipeline.adopt(cast("Artifact", scorer))  # what ``Artifact.load`` has loaded

    return adopt


def _pipeline(scorer: LiveScorer, feed: FeedSettings, source: Source, wishes: LiveWishes) -> LivePipeline:
    is_live = not wishes.source.startswith("tape:")
    return LivePipeline(
        scorer,
        feed.products,
        source.name,
        simulated=source.simulated,
        timed_from=source.timed_from,
        recorder=Recorder(wishes.tape, simulated=source.simulated) if wishes.tape is not None and is_live else None,
        outcomes=OutcomeStore(wishes.outcomes) if wishes.outcomes is not None and is_live else None,
        router=AlertRouter(wishes.alerts),
    )


def _tell_end(task: asyncio.Task[None], server: Server) -> None:
    """A tape that ends leaves its last state to be looked at; a pipeline that fails takes the server with it."""
    if not task.cancelled() and task.exception() is not None:
        server.should_exit = True
    log.info("source_ended")
