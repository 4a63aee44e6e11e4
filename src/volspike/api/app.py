"""The HTTP service: its routes, what stands before them, and the model that they serve from start to stop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
from fastapi import FastAPI, Request, Response
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import volspike
from volspike.api.answers import Health, Live, Prediction, Predictions, Problem, Readiness, Refusal, Version, encode
from volspike.api.dashboard import dashboard_assets
from volspike.api.docs import (
    CONTENT_SECURITY_POLICY,
    EVERYWHERE,
    PREDICT,
    STREAM,
    Application,
    docs_page,
    front_page,
    told,
)
from volspike.api.edge import CORRELATION_HEADER, CORRELATION_KEY, ON_PAGES, ApiKey, BodyLimit, Edge, RateLimit
from volspike.api.served_model import Load, Scorer, load_artifact
from volspike.api.service import Adopt, Service
from volspike.api.stream import EventStream, LiveSource, Readers, Wish
from volspike.config import ServingSettings

INLINE_BYTES: Final = 16 * 1024
"""Bodies up to this (about 50 rows) are scored on the event loop, in less time than a thread's hand-over costs;
larger ones in a thread, so that other requests do not wait for them."""

DESCRIPTION: Final = (
    "How likely a market is to be in a volatility spike within the next 60 seconds. "
    "Refusals are JSON with a sentence in `detail`."
)
LIMITED_PATHS: Final = frozenset({"/predict"})
"""What a client may ask only so often: whoever watches over the service is never turned away."""

log = structlog.get_logger(__name__)

_NO_KEY: Final = told("The server asks for a key, and was told none or another.", Problem)
_NO_MODEL: Final = told("No model is served; the body says why.", Problem)


def create_app(
    settings: ServingSettings,
    load: Load = load_artifact,
    live: LiveSource | None = None,
    *,
    served: Scorer | None = None,
    adopt: Adopt | None = None,
    collectors: Sequence[Collector] = (),
) -> FastAPI:
    """The service for ``settings``; ``load`` makes a scorer of a path and is called when the application starts.

    With ``live`` there is a dashboard at ``/`` and its events at ``/stream``, and ``app.state.readers`` are those who
    watch; without, a plain page. ``served`` and ``adopt`` are as for ``Service``; what ``collectors`` tell stands in
    ``/metrics`` beside the API's own.
    """
    service = Service(settings, load, served=served, adopt=adopt)
    for collector in collectors:
        service.metrics.registry.register(collector)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        following = asyncio.create_task(service.follow(), name="model folder")
        following.add_done_callback(_tell_end)
        yield
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    app = Application(
        title="volspike",
        version=volspike.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages fetch their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _refused, Exception: _failed},
    )
    _add_prediction(app, service)
    _add_state(app, service)
    _add_docs(app)
    if live is None:
        _add_front_page(app, service)
    else:
        _add_dashboard(app, live)
    endpoints = frozenset(path for route in app.routes if (path := getattr(route, "path", None)))
    # the last one added is the outermost
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, seconds=settings.body_s)
    if settings.api_key is not None:
        app.add_middleware(ApiKey, key=settings.api_key)
    if settings.rate_limit:
        app.add_middleware(RateLimit, per_minute=settings.rate_limit, paths=LIMITED_PATHS)
    app.add_middleware(Edge, metrics=service.metrics, endpoints=endpoints, log_requests=settings.log_requests)
    return app


def _tell_end(following: asyncio.Task[None]) -> None:
    """The served model goes on; that nobody looks for another any more is told."""
    if not following.cancelled() and (fault := following.exception()) is not None:
        log.error("model_folder_unwatched", exc_info=fault)


def _add_prediction(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict",
        response_class=Response,
        openapi_extra=PREDICT,
        responses={
            200: told("Scored; lists where the body had rows.", Prediction, Predictions),
            401: _NO_KEY,
            408: told("The body did not arrive in time.", Problem),
            413: told("The body is too large.", Problem),
            422: told("The body cannot be scored; each fault is named.", Refusal),
            429: told("This client asks too often; `Retry-After` says when to ask again.", Problem),
            503: _NO_MODEL,
        },
    )
    async def predict(request: Request) -> Response:
        """Tell how likely a spike is within the next 60 seconds, for one row of features or for several."""
        predictor = service.predictor
        if predictor is None:
            return _json(Problem(f"no model is served: {service.reason}"), 503)
        body = await request.body()
        if len(body) <= INLINE_BYTES:
            status, answer = service.reply(predictor, body)
        else:
            status, answer = await run_in_threadpool(service.reply, predictor, body)
        return Response(answer, status, media_type="application/json")


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get(
        "/health",
        response_class=Response,
        openapi_extra=EVERYWHERE,
        responses={200: told("Healthy or degraded.", Health)},
    )
    async def health() -> Response:
        """Tell how the service is; a degraded one answers too."""
        return _json(service.health())

    @app.get("/health/live", response_class=Response, openapi_extra=EVERYWHERE, responses={200: told("It runs.", Live)})
    async def live() -> Response:
        """Tell that the process runs: restart it when this does not answer."""
        return _json(Live("alive"))

    @app.get(
        "/health/ready",
        response_class=Response,
        openapi_extra=EVERYWHERE,
        responses={200: told("Predictions can be had.", Readiness), 503: told("They cannot, and why.", Readiness)},
    )
    async def ready() -> Response:
        """Tell whether predictions can be had: send no traffic while they cannot."""
        if service.predictor is None:
            return _json(Readiness("not_ready", service.reason), 503)
        return _json(Readiness("ready", None))

    @app.get(
        "/version",
        response_class=Response,
        openapi_extra=EVERYWHERE,
        responses={200: told("What is running.", Version), 401: _NO_KEY},
    )
    async def version() -> Response:
        """Tell what is running: the code, the model and the features that it takes."""
        return _json(service.version())

    @app.get(
        "/metrics",
        response_class=Response,
        openapi_extra=EVERYWHERE,
        responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": {}}}, 401: _NO_KEY},
    )
    async def metrics() -> Response:
        """Tell the counts and times since the start, for Prometheus."""
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _html(docs_page(app.openapi()))


def _add_front_page(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return _html(front_page(service.version(), service.health()))


def _add_dashboard(app: FastAPI, live: LiveSource) -> None:
    assets = dashboard_assets()
    app.state.readers = readers = Readers(live)

    async def asset(request: Request) -> Response:
        return assets[request.url.path].reply(request.headers)

    for path in assets:  # each its own route: metrics name routes
        app.add_route(path, asset, methods=["GET"], include_in_schema=False)

    @app.get(
        "/stream",
        response_class=Response,
        openapi_extra=STREAM,
        responses={
            200: {"description": "Server-sent events, the first a snapshot.", "content": {"text/event-stream": {}}},
            401: _NO_KEY,
            404: told("There is no such product.", Problem),
            503: told("Too many readers.", Problem),
        },
    )
    async def stream(request: Request) -> Response:
        """Tell what happens in the market, as it happens: ticks with probabilities, alerts, spikes, health."""
        query = request.query_params
        return EventStream(readers, Wish(query.get("product"), all_alerts=query.get("alerts") == "all"))


def _json(answer: Struct, status: int = 200) -> Response:
    return Response(encode(answer), status, media_type="application/json")


def _html(page: str) -> Response:
    headers = ON_PAGES | {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(page, media_type="text/html", headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    """A path or method that is not there, in the form of every other refusal."""
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it alone
    detail, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == 404:
        detail = f"there is nothing at {request.scope['path']!r}; see /docs"
    elif error.status_code == 405:
        detail = f"{request.method} is not answered here, {headers.get('Allow', 'another method')} is; see /docs"
    response = _json(Problem(detail), error.status_code)
    response.headers.update(headers)
    return response


async def _failed(request: Request, _: Exception) -> Response:
    """A fault of the server's own: the log has it under the id that the client gets."""
    identity = request.scope.get(CORRELATION_KEY, b"").decode()
    response = _json(Problem(f"the server failed; its log says why under correlation id {identity}"), 500)
    response.headers[CORRELATION_HEADER] = identity
    return response
