"""A session against the simulated exchange with faults: every loss is reported, and nothing else."""

from __future__ import annotations

import asyncio
import re
from itertools import groupby, pairwise

from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.feeds.venue_frames import random_faults
from volspike.config import FeedSettings
from volspike.feeds.events import FeedEvent, FeedFault, FeedFrame, FeedState
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.feeds.simulation.faults import Faults, Sent
from volspike.feeds.venues.coinbase_advanced_trade import advanced_trade_sequence
from volspike.market import Cause, Gap

START = 1_767_225_600_000_000_000
PATIENCE_S = 30.0
OVER = "the simulated market is over"

shares = [0.0, 0.01, 0.05, 0.12]
faults = random_faults(
    shares,
    4.0,
    skip=st.sampled_from(shares),
    close_every_s=st.sampled_from([0.0, 5.0, 7.0]),
    close_codes=st.sampled_from([(1001,), (1001, 0)]),
)


async def run_with_faults(faults: Faults, seed: int) -> tuple[list[FeedEvent], tuple[Sent, ...]]:
    """Fifteen seconds of a market at full speed: the events, and the frames sent or lost."""
    market = SimulatedExchangeSettings(
        products=("BTC-USD",), seed=seed, speed=0, start=START, seconds=15, subscribes=3, faults=faults
    )
    events: list[FeedEvent] = []
    async with asyncio.timeout(PATIENCE_S), SimulatedExchange(market) as exchange:
        settings = FeedSettings(url=exchange.url("coinbase"), backoff_min_s=0.001, backoff_max_s=0.002)
        async with FeedSession(settings) as session:
            async for event in session.events():
                events.append(event)
                if isinstance(event, FeedState) and OVER in event.reason:
                    break
        return events, exchange.sent


def by_connection(events: list[FeedEvent]) -> list[list[FeedEvent]]:
    parts: list[list[FeedEvent]] = []
    for event in events:
        if isinstance(event, FeedState) and event.is_connected:
            parts.append([])
        elif parts:
            parts[-1].append(event)
    return parts


def named(gaps: list[Gap]) -> list[int]:
    """The sequence numbers that gaps report as missing."""
    told: list[int] = []
    for gap in gaps:
        first, last = map(int, re.findall(r"\d+", gap.detail))
        assert gap.lost == last - first + 1
        told += range(first, last + 1)
    return told


def assert_losses_reported(events: list[FeedEvent], sent: list[Sent]) -> None:
    """On one connection, sent frames arrive in order; gaps name the lost and the late ones."""
    came: list[bytes] = []
    for event in events:
        if isinstance(event, FeedFrame | FeedFault) and not (came and came[-1] is event.data):
            came.append(event.data)  # a partly damaged frame is a fault and a frame
    left = [frame for frame in sent if not frame.is_lost][: len(came)]
    assert came == [frame.data for frame in left]
    numbers = [number for frame in left if (number := advanced_trade_sequence(frame.data)) >= 0]
    told = named([event for event in events if isinstance(event, Gap) and event.cause is Cause.SEQUENCE])
    if not numbers:
        assert not told
        return
    late = {number for place, number in enumerate(numbers) if number < max(numbers[: place + 1])}
    late -= {number for place, number in enumerate(numbers) if number >= max(numbers[: place + 1])}
    missing = set(range(numbers[0], max(numbers))) - set(numbers)
    assert told == sorted(missing | {number for number in late if number > numbers[0]})


@given(faults, st.integers(0, 50))
@examples(max_examples=12)
def test_gaps_name_exactly_the_losses_after_any_faults(faults: Faults, seed: int) -> None:
    """Drops, skipped numbers, silences, duplicates, late frames, broken ones and lost connections, in any mixture."""
    events, sent = asyncio.run(run_with_faults(faults, seed))
    heard = by_connection(events)
    said = [list(frames) for _, frames in groupby(sent, lambda frame: frame.connection)]
    assert len(heard) == len(said)
    for mine, theirs in zip(heard, said, strict=True):
        assert_losses_reported(mine, theirs)
    absences = [event for event in events if isinstance(event, Gap) and event.cause is Cause.RECONNECT]
    assert all(earlier.end <= later.start for earlier, later in pairwise(absences))
    with_ticks = [any(isinstance(event, FeedFrame) and event.frame.ticks for event in part) for part in heard]
    assert len(absences) == sum(with_ticks[1:])


def test_every_damaged_tick_lies_in_a_gap_of_its_product() -> None:
    """Each frame that arrived damaged or with a wrong time was received within a gap with the cause ``malformed``."""
    events, sent = asyncio.run(run_with_faults(Faults(damage=0.2, mistime=0.1), 3))
    changed = {frame.data for frame in sent if frame.original and b'"price"' in frame.original}
    received = [event.received for event in events if isinstance(event, FeedFault) and event.data in changed]
    gaps = [event for event in events if isinstance(event, Gap) and event.cause is Cause.MALFORMED]
    assert len(received) > 10
    assert all(any(gap.start <= moment <= gap.end for gap in gaps) for moment in received)
    lost = {frame.original for frame in sent if frame.original}
    assert not lost & {event.data for event in events if isinstance(event, FeedFrame)}


def test_reset_of_the_numbers_hides_no_later_loss() -> None:
    """After the exchange counts from 0 again there is a gap of unknown size, and the next lost frames are found."""

    async def whole() -> list[Gap]:
        market = SimulatedExchangeSettings(products=("BTC-USD",), speed=10.0)
        async with asyncio.timeout(PATIENCE_S), SimulatedExchange(market) as exchange:
            gaps: list[Gap] = []
            is_reset = False
            async with FeedSession(FeedSettings(url=exchange.url("coinbase"))) as session:
                async for event in session.events():
                    if isinstance(event, Gap):
                        gaps.append(event)
                        exchange.faults.drop(3)
                    elif session.stats.frames >= 30 and not is_reset:
                        is_reset = True
                        exchange.faults.reset()
                    if len(gaps) == 2:
                        break
            return gaps

    reset, loss = asyncio.run(whole())
    assert (reset.cause, reset.lost) == (Cause.SEQUENCE, -1)
    assert reset.detail.startswith("the sequence numbers were reset: ")
    assert (loss.cause, loss.lost) == (Cause.SEQUENCE, 3)
