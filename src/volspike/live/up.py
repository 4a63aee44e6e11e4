"""``volspike up`` in one process and one event loop: source, pipeline, API and dashboard.

The files of the dashboard are read once from the package and sent compressed. The page loads nothing from other hosts.
"""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response

from volspike.api.app import create_app
from volspike.api.docs import NO_KEY, operation, response
from volspike.api.edge import PAGE_HEADERS
from volspike.api.schema import Problem, encode
from volspike.api.server import Server, server_config
from volspike.api.service import validate
from volspike.api.snooze import snooze_routes
from volspike.background import BackgroundTask
from volspike.config import FeedSettings, ServingSettings
from volspike.errors import UsageError
from volspike.live.chart import SCRIPT, chart_document, script
from volspike.live.dashboard import Dashboard
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.live.sources import Source, open_source
from volspike.live.stream import EventFilter, EventStreamResponse, Publisher, Snapshot, StreamLimits
from volspike.market.product import canonical_product
from volspike.models import Artifact
from volspike.models.alert_thresholds import AlertThresholds
from volspike.models.choice import model_to_serve, named_model, production_model, with_companion
from volspike.monitoring.alerts import AlertRouter
from volspike.monitoring.outcomes import OutcomeStore
from volspike.monitoring.quiet import QuietHours, SendingRules
from volspike.tape.recorder import Recorder
from volspike.tape.upkeep import KEEP_DAYS, TapeUpkeep, UpkeepResult

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""No inline script, nothing from other hosts. Bokeh styles its elements with inline style sheets."""

PAGE: Final = "dashboard.html"
CHART: Final = "/static/chart.json"
_TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS: Final = PAGE_HEADERS | {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-cache",  # browsers ask each time, and receive the file only if its tag has changed
    "Vary": "Accept-Encoding",
}

STREAM: Final = operation(
    {
        "name": "product",
        "description": "Only events of this product (BTC-USD, binance:BTC-USDT) and events without a product.",
        "schema": {"type": "string"},
    },
    {
        "name": "alerts",
        "description": "`all`: with `product`, also the alerts of other products.",
        "schema": {"type": "string", "enum": ["all"]},
    },
)


_TIME: Final = {"schema": {"type": "integer"}}
HISTORY: Final = operation(
    {"name": "product", "description": "The product; required.", "schema": {"type": "string"}},
    {"name": "from", "description": "Begin in ms since 1970, UTC; by default two hours before the end.", **_TIME},
    {"name": "to", "description": "End in ms since 1970, UTC, excluded; by default the newest row.", **_TIME},
    {"name": "points", "description": "At most so many bars, from 10 to 3000; by default 1200.", **_TIME},
)
ALERTS: Final = operation(
    {"name": "product", "description": "Only alerts of this product.", "schema": {"type": "string"}},
)
_JSON: Final = {"application/json": {"schema": {"type": "object"}}}

READERS: Final = 2
"""Ranges of the past that are read at the same time; others wait."""


def history_routes(dashboard: Dashboard) -> APIRouter:
    """``/history`` and ``/alerts``: the past of a product as bars, and the newest alerts."""
    router = APIRouter()
    turns = asyncio.Semaphore(READERS)

    @router.get(
        "/history",
        response_class=Response,
        openapi_extra=HISTORY,
        responses={
            200: {
                "description": "Columns of bars, oldest first, of the smallest step with at most `points` bars; null "
                "where unknown. With alerts, spikes and known gaps of the range.",
                "content": _JSON,
            },
            401: NO_KEY,
            404: response("Unknown product.", Problem),
            422: response("A value that is not valid.", Problem),
        },
    )
    async def history(request: Request) -> Response:
        """Return a range of the past of a product, from memory, tape and stored predictions."""
        query = request.query_params
        try:
            async with turns:
                if await request.is_disconnected():  # a page that zooms leaves most of its requests
                    return Response(status_code=204)
                found = await dashboard.history(_product_named(query.get("product", "")), query)
        except LookupError as error:
            return _refusal(404, error)
        except UsageError as error:
            return _refusal(422, error)
        return Response(msgspec.json.encode(found), media_type="application/json")

    @router.get(
        "/alerts",
        response_class=Response,
        openapi_extra=ALERTS,
        responses={200: {"description": "The newest alerts with their outcomes.", "content": _JSON}, 401: NO_KEY},
    )
    async def alerts(request: Request) -> Response:
        """Return the newest alerts of all products, or of one, newest first."""
        product = request.query_params.get("product")
        entries = dashboard.live.alerts.entries(None if product is None else _product_named(product))
        return Response(msgspec.json.encode({"alerts": entries[::-1]}), media_type="application/json")

    return router


def _refusal(status: int, error: Exception) -> Response:
    return Response(encode(Problem(str(error.args[0]))), status, media_type="application/json")


def dashboard_routes(publisher: Publisher, snapshot: Snapshot, limits: StreamLimits = StreamLimits()) -> APIRouter:  # noqa: B008  immutable
    """The page at ``/``, its files under ``/static/``, and ``/stream``."""
    router = APIRouter()
    assets = dashboard_assets()

    async def asset(request: Request) -> Response:
        return assets[request.url.path].respond(request.headers)

    for path in assets:  # one route each: routes are metric labels
        router.add_route(path, asset, methods=["GET"], include_in_schema=False)

    async def chart(request: Request) -> Response:
        return (await asyncio.to_thread(_chart_asset)).respond(request.headers)

    router.add_route(CHART, chart, methods=["GET"], include_in_schema=False)

    @router.get(
        "/stream",
        response_class=Response,
        openapi_extra=STREAM,
        responses={
            200: {"description": "Server-sent events, a snapshot first.", "content": {"text/event-stream": {}}},
            401: NO_KEY,
            404: response("Unknown product.", Problem),
            503: response("Too many readers.", Problem),
        },
    )
    async def stream(request: Request) -> Response:
        """Stream the market as it happens: ticks with probabilities, alerts, spikes, health."""
        query = request.query_params
        product = query.get("product")
        name = None if product is None else _product_named(product)
        only = EventFilter(name, all_alerts=query.get("alerts") == "all")
        return EventStreamResponse(publisher, snapshot, limits, only)

    return router


def _product_named(text: str) -> str:
    """The canonical form of a product with a venue, in any case; other names as they are."""
    try:
        return canonical_product(text) if ":" in text else text
    except UsageError:
        return text


@dataclass(frozen=True, slots=True)
class Asset:
    """A file, plain and compressed."""

    body: bytes
    compressed: bytes
    media_type: str
    tag: str

    def respond(self, headers: Mapping[str, str]) -> Response:
        """The response to a request with these headers: 304 if the client has the file, else compressed if possible."""
        answer = _HEADERS | {"ETag": self.tag}
        if self.tag in headers.get("if-none-match", ""):
            return Response(status_code=304, headers=answer)
        if "gzip" not in headers.get("accept-encoding", ""):
            return Response(self.body, headers=answer, media_type=self.media_type)
        return Response(self.compressed, headers=answer | {"Content-Encoding": "gzip"}, media_type=self.media_type)


def dashboard_assets() -> dict[str, Asset]:
    """The files by path: the page at ``/``, the others under ``/static/``."""
    assets = {}
    for entry in sorted(files("volspike.live").joinpath("static").iterdir(), key=lambda entry: entry.name):
        media_type = _TYPES.get("." + entry.name.rpartition(".")[2])
        if media_type is not None:
            path = "/" if entry.name == PAGE else f"/static/{entry.name}"
            assets[path] = _asset(entry.read_bytes(), media_type)
    return assets | {f"/static/{SCRIPT}": _asset(script(), _TYPES[".js"])}


def _asset(body: bytes, media_type: str) -> Asset:
    tag = f'W/"{hashlib.sha256(body).hexdigest()[:16]}"'  # weak: plain and compressed share it
    return Asset(body, gzip.compress(body, mtime=0), media_type, tag)


@cache
def _chart_asset() -> Asset:
    return _asset(json.dumps(chart_document()).encode(), "application/json")


Background: TypeAlias = Callable[[bool], AbstractContextManager[Sequence[BackgroundTask]]]
"""Makes a context to run in while a source is served, such as a retraining schedule; receives ``simulated``.

The context returns its background tasks."""

HEAD_START_S: Final = 420
"""Seconds that a simulated market sends at once, so that the windows are full when the page opens."""

SIMULATED_SEED: Final = 355
"""A simulated market whose BTC-USD has a spike and an alert in the first three minutes after the head start.

Few markets do, and a user who tries the program should see one. The alert opens two minutes after the head start, up to
5 s before the spike, wherever within a second the market starts.
"""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveOptions:
    """Options of a live run in addition to feed and serving settings.

    Attributes:
        source: one of ``sources.SOURCES``.
        speed: of a tape or the simulated market.
        tape: folder to record to, None to record nothing.
        outcomes: file of predictions and outcomes, None to store none; the calibration is stored next to it.
        keep_days: older tapes and predictions are deleted; 0 keeps all.
        alerts: Apprise URLs of alert receivers, which are secrets.
        quiet_hours: when alerts are not sent.
        thresholds: alert thresholds of products in place of the model's.
        background: runs while the source is served.
    """

    source: str = "auto"
    speed: float = 1.0
    tape: Path | None = None
    outcomes: Path | None = None
    keep_days: float = KEEP_DAYS
    alerts: tuple[str, ...] = field(default=(), repr=False)
    quiet_hours: tuple[QuietHours, ...] = ()
    thresholds: AlertThresholds = field(default_factory=AlertThresholds)
    background: Background = lambda _: nullcontext(())


async def serve_live(
    options: LiveOptions,
    feed: FeedSettings,
    serving: ServingSettings,
    listener: socket.socket,
    announce: Callable[[Source], None] = lambda _: None,
) -> None:
    """Serve the dashboard and the API of a live source on ``listener`` until SIGTERM or SIGINT.

    A replayed tape is not recorded again, and its predictions are not stored. The model is the one in the settings, or
    the one in production, or the one that the package includes for a market of this kind, real or simulated; this rule
    is the same for a live source and a replay, and for models that are promoted later. ``announce`` is called with the
    open source before it is served.

    Raises:
        UsageError: unknown source, no such tape, or an alert threshold of a product that the source does not send.
        UnreadableFile: no tick in the tape.
        ModelError: the model cannot be loaded, or not used with this source.
    """
    simulated_market = {"seed": SIMULATED_SEED, "head_start_s": HEAD_START_S}
    async with open_source(options.source, feed, speed=options.speed, **simulated_market) as source:
        _check_thresholds(options.thresholds, source)
        folder = model_to_serve(named_model(serving), production_model(serving), simulated=source.simulated)
        artifact = Artifact.load(folder)
        validate(artifact)
        scorer = LiveScorer(artifact, source.kinds)
        scorer.check_source(set(source.kinds))
        await asyncio.to_thread(scorer.compile_kernel)
        mode, simulated = source.mode, source.simulated
        log.info("source_opened", source=source.name, mode=mode, simulated=simulated, model=str(artifact.directory))
        pipeline = await _pipeline(scorer, source, options)
        await asyncio.to_thread(pipeline.restore)
        dashboard = Dashboard(pipeline)
        pipeline.periodic += dashboard.periodic
        retraining: list[BackgroundTask] = []
        pages = dashboard_routes(pipeline.publisher, dashboard.snapshot)
        pages.include_router(history_routes(dashboard))
        pages.include_router(
            snooze_routes(pipeline.router.rules, serving, lambda: pipeline.products, dashboard.publish_snoozes)
        )
        app = create_app(
            with_companion(serving),
            pages=pages,
            served=artifact,
            adopt=pipeline.adopt,
            limitations=pipeline.limitations,
            state=dashboard.state,
            collectors=[pipeline.collector()],
            background=lambda: [*pipeline.tasks, *retraining],
            simulated=simulated,
        )
        server = Server(server_config(app, serving), on_stop=pipeline.publisher.close)
        announce(source)
        running = asyncio.create_task(pipeline.run(source.events), name="pipeline")
        running.add_done_callback(lambda task: _source_ended(task, server))
        try:
            with options.background(source.simulated) as tasks:
                retraining += tasks
                await server.serve(sockets=[listener])
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    log.info("server_stopped")
    if not running.cancelled() and (fault := running.exception()) is not None:
        raise fault


def _check_thresholds(thresholds: AlertThresholds, source: Source) -> None:
    """Refuse thresholds of products that the source does not send; a tape may have further products later."""
    if source.replay is None:
        thresholds.check(source.products)
    elif unused := thresholds.unused(source.products):
        log.warning("alert_thresholds_unused", products=unused, first_products=source.products)


async def _pipeline(scorer: LiveScorer, source: Source, options: LiveOptions) -> LivePipeline:
    recorder, upkeep, outcomes, calibration, snoozes = None, None, None, None, None
    if not source.mode.is_replay:
        if options.tape is not None:
            recorder = await asyncio.to_thread(Recorder, options.tape, simulated=source.simulated)
            upkeep = TapeUpkeep(options.tape, options.keep_days, report=_log_upkeep)
        if options.outcomes is not None:
            outcomes = await asyncio.to_thread(OutcomeStore, options.outcomes, keep_days=options.keep_days)
            # of two processes, the one that stores the outcomes learns from them
            if not outcomes.is_shared:
                calibration = options.outcomes.with_suffix(".calibration")
                snoozes = options.outcomes.with_suffix(".snoozes.json")
    return LivePipeline(
        scorer,
        source.products,
        source.name,
        mode=source.mode,
        timed_from=source.timed_from,
        stats=source.stats,
        recorder=recorder,
        upkeep=upkeep,
        outcomes=outcomes,
        router=AlertRouter(options.alerts, rules=SendingRules(options.quiet_hours, snoozes)),
        thresholds=options.thresholds,
        calibration=calibration,
        replay=source.replay,
        feeds=source.feeds,
    )


def _log_upkeep(result: UpkeepResult) -> None:
    for note in result.notes:
        log.warning("tape_not_compacted", reason=note)
    if result.hours:
        log.info("tape_compacted", **{name: getattr(result, name) for name in ("hours", "bytes_before", "bytes_after")})
    if result.deleted:
        files, oldest = len(result.deleted), min(result.deleted)
        log.warning("old_tapes_deleted", files=files, bytes=result.deleted_bytes, oldest=oldest)


def _source_ended(task: asyncio.Task[None], server: Server) -> None:
    """After a pipeline error the server stops."""
    if task.cancelled():
        return
    if task.exception() is not None:
        server.should_exit = True
    log.info("source_ended")
