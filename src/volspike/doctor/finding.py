"""One thing that was looked at, how bad it is, and what to do about it.

One question to a web server: its answer, or in words why there is none.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeAlias

import httpx
import msgspec

Fact: TypeAlias = str | int | float | bool | None


class Severity(StrEnum):
    """How much a finding matters, the least first."""

    FINE = "fine"
    """As it should be."""
    NOTE = "note"
    """Worth knowing; nothing needs doing unless it surprises."""
    WARNING = "warning"
    """Works today, and will not for long, or not well."""
    BAD = "bad"
    """Something that was asked for does not work."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """``check`` names what was looked at, ``found`` is a sentence, ``remedy`` what to do; ``facts`` are its figures.

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
    """The worst severity among the findings; ``fine`` where there are none."""
    order = list(Severity)
    return max((finding.severity for finding in findings), key=order.index, default=Severity.FINE)


def is_refused_address(url: str) -> bool:
    """Whether a text is no address of the web at all."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        return True
    return parsed.scheme not in {"http", "https"} or not parsed.host


async def ask(url: str, within_s: float) -> httpx.Response | str:
    """The answer to ``GET url``, whatever its status; a sentence where none came in time."""
    try:
        async with httpx.AsyncClient(timeout=within_s, headers={"user-agent": "volspike"}) as client:
            return await client.get(url)
    except httpx.TimeoutException:
        return f"no answer within {within_s:g} s"
    except httpx.RequestError as error:
        return " ".join(str(error).split()) or type(error).__name__
