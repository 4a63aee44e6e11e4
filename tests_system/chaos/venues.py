"""``python -m tests_system.chaos.venues``: sessions of Binance, Kraken, OKX and Bybit under random faults.

Each venue has an exchange and a session of its own in this process, in real time. Every trade of the market must have
arrived or lie in a gap of its product, as in the chaos run of the programs. Skipped and restarted trade ids are
excluded: the ids of a connection then differ from those of the next one, which happens at no venue.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from tests_system.chaos.checks import Findings, Tape, TapeTick, check_losses, check_tape, wire_tick
from tests_system.chaos.run import FAULTS, PRODUCTS, QUIET_S, Plan, Program, Result, Run
from tests_system.chaos.truth import VENUES, Journal
from volspike.config import FeedSettings
from volspike.feeds.events import FeedEvent, FeedFrame, FeedState
from volspike.feeds.session import FeedSession
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.market import Gap, Kind, Tick

EXCLUDED: Final = frozenset({"skip", "reset"})
PATIENCE_S: Final = 30.0


async def run_venues(plan: Plan) -> dict[str, Findings]:
    """The findings of all venues, which run at the same time under different faults."""
    found = await asyncio.gather(*(run_venue(venue, plan, number) for number, venue in enumerate(VENUES)))
    return dict(zip(VENUES, found, strict=True))


async def run_venue(venue: str, plan: Plan, number: int) -> Findings:
    """One session under the faults of the plan, and its comparison with the journal of its exchange."""
    products = tuple(f"{venue}:{symbol}" for symbol in PRODUCTS)
    market = SimulatedExchangeSettings(
        products=products,
        seed=plan.seed + number,
        start=time.time_ns(),
        seconds=round(plan.seconds) + 600,
        kept=1 << 24,
    )
    events: list[FeedEvent] = []
    async with SimulatedExchange(market) as exchange:
        program = Program("session", venue, Path(), exchange, (), 0, [Run(time.time_ns())])
        feed = {"protocol": venue, "url": exchange.url(venue), "products": products}
        async with FeedSession(msgspec.convert(feed, FeedSettings), simulated=True) as session:
            reading = asyncio.create_task(_read(session, events))
            async with asyncio.timeout(PATIENCE_S):
                while not session.stats.ticks:
                    await asyncio.sleep(0.05)
            await _strike(program, plan._replace(seed=plan.seed + number))
            await _wait_for_trades(events, products, time.time_ns())
            await asyncio.sleep(QUIET_S)
            program.runs[-1].ended = time.time_ns()
        await reading
        journal = Journal.of(exchange, venue)
    return _compare(Result(program, journal), events)


async def _read(session: FeedSession, events: list[FeedEvent]) -> None:
    async for event in session.events():
        events.append(event)  # noqa: PERF401  a list that is complete at any moment


async def _wait_for_trades(events: list[FeedEvent], products: Sequence[str], since: int) -> None:
    """Wait until every product has had a trade since a time, so that the last loss has been noticed."""
    async with asyncio.timeout(PATIENCE_S):
        while not {tick.product_id for tick in trades_of(events) if tick.received > since}.issuperset(products):
            await asyncio.sleep(0.1)


def trades_of(events: Sequence[FeedEvent]) -> Iterator[Tick]:
    """The trades of all frames."""
    for event in events:
        for tick in event.frame.ticks if isinstance(event, FeedFrame) else ():
            if tick.kind is Kind.TRADE:
                yield tick


async def _strike(program: Program, plan: Plan) -> None:
    """Carry out the faults of the plan on the connections that are open, as soon as there is one."""
    chance = random.Random(plan.seed + 1)  # noqa: S311  a seeded draw
    began = time.monotonic()
    for at, name in plan.events():
        if name in EXCLUDED:
            continue
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        async with asyncio.timeout(PATIENCE_S):
            while not FAULTS[name](program.exchange.faults, chance):
                await asyncio.sleep(0.05)
        program.faults[name] += 1


def _compare(result: Result, events: list[FeedEvent]) -> Findings:
    """The checks of a recording, on the events of the session."""
    positions = {wire: deque(sent) for wire, sent in result.journal.positions.items()}
    ticks = []
    for tick in trades_of(events):
        wire = wire_tick(tick)
        unused = positions.get(wire)
        position = unused.popleft() if unused else -1
        ticks.append(TapeTick(tick, wire, 0, position, result.journal.frames[position].connection))
    gaps = [event for event in events if isinstance(event, Gap) and event.verifiable]
    findings, tape = Findings(), Tape(ticks, gaps)
    check_tape(result.journal, tape, findings)
    check_losses(result, tape, findings)
    findings.counts["faults"] = result.program.faults.total()
    findings.counts["gaps"] = len(gaps)
    findings.counts["connections"] = sum(isinstance(event, FeedState) and event.is_connected for event in events)
    return findings


def main() -> None:
    """Run the venues, print the counts, and fail if a check was violated."""
    parser = argparse.ArgumentParser(prog="python -m tests_system.chaos.venues", description=__doc__)
    parser.add_argument("--seed", type=int, default=12, help="seed of the markets and the faults")
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the run, in real time")
    parser.add_argument("--faults", type=int, default=30, help="faults of each venue")
    options = parser.parse_args()
    findings = asyncio.run(run_venues(Plan(options.seed, 60.0 * options.minutes, options.faults, 0)))
    for venue, each in findings.items():
        print(venue, ", ".join(f"{count:,} {label}" for label, count in each.counts.items()))  # noqa: T201  a command
    violated = "\n".join(f"{venue}: {each.summary()}" for venue, each in findings.items() if each.violations)
    if violated:
        raise SystemExit(violated)


if __name__ == "__main__":
    main()
