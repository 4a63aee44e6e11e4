"""Findings of the checks, with severity and remedy; and the HTTP request that several checks share."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeAlias

import httpx
import msgspec

from volspike.errors import UsageError
from volspike.feeds.rest import http_client

Fact: TypeAlias = str | int | float | bool | None


class Severity(StrEnum):
    """How severe a finding is, in ascending order."""

    FINE = "fine"
    """Works as expected."""
    NOTE = "note"
    """Worth knowing; needs no action."""
    WARNING = "warning"
    """Works, but not well or not for long."""
    BAD = "bad"
    """Something required does not work."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """``check`` is the name of the check, ``found`` the result as a sentence, ``remedy`` what to do, ``facts`` figures.

    A finding that is not fine always has a remedy.
    """

    check: str
    severity: Severity
    found: str
    remedy: str = ""
    facts: dict[str, Fact] = {}

    def __post_init__(self) -> None:
        if self.severity is not Severity.FINE and not self.remedy:
            raise ValueError(f"{self.check}: {self.severity} without a remedy")


def worst_of(findings: Iterable[Finding]) -> Severity:
    """The worst severity among the findings; ``fine`` if there are none."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.FINE)


def is_invalid_url(url: str) -> bool:
    """Whether a text is not the URL of a web server."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return True
    return parsed.scheme not in {"http", "https"} or not parsed.host


def check_rest_url(url: str) -> None:
    """Raises UsageError if a text is not the URL of an exchange."""
    if is_invalid_url(url):
        raise UsageError(f"{url!r} is not a valid address of the exchange; it must begin with http:// or https://")


async def fetch(url: str, within_s: float, method: str = "GET") -> httpx.Response | str:
    """The response to a request of ``url`` with any status; a sentence if none arrives in time.

    ``HEAD`` follows redirections and requests the size of the file itself.
    """
    is_head = method == "HEAD"
    headers = {"user-agent": "volspike"} | ({"accept-encoding": "identity"} if is_head else {})
    try:
        async with http_client(
            httpx.AsyncClient, url, timeout=within_s, headers=headers, follow_redirects=is_head
        ) as client:
            return await client.request(method, url)
    except UsageError as error:  # of the proxy
        return str(error)
    except httpx.TimeoutException:
        return f"no answer within {within_s:g} s"
    except httpx.RequestError as error:
        return " ".join(str(error).split()) or type(error).__name__
