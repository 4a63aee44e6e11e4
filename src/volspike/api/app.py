"""The HTTP application: routes, middleware, and the model that they serve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from fastapi import APIRouter, FastAPI, Request, Response
from msgspec import Struct
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import volspike
from volspike.api.docs import (
    CONTENT_SECURITY_POLICY,
    NO_KEY,
    PREDICT,
    Application,
    docs_page,
    front_page,
    operation,
    response,
)
from volspike.api.edge import CORRELATION_HEADER, CORRELATION_KEY, PAGE_HEADERS, ApiKey, BodyLimit, Edge, RateLimit
from volspike.api.schema import (
    Health,
    Live,
    Prediction,
    Predictions,
    Problem,
    Readiness,
    Refusal,
    SourceState,
    Version,
    encode,
)
from volspike.api.service import Adopt, LimitationsOf, Load, Service
from volspike.api.target import HeadAsGet, HostCheck, PathPrefix, server_names
from volspike.background import TaskList
from volspike.config import ServingSettings
from volspike.models import Artifact
from volspike.models.evidence import model_limitations

INLINE_BYTES: Final = 16 * 1024
"""Bodies up to this size (about 50 rows) are scored on the event loop, faster than a thread could be started; larger
ones in a thread, one at a time, so that other requests do not wait for them. Several threads score no faster, and each
of them takes the interpreter from the event loop."""

DESCRIPTION: Final = (
    "The probability of a volatility spike within the next 60 seconds. "
    "Errors are JSON; `detail` explains them in one sentence."
)
LIMITED_PATHS: Final = frozenset({"/predict"})
"""The rate limit applies to these only: monitoring is never rejected."""


def create_app(
    settings: ServingSettings,
    load: Load = Artifact.load,
    *,
    pages: APIRouter | None = None,
    served: Artifact | None = None,
    adopt: Adopt | None = None,
    limitations: LimitationsOf = model_limitations,
    state: Callable[[], SourceState] | None = None,
    collectors: Sequence[Collector] = (),
    background: TaskList = tuple,
    simulated: bool | None = None,
) -> FastAPI:
    """The application for ``settings``; it loads its model with ``load`` when it starts.

    ``pages`` are additional routes, including the page at ``/``; without them ``/`` is a plain page. ``served``,
    ``adopt``, ``limitations``, ``state``, ``background`` and ``simulated`` are as for ``Service``. ``/metrics``
    includes the metrics of ``collectors``.
    """
    service = Service(
        settings,
        load,
        served=served,
        adopt=adopt,
        limitations=limitations,
        state=state,
        background=background,
        simulated=simulated,
    )
    for collector in collectors:
        service.metrics.registry.register(collector)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        async with asyncio.TaskGroup() as group:
            following = group.create_task(service.follow())
            yield
            following.cancel()

    app = Application(
        title="volspike",
        version=volspike.__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load scripts from other hosts
        redoc_url=None,
        redirect_slashes=False,
        servers=[{"url": settings.root_path}] if settings.root_path else None,
        exception_handlers={HTTPException: _handle_http_error, Exception: _handle_failure},
    )
    _add_prediction(app, service)
    _add_state(app, service)
    _add_docs(app)
    if pages is None:
        _add_front_page(app, service)
    else:
        app.include_router(pages)
    routes = [*app.routes, *(pages.routes if pages is not None else ())]
    endpoints = {path for route in routes if (path := getattr(route, "path", None))}
    endpoints.update(app.openapi()["paths"])  # also of routers within ``pages``, whose routes are not in its list
    # the middleware that is added last runs first
    app.add_middleware(BodyLimit, limit=settings.max_body_bytes, seconds=settings.body_s)
    app.add_middleware(HeadAsGet)
    if settings.rate_limit:  # after the key: requests without it use up no limit
        app.add_middleware(RateLimit, per_minute=settings.rate_limit, paths=LIMITED_PATHS)
    if settings.api_key is not None:
        app.add_middleware(ApiKey, key=settings.api_key)
    app.add_middleware(HostCheck, names=server_names(settings.host, settings.allowed_hosts))
    app.add_middleware(Edge, metrics=service.metrics, endpoints=endpoints, log_requests=settings.log_requests)
    if settings.root_path:
        app.add_middleware(PathPrefix, prefix=settings.root_path)
    return app


def _add_prediction(app: FastAPI, service: Service) -> None:
    one_at_a_time = asyncio.Lock()

    @app.post(
        "/predict",
        response_class=Response,
        openapi_extra=PREDICT,
        responses={
            200: response("The prediction; with lists if the body has rows.", Prediction, Predictions),
            401: NO_KEY,
            408: response("The body did not arrive in time.", Problem),
            413: response("The body is too large.", Problem),
            422: response("The body cannot be scored; the response names each error.", Refusal),
            429: response("The client exceeds the rate limit; `Retry-After` is the time to wait.", Problem),
            503: response("No model is served; the response has the reason.", Problem),
        },
    )
    async def predict(request: Request) -> Response:
        """Return the probability of a spike within the next 60 seconds for one or several rows of features."""
        predictor = service.predictor
        if predictor is None:
            return _json(Problem(f"no model is served: {service.reason}"), 503)
        body = await request.body()
        if len(body) <= INLINE_BYTES:
            status, answer = service.reply(predictor, body)
        else:
            async with one_at_a_time:
                status, answer = await run_in_threadpool(service.reply, predictor, body)
        return Response(answer, status, media_type="application/json")


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get(
        "/health",
        response_class=Response,
        openapi_extra=operation(),
        responses={200: response("Healthy or degraded.", Health)},
    )
    async def health() -> Response:
        """Return the state of the service; the status is 200 even if it is degraded."""
        return _json(service.health())

    @app.get(
        "/health/live",
        response_class=Response,
        openapi_extra=operation(),
        responses={200: response("The process runs.", Live)},
    )
    async def live() -> Response:
        """Return 200 while the process runs; restart it if this does not respond."""
        return _json(Live("alive"))

    @app.get(
        "/health/ready",
        response_class=Response,
        openapi_extra=operation(),
        responses={
            200: response("The service can predict.", Readiness),
            503: response("The service cannot predict; the response has the reason.", Readiness),
        },
    )
    async def ready() -> Response:
        """Return whether the service can predict; send it no traffic until then."""
        if service.predictor is None:
            return _json(Readiness("not_ready", service.reason), 503)
        return _json(Readiness("ready", None))

    @app.get(
        "/version",
        response_class=Response,
        openapi_extra=operation(),
        responses={200: response("The running code and model.", Version), 401: NO_KEY},
    )
    async def version() -> Response:
        """Return the versions of the code and the model, and the features that the model needs."""
        return _json(service.version())

    @app.get(
        "/metrics",
        response_class=Response,
        openapi_extra=operation(),
        responses={200: {"description": "The Prometheus text format.", "content": {"text/plain": {}}}, 401: NO_KEY},
    )
    async def metrics() -> Response:
        """Return the metrics for Prometheus."""
        return Response(service.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return _html(docs_page(app.openapi()))


def _add_front_page(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return _html(front_page(service.version(), service.health()))


def _json(answer: Struct, status: int = 200) -> Response:
    return Response(encode(answer), status, media_type="application/json")


def _html(page: str) -> Response:
    headers = PAGE_HEADERS | {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(page, media_type="text/html", headers=headers)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    """An unknown path or method, in the form of every other error."""
    assert isinstance(error, HTTPException)  # noqa: S101  registered for it alone
    detail, headers = str(error.detail), dict(error.headers or {})
    if error.status_code == 404:
        detail = f"no endpoint {request.scope['path']!r}; see /docs"
    elif error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request, headers.get("Allow", "")))
        detail = f"{request.method} is not allowed here, use {headers['Allow'] or 'another method'}; see /docs"
    answer = _json(Problem(detail), error.status_code)
    answer.headers.update(headers)
    return answer


def _methods(request: Request, allowed: str) -> list[str]:
    """The methods of a path: those of the document, as Starlette's ``allowed`` has those of one of its routes only."""
    documented = request.app.openapi()["paths"].get(request.scope["path"], {})
    found = {method.upper() for method in documented} or set(allowed.split(", "))
    return sorted(found | ({"HEAD"} if "GET" in found else set()) - {""})


async def _handle_failure(request: Request, _: Exception) -> Response:
    """An exception in the server: the log has it under the correlation id that the client receives."""
    identity = request.scope.get(CORRELATION_KEY, b"").decode()
    answer = _json(Problem(f"the server failed; its log has the error under correlation id {identity}"), 500)
    answer.headers[CORRELATION_HEADER] = identity
    return answer
