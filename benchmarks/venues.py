"""Five venues at once in one process: event-loop lag and frames per second, with scoring.

The simulated exchange runs in another process, so that its work is not measured. The sessions, the decoders and the
live pipeline share one event loop, as in ``volspike up``.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from typing import Final

import msgspec
import numpy as np
import uvloop

from benchmarks.figures import Figure
from benchmarks.live import alone, pipeline_of, probe
from volspike.config import FeedSettings
from volspike.feeds.events import FeedEvent, FeedFrame, Frame
from volspike.feeds.session import FeedSession, read_sessions
from volspike.feeds.simulation.exchange import SimulatedExchange, SimulatedExchangeSettings
from volspike.live.pipeline import LivePipeline
from volspike.market import SECOND_NS, Gap, Kind, Tick
from volspike.market.product import product_name

VENUES: Final = ("coinbase", "binance", "kraken", "okx", "bybit")
SYMBOLS: Final = tuple(f"C{number:02d}-USD" for number in range(20))
PRODUCTS: Final = tuple(product_name(venue, symbol) for venue in VENUES for symbol in SYMBOLS)
FRAMES_PER_S: Final = 2000
SPEED: Final = 2.3
"""Market seconds per second, with which the five connections together carry ``FRAMES_PER_S``."""

WARM_S: Final = 400
"""The length of the history that fills all windows; the longest one is 300 s."""

SETTLE_S: Final = 4.0
MEASURED_S: Final = 20.0
LATE_S: Final = 60
"""The market begins so much in the past that its times do not pass our clock."""


def serve_market(urls: Connection) -> None:
    """Serve the market in this process until the other end of ``urls`` closes."""

    async def serve() -> None:
        settings = SimulatedExchangeSettings(
            products=SYMBOLS, speed=SPEED, start=time.time_ns() - LATE_S * SECOND_NS, kept=0
        )
        async with SimulatedExchange(settings) as exchange:
            urls.send({venue: exchange.url(venue) for venue in VENUES})
            await asyncio.to_thread(urls.poll, None)

    asyncio.run(serve())


def past_ticks(now: int) -> Iterator[Tick]:
    """A tick of every product in every second before ``now``, so that all windows are full."""
    for second in range(LATE_S + WARM_S, LATE_S, -1):
        time_ns = now - second * SECOND_NS
        for number, product in enumerate(PRODUCTS):
            price = 1000 + (second * 7 + number) % 13 / 10
            yield Tick(
                time=time_ns,
                received=time_ns,
                kind=Kind.TICKER,
                product_id=product,
                price=price,
                best_bid=price - 0.01,
                best_ask=price + 0.01,
                bid_size=1.0,
                ask_size=1.0,
            )


def feed_settings(venue: str, url: str) -> FeedSettings:
    """The settings of a session for all products of a venue."""
    products = tuple(product_name(venue, symbol) for symbol in SYMBOLS)
    return msgspec.convert({"protocol": venue, "url": url, "products": products}, FeedSettings)


async def listen(urls: dict[str, str]) -> dict[str, float]:
    """The lag of the loop while five sessions feed one pipeline."""
    pipeline = pipeline_of(PRODUCTS)
    for tick in past_ticks(time.time_ns()):
        pipeline.take(FeedFrame(tick.received, b"", Frame(time=tick.time, ticks=(tick,))))
    wake = asyncio.Event()
    async with AsyncExitStack() as ends:
        beside = ends.enter_context(ProcessPoolExecutor(1, multiprocessing.get_context("spawn")))
        await asyncio.wrap_future(beside.submit(idle_loop, 0.1))  # the process has started
        sessions = [
            await ends.enter_async_context(FeedSession(feed_settings(venue, url), simulated=True, wake=wake))
            for venue, url in urls.items()
        ]
        gaps = [0]
        running = asyncio.create_task(take_all(pipeline, read_sessions(sessions, wake), gaps))
        await asyncio.sleep(SETTLE_S)
        lags: list[float] = []
        probing = asyncio.create_task(probe(lags))
        idle = beside.submit(idle_loop, MEASURED_S)
        before, cpu, began = [session.stats.frames for session in sessions], time.process_time(), time.perf_counter()
        await asyncio.sleep(MEASURED_S)
        took = time.perf_counter() - began
        counts = [session.stats.frames - count for session, count in zip(sessions, before, strict=True)]
        busy = (time.process_time() - cpu) / took
        probing.cancel()
        running.cancel()
        await asyncio.gather(probing, running, return_exceptions=True)
        idle_p99 = await asyncio.wrap_future(idle)
    p50, p99 = np.percentile(lags, [50, 99]).tolist()
    return {
        "p50": p50,
        "p99": p99,
        "most": max(lags),
        "idle": idle_p99,
        "rate": sum(counts) / took,
        "least": min(counts) / took,
        "busy": busy,
        "gaps": gaps[0],
    }


def idle_loop(seconds: float) -> float:
    """The 99th percentile of the lag (ms) of a loop without work: what the machine's other processes cause."""

    async def measure() -> float:
        lags: list[float] = []
        probing = asyncio.create_task(probe(lags))
        await asyncio.sleep(seconds)
        probing.cancel()
        return float(np.percentile(lags, 99))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure())


async def take_all(pipeline: LivePipeline, events: AsyncIterator[FeedEvent], gaps: list[int]) -> None:
    """Process events as the pipeline does, and count the gaps."""
    async for event in events:
        gaps[0] += isinstance(event, Gap)
        pipeline.take(event)


def venue_lag() -> dict[str, float]:
    """The figures of ``listen``, with the market in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve_market, args=(theirs,))
    server.start()
    theirs.close()
    try:
        if not ours.poll(60):
            raise RuntimeError("the simulated exchange did not start within 60 s")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(listen(ours.recv()))
    finally:
        ours.close()
        server.join(10)
        server.kill()


def main() -> list[Figure]:
    """Loop lag with five venues of 20 products."""
    lag = alone(venue_lag)
    return [
        Figure(
            f"event-loop lag, {len(VENUES)} venues × {len(SYMBOLS)} products in one process: 99th percentile",
            f"{lag['p99']:.1f} ms at {lag['rate']:,.0f} frames/s",
            f"under 10 ms at {FRAMES_PER_S:,} frames/s",
            lag["p99"] < 10 and lag["rate"] >= FRAMES_PER_S and lag["least"] > 0,
            f"idle loop in another process {lag['idle']:.1f} ms; median {lag['p50']:.1f} ms, "
            f"maximum {lag['most']:.0f} ms; "
            f"{100 * lag['busy']:.0f} % of a core; {lag['gaps']:.0f} gaps; "
            f"least of a venue {lag['least']:,.0f} frames/s",
        )
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
