"""The look at the exchange, against the simulated one."""

from __future__ import annotations

import asyncio

import pytest

from tests.doctor.servers import nobody, open_exchange
from volspike.config import FeedSettings
from volspike.doctor.finding import Finding, Severity
from volspike.doctor.services import look_at_feed
from volspike.errors import UsageError
from volspike.feeds.simulation.faults import Faults


def looked(url: str, within_s: float = 10.0, **settings: object) -> Finding:
    (finding,) = asyncio.run(look_at_feed(FeedSettings(url=url, **settings), within_s))  # type: ignore[arg-type]
    return finding


@pytest.mark.parametrize("protocol", ["coinbase", "coinbase-exchange"])
def test_an_exchange_that_tells_ticks_is_fine(protocol: str) -> None:
    """Connected, subscribed, and a tick of every product: fine, with the time that the first one took."""
    with open_exchange(products=("BTC-USD", "ETH-USD")) as exchange:
        finding = looked(exchange.url(protocol), protocol=protocol, products=("BTC-USD", "ETH-USD"))
    assert (finding.check, finding.severity) == ("feed", Severity.FINE)
    assert isinstance(finding.facts["first_tick_s"], float)


def test_nobody_there_is_bad() -> None:
    """A refused connection is told with its reason, and what runs without an exchange."""
    finding = looked(f"ws://{nobody()}", 1.0)
    assert finding.severity is Severity.BAD
    assert "cannot be reached within 1 s" in finding.found
    assert "refused" in finding.found or "cannot connect" in finding.found
    assert "--source simulator" in finding.remedy


def test_an_exchange_without_the_product_is_told() -> None:
    """A product that the exchange does not have is named, whether it is refused or left out in silence."""
    with open_exchange() as exchange:
        finding = looked(exchange.url(), 2.0, products=("NOSUCH-USD",))
    assert finding.severity in {Severity.WARNING, Severity.BAD}
    assert "--pair" in finding.remedy


def test_a_silent_exchange_is_a_warning() -> None:
    """It shakes hands and loses every frame: there is an answer, and nothing of the product."""
    with open_exchange(faults=Faults(drop=1.0)) as exchange:
        finding = looked(exchange.url(), 2.0)
    assert finding.severity is Severity.WARNING
    assert "told nothing of BTC-USD" in finding.found


def test_an_address_of_no_socket_is_a_wrong_call() -> None:
    """What cannot be an address is refused like anywhere else."""
    with pytest.raises(UsageError, match="ws://"):
        looked("http://127.0.0.1:9")
