"""``/alerts/snooze``: send no alerts of a product, or of all, for a while; from the page or by a program.

A snooze changes the state of the server, so it is accepted only with the API key, or from this machine if the server
requires none. A proxy on this machine would make every client a local one. A request therefore does not count as local
if it has a header of a proxy, if its ``Host`` is not a loopback name or address, or if the server is configured for a
proxy. Against pages of other sites, a request of a browser must come from the server's own page, and its body must be
``application/json``, which no form can send.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

import msgspec
from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from volspike.api.docs import NO_KEY, json_body, operation, response
from volspike.api.schema import Problem, SnoozeList, SnoozeRequest, encode
from volspike.config import ServingSettings
from volspike.errors import UsageError
from volspike.market.product import canonical_product
from volspike.monitoring.quiet import SendingRules

PATH: Final = "/alerts/snooze"
JSON: Final = "application/json"

PROXY_HEADERS: Final = (
    *("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port"),
    *("x-forwarded-server", "x-real-ip", "x-client-ip", "cf-connecting-ip", "true-client-ip"),
)
"""Headers that a proxy adds to the requests of its clients."""

_ADVICE: Final = "set an API key (API_KEY or --api-key-file) and send it, or use a browser or program on this machine"
_PORT: Final = re.compile(r":\d*$")
_decode: Final = msgspec.json.Decoder(SnoozeRequest).decode

PRODUCT: Final = {
    "name": "product",
    "description": "Product whose snooze ends; without it, the snooze of all products ends.",
    "schema": {"type": "string"},
}
_SNOOZES: Final = response("The present snoozes.", SnoozeList)
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    401: NO_KEY,
    403: response("The request is neither local nor has the API key, or another site's page sent it.", Problem),
    404: response("Unknown product.", Problem),
}


def snooze_routes(
    rules: SendingRules,
    settings: ServingSettings,
    products: Callable[[], Collection[str]],
    on_change: Callable[[], None],
) -> APIRouter:
    """The routes of ``PATH``; ``products`` are the known ones, and ``on_change`` is called after each change."""
    router = APIRouter()

    @router.get(PATH, response_class=Response, openapi_extra=operation(), responses={200: _SNOOZES, 401: NO_KEY})
    async def snoozes() -> Response:
        """Return the present snoozes."""
        return _present(rules)

    @router.post(
        PATH,
        response_class=Response,
        openapi_extra=operation(requestBody=json_body(SnoozeRequest, "one product", SnoozeRequest("BTC-USD", 60))),
        responses={
            200: _SNOOZES,
            **_REFUSALS,
            415: response("The body is not application/json.", Problem),
            422: response("The body is not a snooze.", Problem),
        },
    )
    async def snooze(request: Request) -> Response:
        """Send no alert of a product (null: of any) for 1 to 1440 minutes; alerts are still recorded and shown."""
        refusal = refusal_of_change(request, settings)
        if refusal is not None:
            return _problem(403, refusal)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
            return _problem(415, f"send the body as {JSON}")
        try:
            body = _decode(await request.body())
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return _problem(422, f'send {{"product": "BTC-USD" or null, "minutes": 1 to 1440}}: {error}')
        name = None if body.product is None else _known(body.product, products())
        if body.product is not None and name is None:
            return _problem(404, _unknown(body.product, products()))
        rules.snooze(name, body.minutes)
        return await _changed(rules, on_change)

    @router.delete(
        PATH,
        response_class=Response,
        openapi_extra=operation(PRODUCT),
        responses={200: _SNOOZES, **_REFUSALS},
    )
    async def resume(request: Request) -> Response:
        """End the snooze of a product, or without one the snooze of all products."""
        refusal = refusal_of_change(request, settings)
        if refusal is not None:
            return _problem(403, refusal)
        stated = request.query_params.get("product") or None
        name = None if stated is None else _known(stated, [*products(), *_snoozed(rules)])
        if stated is not None and name is None:
            return _problem(404, _unknown(stated, products()))
        rules.resume(name)
        return await _changed(rules, on_change)

    return router


def refusal_of_change(request: Request, settings: ServingSettings) -> str | None:
    """The reason for which a request may not change the state of the server, as a sentence; None if it may.

    With an API key in the settings, the request has passed the check of the key.
    """
    if _is_of_another_site(request):
        return "the request comes from the page of another site; use the page of this server"
    if settings.api_key is not None:
        return None
    if settings.trusted_proxies or settings.root_path or any(name in request.headers for name in PROXY_HEADERS):
        return f"a proxy is in front of the server, which requires no API key: {_ADVICE}"
    is_local = request.client is not None and is_loopback(request.client.host)
    if not (is_local and _is_local_name(request.headers.get("host", ""))):
        return f"snoozes are accepted from this machine only, as the server requires no API key: {_ADVICE}"
    return None


def _is_of_another_site(request: Request) -> bool:
    """Whether a browser sent it from a page of another site; programs send neither header."""
    host, origin = request.headers.get("host", "").lower(), request.headers.get("origin")
    is_foreign = origin is not None and origin.lower() not in {f"http://{host}", f"https://{host}"}
    return is_foreign or request.headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}


def is_loopback(host: str) -> bool:
    """Whether a host is a loopback address.

    >>> [is_loopback(host) for host in ("127.0.0.2", "::1", "::ffff:127.0.0.1", "10.0.0.1", "localhost")]
    [True, True, True, False, False]
    """
    try:
        address = ip_address(host.partition("%")[0].removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _is_local_name(host: str) -> bool:
    """Whether the value of a ``Host`` header names this machine alone."""
    name = _PORT.sub("", host.strip()).lower().rstrip(".")
    return is_loopback(name) or name == "localhost" or name.endswith(".localhost")


def _known(stated: str, products: Collection[str]) -> str | None:
    """The product that a client named, in any case; None if it is unknown."""
    if stated in products:
        return stated
    try:
        name = canonical_product(stated)
    except UsageError:
        return None
    return name if name in products else None


def _unknown(stated: str, products: Collection[str]) -> str:
    return f"unknown product {stated[:100]!r}; available: {', '.join(products)}"


def _snoozed(rules: SendingRules) -> list[str]:
    return [snooze.product for snooze in rules.snoozes() if snooze.product is not None]


async def _changed(rules: SendingRules, on_change: Callable[[], None]) -> Response:
    await run_in_threadpool(rules.save)
    on_change()
    return _present(rules)


def _present(rules: SendingRules) -> Response:
    return Response(encode(SnoozeList(rules.snoozes())), media_type=JSON)


def _problem(status: int, detail: str) -> Response:
    return Response(encode(Problem(detail)), status, media_type=JSON)
