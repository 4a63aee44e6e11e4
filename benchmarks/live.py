"""The live pipeline: latency from frame bytes to score, capacity, event-loop lag and memory.

Each measurement runs in a separate process, so that neither memory nor caches carry over. Frames have the Advanced
Trade ticker format; they come from this process instead of a socket and are decoded like those of a session. The timed
part is ``LivePipeline.take`` completely, not only up to the score. Latencies are open-loop: a frame that is due while
an earlier one is being processed waits, and its wait counts.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import uvloop

from benchmarks.figures import Figure
from benchmarks.market import START
from benchmarks.tape import RAW
from volspike.api.app import create_app
from volspike.api.server import Server, listen, server_config
from volspike.config import ServingSettings
from volspike.feeds.events import FeedEvent, FeedFrame, Frame
from volspike.feeds.simulation.market import simulate_market
from volspike.feeds.venues.coinbase_advanced_trade import decode_advanced_trade
from volspike.live.dashboard import Dashboard
from volspike.live.pipeline import LivePipeline
from volspike.live.scoring import LiveScorer
from volspike.live.up import dashboard_routes
from volspike.logs import configure_logs
from volspike.market import SECOND_NS, Kind, Mode, Tick, format_time
from volspike.models import DEFAULT_MODEL, Artifact
from volspike.monitoring.outcomes import OutcomeStore
from volspike.tape.recorder import Recorder

RATE: Final = 1000
PACED_S: Final = 6
PACED_ROUNDS: Final = 3
FLAT_FRAMES: Final = 45_000
FLAT_ROUNDS: Final = 3
SCORED_FRAMES: Final = 6_000
HISTORY_S: Final = 900  # the history that a dashboard displays; the longest window is 300 s
WATCHED_S: Final = 15
WATCHERS: Final = 3
PROBE_S: Final = 0.005
PRODUCTS: Final = tuple(f"C{number:02d}-USD" for number in range(50))
PAIRS: Final = ("BTC-USD", "ETH-USD")
HOURS: Final = 24
EARLY_HOUR: Final = 2
ENVELOPE: Final = (
    '{{"channel":"ticker","client_id":"","timestamp":"{time}","sequence_num":7,'
    '"events":[{{"type":"update","tickers":[{ticker}]}}]}}'
)
WATCH: Final = """
import sys
import threading
import urllib.request

def watch():
    with urllib.request.urlopen(sys.argv[1]) as stream:
        received.append(sum(line.startswith(b"event: tick") for line in stream))

received = []
watchers = [threading.Thread(target=watch) for _ in range(int(sys.argv[2]))]
for watcher in watchers:
    watcher.start()
for watcher in watchers:
    watcher.join()
print(min(received))
"""


class Sent(NamedTuple):
    """One received frame: time (ns UTC) and bytes."""

    received: int
    data: bytes


def ticker_frame(tick: Tick) -> Sent:
    """A tick as a frame in the Advanced Trade format."""
    ticker = RAW.format(
        price=tick.price, bid=tick.best_bid, ask=tick.best_ask, bid_size=tick.bid_size, ask_size=tick.ask_size
    ).replace("BTC-USD", tick.product_id)
    return Sent(tick.received, ENVELOPE.format(time=format_time(tick.time), ticker=ticker).encode())


def walk(products: Sequence[str], rate: float, n: int, start: int) -> Iterator[Sent]:
    """``n`` frames, ``rate`` per second, alternating over the products; prices move by up to two dollars."""
    rng = np.random.default_rng(7)
    cents = (8_956_500 + rng.integers(-200, 201, n).cumsum()).tolist()
    sizes = rng.exponential(0.2, (n, 2)).round(8).tolist()
    for k, (cent, (bid_size, ask_size)) in enumerate(zip(cents, sizes, strict=True)):
        received = start + round(k / rate * 1e6) * 1000
        yield ticker_frame(
            Tick(
                time=received,
                received=received,
                kind=Kind.TICKER,
                product_id=products[k % len(products)],
                price=cent / 100,
                best_bid=(cent - 1) / 100,
                best_ask=(cent + 1) / 100,
                bid_size=bid_size,
                ask_size=ask_size,
            )
        )


def event_of(sent: Sent) -> FeedFrame:
    """The event that a session creates from a frame's bytes."""
    return FeedFrame(sent.received, sent.data, decode_advanced_trade(sent.data, sent.received))


def take_all(pipeline: LivePipeline, frames: Iterable[Sent]) -> float:
    """Seconds to process frames one after the other."""
    began = time.perf_counter()
    for sent in frames:
        pipeline.take(event_of(sent))
    return time.perf_counter() - began


def take_paced(take: Callable[[Sent], object], frames: Sequence[Sent]) -> dict[str, float]:
    """Median and 99th percentile (µs) from the time at which a frame is due to the end of its processing.

    Of several rounds the quietest: what the machine can do when it is left alone.
    """
    size = len(frames) // PACED_ROUNDS
    rounds = [paced_round(take, frames[k : k + size]) for k in range(0, size * PACED_ROUNDS, size)]
    return min(rounds, key=lambda figures: figures["p99"])


def paced_round(take: Callable[[Sent], object], frames: Iterable[Sent]) -> dict[str, float]:
    """One round; it waits actively, so that frames start at their time to the microsecond."""
    clock, period, took = time.perf_counter_ns, SECOND_NS // RATE, []
    due = clock() + period
    for sent in frames:
        while clock() < due:
            pass
        take(sent)
        took.append(clock() - due)
        due += period
    p50, p99 = (np.percentile(took, [50, 99]) / 1000).tolist()
    return {"p50": p50, "p99": p99}


def pipeline_of(products: Sequence[str], **parts: Any) -> LivePipeline:
    """A pipeline of the default model over a simulated source, without wall-clock latencies."""
    configure_logs("ERROR")
    scorer = LiveScorer(Artifact.load(DEFAULT_MODEL))
    return LivePipeline(scorer, products, "benchmark", mode=Mode.SIMULATED, timed_from=None, **parts)


def a_frames_way(*, recorded: bool, kept: bool) -> dict[str, float]:
    """Latencies at a steady rate and maximum frames/s, for one product with warm windows."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder), simulated=True) if recorded else None
        outcomes = OutcomeStore(Path(folder) / "outcomes.sqlite") if kept else None
        pipeline = pipeline_of(PAIRS[:1], recorder=recorder, outcomes=outcomes)
        take_all(pipeline, walk(PAIRS[:1], 4, 4 * HISTORY_S, START - HISTORY_S * SECOND_NS))
        n, part = PACED_S * RATE, FLAT_FRAMES // FLAT_ROUNDS
        frames = list(walk(PAIRS[:1], RATE, n + FLAT_FRAMES, START))
        figures = take_paced(lambda sent: pipeline.take(event_of(sent)), frames[:n])
        figures["rate"] = max(part / take_all(pipeline, frames[k : k + part]) for k in range(n, len(frames), part))
        if recorder is not None:
            recorder.close()
        if outcomes is not None:
            outcomes.close()
    return figures


def scored_frames() -> dict[str, float]:
    """Median and 99th percentile (µs) of frames that end a second, so that each makes a row and a score."""
    pipeline, took = pipeline_of(PAIRS[:1]), []
    take_all(pipeline, walk(PAIRS[:1], 4, 4 * HISTORY_S, START - HISTORY_S * SECOND_NS))
    for sent in walk(PAIRS[:1], 1, SCORED_FRAMES, START):
        began = time.perf_counter_ns()
        pipeline.take(event_of(sent))
        took.append(time.perf_counter_ns() - began)
    p50, p99 = (np.percentile(took, [50, 99]) / 1000).tolist()
    return {"p50": p50, "p99": p99}


def decoding_alone() -> dict[str, float]:
    """The same for decoding only; ``stall`` is the 99th percentile (µs) without any work."""
    frames = list(walk(PAIRS[:1], RATE, FLAT_FRAMES, START))
    began = time.perf_counter()
    for sent in frames:
        event_of(sent)
    rate = FLAT_FRAMES / (time.perf_counter() - began)
    paced = frames[: PACED_S * RATE]
    return {**take_paced(event_of, paced), "rate": rate, "stall": take_paced(lambda _: None, paced)["p99"]}


async def arriving(history: Iterable[Sent], frames: Iterable[Sent], warm: asyncio.Event) -> AsyncIterator[FeedEvent]:
    """Yield a history at once, then frames at their rate."""
    for sent in history:
        yield event_of(sent)
    warm.set()
    due = time.perf_counter()
    for sent in frames:
        due += 1 / RATE
        if (ahead := due - time.perf_counter()) > 0:
            await asyncio.sleep(ahead)
        yield event_of(sent)


async def probe(lags: list[float]) -> None:
    """Sleep repeatedly; the excess over the requested time is the lag of the loop (ms).

    The time is ``perf_counter``: uvloop's clock does not advance during a callback and has a resolution of 1 ms.
    """
    while True:
        began = time.perf_counter()
        await asyncio.sleep(PROBE_S)
        lags.append(max(0.0, time.perf_counter() - began - PROBE_S) * 1000)


async def idle_lag() -> float:
    """The 99th percentile of the lag of an idle loop."""
    lags: list[float] = []
    probing = asyncio.create_task(probe(lags))
    await asyncio.sleep(PACED_S / 2)
    probing.cancel()
    return float(np.percentile(lags, 99))


async def watched(folder: Path) -> dict[str, float]:
    """Lag of the loop with open dashboards and all parts of ``volspike up``: tape, outcomes, server."""
    outcomes = OutcomeStore(folder / "outcomes.sqlite")
    pipeline = pipeline_of(PAIRS, recorder=Recorder(folder, simulated=True), outcomes=outcomes)
    frames = list(walk(PAIRS, RATE, WATCHED_S * RATE, time.time_ns()))
    history = walk(PAIRS, 8, 8 * HISTORY_S, frames[0].received - HISTORY_S * SECOND_NS)
    settings = ServingSettings(model=DEFAULT_MODEL)
    dashboard = Dashboard(pipeline)
    pipeline.periodic += dashboard.periodic
    app = create_app(settings, pages=dashboard_routes(pipeline.publisher, dashboard.snapshot))
    lags, idle = list[float](), await idle_lag()
    with listen("127.0.0.1", 0) as listener:
        server, warm = Server(server_config(app, settings), pipeline.publisher.close), asyncio.Event()
        listening = asyncio.create_task(pipeline.run(arriving(history, frames, warm)))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await warm.wait()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/stream"
        probing = asyncio.create_task(probe(lags))
        command = (sys.executable, "-c", WATCH, url, str(WATCHERS))
        watchers = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        printed, _ = await watchers.communicate()
        probing.cancel()
        await listening
        server.should_exit = True
        await serving
    p50, p99 = np.percentile(lags, [50, 99]).tolist()
    return {"p50": p50, "p99": p99, "most": max(lags), "rows": float(printed), "idle": idle}


def loop_lag() -> dict[str, float]:
    """Run ``watched`` on the same kind of loop as ``volspike up``."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(watched(Path(folder)))


def resident() -> int:
    """Resident memory of this process in bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def many_products() -> dict[str, float]:
    """Latencies and memory with all products in one process, each with 15 minutes of history."""
    take_all(pipeline_of(PAIRS), walk(PAIRS, 8, 8 * HISTORY_S, START))  # code and buffers that are loaded once
    before = resident()
    pipeline = pipeline_of(PRODUCTS)
    n = len(PRODUCTS)
    take_all(pipeline, walk(PRODUCTS, n, n * HISTORY_S, START - HISTORY_S * SECOND_NS))
    grown = resident() - before
    figures = take_paced(lambda sent: pipeline.take(event_of(sent)), list(walk(PRODUCTS, RATE, PACED_S * RATE, START)))
    return {**figures, "state": pipeline.scorer.engine.bytes_per_product, "grown": grown / n}


def simulated_day() -> dict[str, float]:
    """Memory after two hours and after a day of a simulated market of two products, at maximum speed.

    Decoding is excluded; it stores nothing.
    """
    at: dict[int, int] = {}
    began, hour = time.perf_counter(), 1
    with tempfile.TemporaryDirectory() as folder:
        outcomes = OutcomeStore(Path(folder) / "outcomes.sqlite")
        pipeline = pipeline_of(PAIRS, outcomes=outcomes)
        for ticks in simulate_market(PAIRS, HOURS * 3600, 7, START):
            for tick in ticks:
                pipeline.take(FeedFrame(tick.received, b"", Frame(time=tick.time, ticks=(tick,))))
            if ticks.time[-1] >= START + (hour * 3600 - 60) * SECOND_NS:  # ticks arrive in blocks of ten minutes
                outcomes.flush(30.0)  # a day of rows arrives within seconds, and the writer's queue must not overflow
                at[hour] = resident()
                hour += 1
        outcomes.close()
    return {
        "early": at[EARLY_HOUR],
        "late": at[HOURS],
        "frames": Dashboard(pipeline).health()["frames"],
        "lost": outcomes.lost,
        "seconds": time.perf_counter() - began,
    }


def alone(measure: Callable[[], Any]) -> Any:
    """Run ``measure`` in a separate process and return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure).result()


def way_figures() -> list[Figure]:
    """Latency per frame, and frames per second."""
    bare, taped, full = (
        alone(partial(a_frames_way, recorded=recorded, kept=kept))
        for recorded, kept in ((False, False), (True, False), (True, True))
    )
    decoding, scored = alone(decoding_alone), alone(scored_frames)
    return [
        Figure(
            "frame bytes → score, frames that end a second and so make a row: median",
            f"{scored['p50']:.0f} µs",
            "under 60 µs",
            scored["p50"] < 60,
            f"99th percentile {scored['p99']:.0f} µs; decoding only {decoding['p50']:.0f} µs",
        ),
        Figure(
            f"frame bytes → processed, {RATE} frames/s on one core, one row per second: median",
            f"{bare['p50']:.0f} µs",
            "under 60 µs",
            bare["p50"] < 60,
            f"decoding only {decoding['p50']:.0f} µs; recorded {taped['p50']:.0f} µs, "
            f"with outcomes {full['p50']:.0f} µs",
        ),
        Figure(
            "the same: 99th percentile",
            f"{bare['p99']:.0f} µs",
            "under 500 µs",
            bare["p99"] < 500,
            f"no work {decoding['stall']:.0f} µs; recorded {taped['p99']:.0f} µs, with outcomes {full['p99']:.0f} µs",
        ),
        Figure(
            "frames sustained, one row per second of market time",
            f"{bare['rate']:,.0f} frames/s",
            "15 000 frames/s",
            bare["rate"] >= 15_000,
            f"decoding only {decoding['rate']:,.0f}; recorded {taped['rate']:,.0f}, with outcomes {full['rate']:,.0f}",
        ),
    ]


def main() -> list[Figure]:
    """Latency per frame, loop lag with dashboards, many products, a day."""
    figures = way_figures()
    lag, many, day = alone(loop_lag), alone(many_products), alone(simulated_day)
    ratio = day["late"] / day["early"]
    return [
        *figures,
        Figure(
            f"event-loop lag, {RATE} frames/s recorded, {WATCHERS} open dashboards: 99th percentile",
            f"{lag['p99']:.1f} ms",
            "under 10 ms",
            lag["p99"] < 10 and lag["rows"] > 0,
            f"idle loop {lag['idle']:.1f} ms; median {lag['p50']:.1f} ms, maximum {lag['most']:.0f} ms; "
            f"each received {lag['rows']:.0f} rows",
        ),
        Figure(
            f"{len(PRODUCTS)} products in one process, {RATE} frames/s: 99th percentile per frame",
            f"{many['p99']:.0f} µs",
            "under 500 µs",
            many["p99"] < 500,
            f"median {many['p50']:.0f} µs; per product {many['state'] / 2**10:.0f} KiB of state, "
            f"{many['grown'] / 2**20:.1f} MiB with the 15 minutes that a dashboard displays",
        ),
        Figure(
            f"memory over a simulated day of {len(PAIRS)} products, relative to two hours",
            f"{ratio:.2f}",
            "flat: under 1.1",
            ratio < 1.1 and not day["lost"],
            f"{day['early'] / 2**20:.0f} MiB, then {day['late'] / 2**20:.0f} MiB; {day['frames']:,.0f} frames in "
            f"{day['seconds']:.0f} s",
        ),
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
