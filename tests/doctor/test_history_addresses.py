"""Checks of the archives' addresses by HEAD requests."""

from __future__ import annotations

import asyncio
from datetime import date

import pytest

from tests.history.archive_server import ArchiveServer, Fault, open_archive
from volspike.doctor.finding import Severity
from volspike.doctor.services import check_history, history_addresses
from volspike.errors import UsageError
from volspike.history.archives import ARCHIVES
from volspike.history.paged import PAGED_VENUES

TODAY = date(2026, 3, 5)


def complete_archive() -> ArchiveServer:
    """A mirror with a file at every address."""
    return ArchiveServer(
        {address.url.removeprefix("http://x"): b"x" * 1_000 for address in history_addresses(TODAY, "http://x")}
    )


def test_every_layout_is_checked_once_with_a_head_request() -> None:
    """A mirror that has everything is fine, and nothing is downloaded."""
    with open_archive(complete_archive()) as server:
        findings = asyncio.run(check_history(TODAY, server.url, 5.0))
    layouts = sum(len(archive.layouts) for archive in ARCHIVES.values())
    assert len(findings) == layouts + len(PAGED_VENUES)
    assert {finding.severity for finding in findings} == {Severity.FINE}
    assert {method for method, _, _ in server.requests} == {"HEAD"}
    assert len({path for _, path, _ in server.requests}) == len(findings)


def test_addresses_are_public_and_of_published_files() -> None:
    """Without a mirror each address is that of its venue; Tardis is checked where no key is needed."""
    addresses = list(history_addresses(TODAY))
    assert all(address.url.startswith("https://") for address in addresses)
    (trades, _quotes) = [address.url for address in addresses if address.source == "tardis"]
    assert trades == "https://datasets.tardis.dev/v1/binance/trades/2026/02/01/BTCUSDT.csv.gz"
    months = [address.url for address in addresses if address.files.startswith("monthly")]
    assert all(url.endswith("-2026-01.zip") for url in months)


def test_a_missing_file_and_a_refusal_are_bad_with_a_remedy() -> None:
    """Each finding names the address, the answer, and what to do."""
    server = complete_archive()
    gone, refused = [path for path in server.files if "/okex/" in path]
    del server.files[gone]
    server.faults[refused] = [Fault(status=403)]
    with open_archive(server):
        findings = [each for each in asyncio.run(check_history(TODAY, server.url, 5.0)) if each.check == "okx"]
    assert [finding.severity for finding in findings] == [Severity.BAD, Severity.BAD]
    assert "answers 404" in findings[0].found
    assert "layout" in findings[0].remedy
    assert "answers 403" in findings[1].found


def test_a_server_that_does_not_answer_is_bad() -> None:
    """A connection that is refused is a finding, not an error."""
    findings = asyncio.run(check_history(TODAY, "http://127.0.0.1:9", 2.0))
    assert {finding.severity for finding in findings} == {Severity.BAD}
    assert all("does not answer" in finding.found for finding in findings)


def test_a_wrong_mirror_is_refused() -> None:
    """The address of a mirror is one of http."""
    with pytest.raises(UsageError, match="invalid address"):
        asyncio.run(check_history(TODAY, "mirror", 2.0))
