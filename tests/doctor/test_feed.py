"""The feed check against the simulated exchange."""

from __future__ import annotations

import asyncio

import pytest

from tests.doctor.servers import nobody, open_exchange
from volspike.config import FeedSettings
from volspike.doctor.examination import _findings
from volspike.doctor.finding import Finding, Severity
from volspike.doctor.services import check_feeds
from volspike.errors import UsageError
from volspike.feeds.simulation.faults import Faults


def checked(url: str, within_s: float = 10.0, **settings: object) -> Finding:
    (finding,) = asyncio.run(check_feeds([FeedSettings(url=url, **settings)], within_s))  # type: ignore[arg-type]
    return finding


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_an_exchange_that_tells_ticks_is_fine(protocol: str) -> None:
    """Connected, subscribed, and a tick of every product: fine, with the time to the first tick."""
    with open_exchange(products=("BTC-USD", "ETH-USD")) as exchange:
        finding = checked(exchange.url(protocol), protocol=protocol, products=("BTC-USD", "ETH-USD"))
    assert (finding.check, finding.severity) == ("feed", Severity.FINE)
    assert isinstance(finding.facts["first_tick_s"], float)


def test_nobody_there_is_bad() -> None:
    """A refused connection is reported with its reason and with the command that needs no exchange."""
    finding = checked(f"ws://{nobody()}", 1.0)
    assert finding.severity is Severity.BAD
    assert "cannot be reached within 1 s" in finding.found
    assert "refused" in finding.found or "cannot connect" in finding.found
    assert "--source simulator" in finding.remedy


def test_an_exchange_without_the_product_is_reported() -> None:
    """A product that the exchange does not have is named, whether the exchange refuses or ignores it."""
    with open_exchange() as exchange:
        finding = checked(exchange.url(), 2.0, products=("NOSUCH-USD",))
    assert finding.severity in {Severity.WARNING, Severity.BAD}
    assert "--pair" in finding.remedy


def test_a_silent_exchange_is_a_warning() -> None:
    """An exchange that accepts the connection but sends no frame is a warning."""
    with open_exchange(faults=Faults(drop=1.0)) as exchange:
        finding = checked(exchange.url(), 2.0)
    assert finding.severity is Severity.WARNING
    assert "sent no tick of BTC-USD" in finding.found


def test_an_unusable_proxy_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The missing package is named, and the other checks still run."""
    monkeypatch.setenv("wss_proxy", "socks5h://proxy.example:1080")
    monkeypatch.setattr("volspike.feeds.connection.find_spec", lambda _: None)
    finding = checked("wss://exchange.invalid")
    assert finding.severity is Severity.BAD
    assert "pip install python-socks" in finding.found


def test_a_check_that_fails_is_a_finding() -> None:
    """An unexpected error of one check is reported under its name; wrong usage is raised."""

    async def fails(error: Exception) -> list[Finding]:
        raise error

    (finding,) = asyncio.run(_findings("disk", fails(RuntimeError("no such device"))))
    assert (finding.check, finding.severity) == ("disk", Severity.BAD)
    assert finding.found == "the check failed: RuntimeError: no such device"
    with pytest.raises(UsageError):
        asyncio.run(_findings("clock", fails(UsageError("not an address"))))


def test_an_invalid_address_is_wrong_usage() -> None:
    """An invalid address is wrong usage."""
    with pytest.raises(UsageError, match="ws://"):
        checked("http://127.0.0.1:9")
