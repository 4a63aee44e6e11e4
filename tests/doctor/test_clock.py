"""The clock check against the simulated exchange, whose time can be set."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from tests.doctor.servers import nobody, open_exchange, open_site
from volspike.doctor.finding import Finding, Severity
from volspike.doctor.services import Skew, check_clock, clock_finding, skew_of
from volspike.errors import UsageError
from volspike.market import SECOND_NS, format_time, parse_time

NOON = parse_time("2026-01-05T12:00:00Z")


def checked(rest: str) -> Finding:
    (finding,) = asyncio.run(check_clock(rest, 5.0))
    return finding


def address(url: str) -> str:
    """The URL of the simulated exchange's time."""
    return url.replace("ws://", "http://").rpartition("/")[0]


def test_the_same_clock_is_fine() -> None:
    """At speed 1 the simulated exchange has this machine's time."""
    with open_exchange() as exchange:
        finding = checked(address(exchange.url()))
    assert finding.severity is Severity.FINE, finding.found
    skew = finding.facts["skew_s"]
    assert isinstance(skew, float)
    assert abs(skew) < 1.0


@pytest.mark.parametrize(("hours", "way"), [(1, "behind"), (-1, "ahead of")])
def test_another_clock_is_bad(hours: int, way: str) -> None:
    """For a clock an hour off, the finding states size, direction and remedy."""
    with open_exchange(start=time.time_ns() + hours * 3600 * SECOND_NS) as exchange:
        finding = checked(address(exchange.url()))
    assert finding.severity is Severity.BAD
    assert way in finding.found
    assert "NTP" in finding.remedy
    skew = finding.facts["skew_s"]
    assert isinstance(skew, float)
    assert skew == pytest.approx(-3600 * hours, abs=2.0)


def test_the_date_header_stands_in() -> None:
    """Without a time in the body, the Date header counts, and its resolution of a second adds to the uncertainty."""
    answer = httpx.Response(404, headers={"date": "Mon, 05 Jan 2026 12:00:00 GMT"})
    skew = skew_of(answer, NOON + 400_000_000, NOON + 600_000_000)
    assert skew is not None
    assert tuple(skew) == pytest.approx((0.0, 0.6))
    with open_site({}) as site:
        assert checked(site).severity is Severity.FINE


def test_half_of_the_way_is_uncertain() -> None:
    """A time in the body is compared with the middle between request and response."""
    answer = httpx.Response(200, json={"iso": format_time(NOON), "epoch": 0.0})
    assert skew_of(answer, NOON + SECOND_NS, NOON + 3 * SECOND_NS) == Skew(2.0, 1.0)
    assert skew_of(httpx.Response(200, content=b"no time"), NOON, NOON) is None


@pytest.mark.parametrize(
    ("skew", "severity"),
    [
        (Skew(0.4, 0.0), Severity.FINE),
        (Skew(-0.7, 0.1), Severity.WARNING),
        (Skew(0.7, 0.3), Severity.FINE),
        (Skew(6.0, 0.5), Severity.BAD),
        (Skew(6.0, 2.0), Severity.WARNING),
    ],
)
def test_only_what_is_sure_counts(skew: Skew, severity: Severity) -> None:
    """A slow response alone does not make a clock wrong."""
    assert clock_finding(skew, "http://x").severity is severity


def test_without_an_answer_nothing_is_claimed() -> None:
    """Without an exchange there is a warning; an invalid address is wrong usage."""
    finding = checked(f"http://{nobody()}")
    assert finding.severity is Severity.WARNING
    assert finding.found.startswith("not compared")
    with pytest.raises(UsageError, match="https://"):
        checked("exchange")
