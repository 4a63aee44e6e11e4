"""Sessions of the four venues against the simulated exchange: the same trades, and every loss in a gap."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.feeds.venue_frames import (
    PRODUCTS,
    SECONDS,
    RawTrade,
    as_sent,
    market_trades,
    random_faults,
    settings,
    trades_of,
)
from volspike.config import FeedSettings
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange
from volspike.feeds.simulation.faults import Faults, Sent
from volspike.market import SECOND_NS, Cause, Gap, Kind, Tick
from volspike.market.product import product_name, split_product

PATIENCE_S = 30.0
OVER = "the simulated market is over"
VENUES = ("binance", "kraken", "okx", "bybit")
CONSECUTIVE = ("binance", "kraken", "okx")

faults = random_faults([0.0, 0.02, 0.1], 6.0)


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


def made_trades(protocol: str, frame: Sent) -> list[RawTrade]:
    """The trades of a frame before it was damaged; none of an additional malformed one."""
    try:
        return trades_of(protocol, frame.original or frame.data)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return []


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


@pytest.mark.parametrize("protocol", CONSECUTIVE)
@given(faults=faults, seed=st.integers(0, 50))
@examples(max_examples=12)
def test_every_lost_trade_lies_in_a_gap(protocol: str, faults: Faults, seed: int) -> None:
    """Between the receipts of the trades before and after it there is a gap of its product."""
    events, exchange = asyncio.run(run_session(protocol, faults, seed))
    received: dict[str, dict[int, int]] = defaultdict(dict)
    for tick in ticks_of(events, Kind.TRADE):
        received[split_product(tick.product_id)[1]].setdefault(tick.trade_id, tick.received)
    gaps = [event for event in events if isinstance(event, Gap)]
    lost = 0
    for trade in {trade for frame in exchange.sent for trade in made_trades(protocol, frame)}:
        own = received[trade.product]
        before = max((number for number in own if number < trade.trade_id), default=None)
        after = min((number for number in own if number > trade.trade_id), default=None)
        if trade.trade_id in own or before is None or after is None:
            continue
        lost += 1
        name = product_name(protocol, trade.product)
        first, last = sorted((own[before], own[after]))  # the trade before it may be the later one to arrive
        assert any(name in gap.products and gap.end >= first and gap.start <= last for gap in gaps), (
            trade,
            own[before],
            own[after],
            gaps,
        )
    if faults.drop == 0.1:
        assert lost


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
    events, _ = asyncio.run(run_session(protocol, Faults(close_every_s=11.0)))
    causes = [event.cause for event in events if isinstance(event, Gap) and event.verifiable]
    assert Cause.RECONNECT in causes


@pytest.mark.parametrize("protocol", CONSECUTIVE)
def test_dropped_trades_are_named(protocol: str) -> None:
    """The gaps of a product have the ids of all trades that did not arrive, and no other."""
    events, _ = asyncio.run(run_session(protocol, Faults(drop=0.1, duplicate=0.05)))
    for product in (product_name(protocol, symbol) for symbol in PRODUCTS):
        came: set[int] = set()
        for event in events:
            if isinstance(event, FeedFrame):
                ticks = event.frame.ticks
                firsts = event.frame.first_ids or tuple(tick.trade_id for tick in ticks)
                for first, tick in zip(firsts, ticks, strict=True):
                    if tick.product_id == product and tick.trade_id >= 0:
                        came |= set(range(first, tick.trade_id + 1))
        gaps = [event for event in events if isinstance(event, Gap) and event.products == (product,)]
        ids = [[int(number) for number in re.findall(r"[0-9]+", gap.detail)] for gap in gaps]
        named = {number for few in ids for number in range(few[0], few[-1] + 1)}
        assert named == set(range(min(came), max(came) + 1)) - came
        assert sum(gap.lost for gap in gaps) == len(named)
        assert named
