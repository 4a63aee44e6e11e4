"""Cost of metrics per tick, compared with the client library's own collectors, and per scrape."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest

from benchmarks.figures import Figure
from benchmarks.live import PAIRS, PRODUCTS, event_of, pipeline_of, take_all, walk
from benchmarks.market import START
from volspike.feeds.events import FeedFrame
from volspike.live import metrics as declared
from volspike.live.metrics import LiveCounts
from volspike.live.scoring import ScoredRow
from volspike.market import SECOND_NS

ROUNDS: Final = 7
TICKS: Final = 40_000
FRAMES: Final = 4_000
WARM_S: Final = 4000
LATENCY_NS: Final = 12_345_678
SCORING_NS: Final = 23_456


def best(once: Callable[[], object]) -> float:
    """Seconds of the fastest of several rounds."""
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        once()
        took.append(time.perf_counter() - began)
    return min(took)


def counted(frame: FeedFrame, scored: ScoredRow) -> float:
    """Seconds per tick for everything that the pipeline counts for a frame with one tick and one row."""
    counts = LiveCounts(0, 0.5)

    def once() -> None:
        for _ in range(TICKS):
            counts.add(frame)
            counts.add_scoring(SCORING_NS)
            counts.add_row(scored, time.perf_counter_ns())

    return best(once) / TICKS


def collected(scored: ScoredRow) -> float:
    """The same with the library's counters, gauges and histograms, with labels resolved in advance."""
    registry, product = CollectorRegistry(), scored.row.product_id
    ticks = declared.FEED_TICKS.counter(registry).labels(product)
    rows = declared.FEATURE_ROWS.counter(registry).labels(product)
    age, warm = (each.gauge(registry).labels(product) for each in (declared.FEATURE_AGE, declared.FEATURE_WARM))
    whole, last = (each.gauge(registry).labels(product) for each in (declared.FEATURE_WHOLE, declared.PROBABILITY))
    silence = declared.FEED_SILENCE.gauge(registry)
    latency, scoring, probability = (
        each.histogram(registry) for each in (declared.FEED_LATENCY, declared.SCORE_LATENCY, declared.SCORE_PROBABILITY)
    )

    def once() -> None:
        for _ in range(TICKS):
            at = time.perf_counter_ns() / SECOND_NS
            silence.set(at)
            latency.observe(LATENCY_NS / SECOND_NS)
            scoring.observe(SCORING_NS / SECOND_NS)
            ticks.inc()
            rows.inc()
            age.set(at)
            warm.set(scored.row.is_warm)
            whole.set(scored.row.is_whole)
            last.set(scored.probability)
            probability.observe(scored.probability)

    return best(once) / TICKS


def main() -> list[Figure]:
    """Cost per tick, and of a scrape with many products."""
    pipeline = pipeline_of(PAIRS[:1])
    take_all(pipeline, walk(PAIRS[:1], 1, WARM_S, START))
    newest = pipeline.counts.products[PAIRS[0]].newest
    assert newest is not None  # there were ticks
    # each frame ends a second, so that it makes what is counted: a row and a score
    frames: list[FeedFrame] = [event_of(sent) for sent in walk(PAIRS[:1], 1, FRAMES, START + WARM_S * SECOND_NS)]
    began = time.perf_counter()
    for frame in frames:
        pipeline.take(frame)
    whole = (time.perf_counter() - began) / FRAMES
    own, library = counted(frames[0], newest), collected(newest)

    many = pipeline_of(PRODUCTS)
    take_all(many, walk(PRODUCTS, len(PRODUCTS), 10 * len(PRODUCTS), START))
    registry = CollectorRegistry()
    registry.register(many.collector())
    scrape = best(partial(generate_latest, registry))
    lines = sum(not line.startswith(b"#") for line in generate_latest(registry).splitlines())
    return [
        Figure(
            "metrics per tick (feed, row and score counted)",
            f"{own * 1e6:.2f} µs",
            "under 3 µs, and at most a tenth of the frame",
            own < 3e-6 and own < 0.1 * whole,
            f"the library's own collectors {library * 1e6:.2f} µs; a complete frame {whole * 1e6:.1f} µs",
        ),
        Figure(
            f"a scrape of {len(PRODUCTS)} products on the event loop",
            f"{scrape * 1e3:.1f} ms",
            "under 10 ms",
            scrape < 0.01,
            f"{lines} series",
        ),
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
