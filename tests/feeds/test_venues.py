"""Protocols of other distributions: found, refused by name, and the example of the documentation."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.docs.pages import parse_page
from tests.feeds.test_recorded_frames import venue_frames
from volspike.config import FeedSettings
from volspike.errors import UsageError
from volspike.feeds import venues
from volspike.feeds.protocol import FeedProtocol
from volspike.feeds.venues import ENTRY_POINTS, all_protocols, load_protocol, venue_settings
from volspike.market import Kind, Side

RENAMED = (
    "import dataclasses\nfrom volspike.feeds.venues.kraken import PROTOCOL as KRAKEN\n"
    "PROTOCOL = dataclasses.replace(KRAKEN, name='{name}', venue='{venue}')"
)
PAGE = ROOT / "docs" / "adding-a-venue.md"


def install(folder: Path, module: str, code: str, entry: str) -> None:
    """A distribution as an installer leaves it: the module, and metadata with an entry point."""
    (folder / f"{module}.py").write_text(code)
    metadata = folder / f"{module}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{entry}\n")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of distributions on the path; the protocols are found again before and after the test."""
    monkeypatch.syspath_prepend(str(tmp_path))
    all_protocols.cache_clear()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if (tmp_path / f"{name}.py").exists():
            del sys.modules[name]
    all_protocols.cache_clear()


def example() -> str:
    (code,) = ["\n".join(block.lines) for block in parse_page(PAGE)[1] if block.kind == "python"]
    return code + "\n"


@pytest.mark.shared_data
def test_the_example_is_found_and_decodes_recorded_frames(site: Path, shared_data: Path) -> None:
    """An installed distribution adds its venue to ``--pair``; its codec reads frames recorded at Bitstamp."""
    install(site, "volspike_bitstamp", example(), "bitstamp = volspike_bitstamp:PROTOCOL")
    protocol = all_protocols()["bitstamp"]
    (feed,) = venue_settings("auto", FeedSettings(products=("bitstamp:BTC-USD",)))
    assert (feed.protocol, protocol.kinds(feed)) == ("bitstamp", frozenset({Kind.TRADE}))
    assert protocol.subscribe_messages(feed, feed.products) == [
        '{"event":"bts:subscribe","data":{"channel":"live_trades_btcusd"}}'
    ]
    codec = protocol.codec(feed.products)
    found: Counter[str] = Counter()
    for received, data in venue_frames(shared_data, "bitstamp.txt"):
        frame = codec.decode(data, received)
        for tick in frame.ticks:
            assert tick.side in {Side.BUY, Side.SELL}
            assert abs(tick.time - received) < 5_000_000_000
        found.update(["tick"] * len(frame.ticks) or ["ack" if frame.ack is not None else "ignored"])
    assert found["tick"] == 10
    assert found["ack"] > 0


def test_a_trade_of_the_example_is_a_tick(site: Path) -> None:
    """Type 0 is bought, type 1 sold; numbers come as text."""
    install(site, "volspike_bitstamp", example(), "bitstamp = volspike_bitstamp:PROTOCOL")
    codec = all_protocols()["bitstamp"].codec(("bitstamp:BTC-USD",))
    for kind, side in ((0, Side.BUY), (1, Side.SELL)):
        data = (
            b'{"data":{"id":7,"price_str":"100.25","amount_str":"0.5","type":%d,"microtimestamp":"1700000000000001"},'
            b'"channel":"live_trades_btcusd","event":"trade"}' % kind
        )
        (tick,) = codec.decode(data, 1).ticks
        assert (tick.product_id, tick.price, tick.last_size) == ("bitstamp:BTC-USD", 100.25, 0.5)
        assert (tick.side, tick.trade_id, tick.time) == (side, 7, 1_700_000_000_000_001_000)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("raise RuntimeError('no licence')", "cannot be imported: RuntimeError: no licence"),
        ("PROTOCOL = 'kraken'", "must name a FeedProtocol, got str"),
        ("from volspike.feeds.venues.kraken import PROTOCOL", "defines the protocol kraken, which exists already"),
        ("other = 1", "cannot be imported: AttributeError"),
        (RENAMED.format(name="auto", venue="kraken"), "has the name 'auto'; use lower-case letters"),
        (RENAMED.format(name="My Venue", venue="kraken"), "has the name 'My Venue'"),
        (RENAMED.format(name="other", venue="Kraken:"), "has the venue 'Kraken:'"),
    ],
)
def test_a_broken_distribution_is_named_and_left_out(
    site: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    """The other venues stay; the log names the distribution and the reason."""
    install(site, "broken_venue", code + "\n", "broken = broken_venue:PROTOCOL")
    reasons: list[str] = []
    monkeypatch.setattr(venues.log, "warning", lambda _, reason: reasons.append(reason))
    assert "broken" not in all_protocols()
    assert "kraken" in all_protocols()
    (reason,) = reasons
    assert message in reason
    assert "broken = broken_venue:PROTOCOL of broken-venue" in reason


def test_an_entry_point_without_a_distribution_is_refused() -> None:
    """An entry point made by hand has no distribution to name."""
    entry = EntryPoint("x", "volspike.market:Kind", ENTRY_POINTS)
    with pytest.raises(UsageError, match="of an unknown distribution must name a FeedProtocol"):
        load_protocol(entry, {})


def test_the_built_in_protocols_are_complete() -> None:
    """Each has a name of its own, and the first of a venue is the one that ``auto`` uses."""
    protocols = all_protocols()
    assert list(protocols)[:6] == ["coinbase", "coinbase-exchange", "binance", "kraken", "okx", "bybit"]
    assert all(isinstance(protocol, FeedProtocol) and protocol.name == name for name, protocol in protocols.items())
    assert not entry_points(group=ENTRY_POINTS)
