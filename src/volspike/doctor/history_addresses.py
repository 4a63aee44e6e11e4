"""Checks of the public archives: whether each address in the table of ``history.archives`` has a recent file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import date, timedelta
from http import HTTPStatus
from typing import Final, NamedTuple

import httpx

from volspike.doctor.finding import Fact, Finding, Severity
from volspike.errors import UsageError
from volspike.feeds.rest import http_client
from volspike.history.archives import ARCHIVES, ArchiveFile, source_product
from volspike.history.download import checked_url
from volspike.history.paged import PAGED_VENUES

AGE_DAYS: Final = 10
"""The age of the file that is requested; every venue has published it by then."""


class HistoryAddress(NamedTuple):
    """An address to check: the source, the kind of its files, and whether it is a file or pages over REST."""

    source: str
    files: str
    url: str
    is_file: bool


def history_addresses(today: date, base_url: str | None = None) -> Iterator[HistoryAddress]:
    """One address for each layout of the table, with the example product of its source.

    ``base_url`` replaces the address of every source, as that of a mirror does.
    """
    day = today - timedelta(days=AGE_DAYS)
    month = (day.replace(day=1) - timedelta(days=1)).replace(day=1)
    for archive in ARCHIVES.values():
        product_id = source_product(archive.name, archive.example, archive.example)
        for layout in archive.layouts:
            first = month if layout.is_monthly else day.replace(day=1) if archive.key_variable else day
            path = ArchiveFile(archive, layout, product_id, first, first + timedelta(days=1)).path
            period = "monthly" if layout.is_monthly else "daily"
            yield HistoryAddress(archive.name, f"{period} {layout.kind}", (base_url or archive.url) + path, True)
    for venue in PAGED_VENUES.values():
        path = venue.path.format(product=venue.example)
        yield HistoryAddress(venue.name, "pages of trades", (base_url or venue.url) + path, False)


async def check_history(today: date, base_url: str | None, within_s: float) -> list[Finding]:
    """One finding for each address, by HEAD requests at the same time.

    Raises:
        UsageError: ``base_url`` is no address of http.
    """
    base = None if base_url is None else checked_url(base_url)
    addresses = list(history_addresses(today, base))
    return list(await asyncio.gather(*(_check(address, within_s) for address in addresses)))


async def _check(address: HistoryAddress, within_s: float) -> Finding:
    answer = await _head(address.url, within_s)
    facts: dict[str, Fact] = {"url": address.url}
    if isinstance(answer, str):
        remedy = "check the network and the proxy, then try again; --base-url names a mirror"
        return _finding(address, Severity.BAD, f"does not answer ({answer})", remedy, facts)
    facts["status"] = answer.status_code
    # REST servers may refuse HEAD requests, which shows that the address is right
    if answer.status_code == HTTPStatus.OK or (not address.is_file and answer.status_code in {400, 405}):
        size = answer.headers.get("content-length", "")
        if address.is_file and size.isdecimal():
            facts["bytes"] = int(size)
            return _finding(address, Severity.FINE, f"answers, {int(size) / 1e6:,.1f} MB", "", facts)
        return _finding(address, Severity.FINE, "answers", "", facts)
    remedy = (
        "the venue may have changed its layout or delayed the file: try again tomorrow, then update volspike"
        if answer.status_code in {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}
        else "the venue refuses this machine: check its terms and your network, or name a mirror with --base-url"
    )
    return _finding(address, Severity.BAD, f"answers {answer.status_code} {answer.reason_phrase}", remedy, facts)


def _finding(address: HistoryAddress, severity: Severity, found: str, remedy: str, facts: dict[str, Fact]) -> Finding:
    text = f"{address.files}: {address.url} {found}"
    return Finding(check=address.source, severity=severity, found=text, remedy=remedy, facts=facts)


async def _head(url: str, within_s: float) -> httpx.Response | str:
    """The response to ``HEAD url`` with any status; a sentence if none arrives in time."""
    headers = {"user-agent": "volspike", "accept-encoding": "identity"}
    try:
        async with http_client(
            httpx.AsyncClient, url, timeout=within_s, headers=headers, follow_redirects=True
        ) as client:
            return await client.head(url)
    except UsageError as error:  # of the proxy
        return str(error)
    except httpx.TimeoutException:
        return f"no answer within {within_s:g} s"
    except httpx.RequestError as error:
        return " ".join(str(error).split()) or type(error).__name__
