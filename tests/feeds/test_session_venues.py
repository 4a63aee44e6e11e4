"""Sessions of the four venues against the simulated exchange: the same trades, and every loss in a gap."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from tests.feeds.venue_frames import PRODUCTS, SECONDS, RawTrade, as_sent, market_trades, settings
from volspike.config import FeedSettings
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange
from volspike.feeds.simulation.faults import Faults
from volspike.market import SECOND_NS, Cause, Gap, Kind, Tick
from volspike.market.product import product_name, split_product

PATIENCE_S = 30.0
OVER = "the simulated market is over"
VENUES = ("binance", "kraken", "okx", "bybit")
CONSECUTIVE = ("binance", "kraken", "okx")


def feed_settings(protocol: str, url: str, **changes: Any) -> FeedSettings:
    products = tuple(product_name(protocol, symbol) for symbol in PRODUCTS)
    plain = {"protocol": protocol, "url": url, "products": products, "backoff_min_s": 0.001, "backoff_max_s": 0.002}
    return msgspec.convert(plain | changes, FeedSettings)


async def run_session(protocol: str, faults: Faults, seed: int = 7) -> tuple[list[FeedEvent], SimulatedExchange]:
    """A market at full speed: the events until its end, and the frames sent or lost.

    It lies in the last seconds, as Binance's quotes have the time of their receipt.
    """
    events: list[FeedEvent] = []
    start = time.time_ns() - SECONDS * SECOND_NS
    start -= start % SECOND_NS
    async with (
        asyncio.timeout(PATIENCE_S),
        SimulatedExchange(settings(start=start, faults=faults, seed=seed, subscribes=2, kept=1 << 20)) as exchange,
        FeedSession(feed_settings(protocol, exchange.url(protocol))) as session,
    ):
        async for event in session.events():
            events.append(event)
            if isinstance(event, FeedState) and OVER in event.reason:
                break
        return events, exchange


def ticks_of(events: Iterable[FeedEvent], kind: Kind) -> list[Tick]:
    return [tick for event in events if isinstance(event, FeedFrame) for tick in event.frame.ticks if tick.kind is kind]


def raw(tick: Tick) -> RawTrade:
    symbol = split_product(tick.product_id)[1]
    return RawTrade(symbol, tick.trade_id, tick.price, tick.last_size, tick.side, tick.time)


@pytest.mark.parametrize("protocol", VENUES)
def test_a_session_receives_the_market(protocol: str) -> None:
    """Every trade is the same tick, once and in order, and nothing is reported as lost."""
    events, exchange = asyncio.run(run_session(protocol, Faults()))
    found: dict[str, list[RawTrade]] = defaultdict(list)
    for tick in ticks_of(events, Kind.TRADE):
        found[split_product(tick.product_id)[1]].append(raw(tick))
    start = exchange.settings.start
    assert start is not None
    expected = [as_sent(protocol, trade) for trade in market_trades(PRODUCTS, SECONDS, start)]
    for product in PRODUCTS:
        own = [trade for trade in expected if trade.product == product]
        since = [trade for trade in found[product] if trade.trade_id >= own[0].trade_id]
        assert since == own[-len(since) :]
        assert len(since) > 0.8 * len(own)
    assert [event for event in events if isinstance(event, Gap) and event.verifiable] == []


@pytest.mark.parametrize("protocol", VENUES)
def test_a_run_without_losses_has_no_gap(protocol: str) -> None:
    """Frames that arrive twice, unknown messages and order books lose nothing."""
    harmless = Faults(duplicate=0.1, unknown=0.1, snapshot_every_s=3, snapshot_bytes=20_000)
    events, _ = asyncio.run(run_session(protocol, harmless))
    assert [event for event in events if isinstance(event, Gap) and event.verifiable] == []
    assert len({(tick.product_id, tick.trade_id) for tick in ticks_of(events, Kind.TRADE)}) > 100


@pytest.mark.parametrize("protocol", VENUES)
def test_a_lost_connection_is_a_gap(protocol: str) -> None:
    """After a close the session reconnects, and the trades between are in a gap."""
    events, _ = asyncio.run(run_session(protocol, Faults(close_every_s=6.0)))
    causes = [event.cause for event in events if isinstance(event, Gap) and event.verifiable]
    assert Cause.RECONNECT in causes
