"""The feature kernel through both entry points: over arrays, compared with polars, and tick by tick."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import numpy as np
import polars as pl

from benchmarks.figures import Figure
from benchmarks.market import random_walk
from volspike.features import DEFAULT_WINDOWS, Every, FeatureEngine, FeatureSet, Scope
from volspike.market import Ticks
from volspike.market.tick import DTYPES

TICKS = 1_000_000
RATE = 10.0
RATES = (1.0, 10.0, 100.0, 1000.0)
ROUNDS = 3


def best_of(run: Callable[[], object], times: int = 5) -> float:
    """Seconds of the fastest of several runs, which other load affects least."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return min(took)


CORE = FeatureSet()


def engine_pass(ticks: Ticks, feature_set: FeatureSet = CORE, every: Every = Every.TICK) -> int:
    """Compute every row on one core; return the number of rows."""
    return sum(len(rows) for rows in FeatureEngine(feature_set, every=every).run(ticks))


def polars_pass(frame: pl.DataFrame) -> pl.DataFrame:
    """The same 21 columns with polars on all cores: ``rolling_*_by`` per tick, a grid per second, then joined."""
    second = pl.col("time").dt.truncate("1s")
    grid = (
        frame.group_by(second.alias("second"), maintain_order=True)
        .agg(pl.col("price").last())
        .upsample("second", every="1s")
        .with_columns(pl.col("price").forward_fill())
        .with_columns(
            (pl.col("price") / pl.col("price").shift(1)).log().alias("r"), pl.col("price").diff().abs().alias("move")
        )
    )
    by_second = [
        expression
        for w in DEFAULT_WINDOWS
        for expression in (
            pl.col("r").rolling_std(w, ddof=0).shift(1).alias(f"realized_volatility_{w}s"),
            pl.col("move").rolling_mean(w).shift(1).alias(f"price_velocity_{w}s"),
            pl.col("price").shift(w).alias(f"base_{w}s"),
        )
    ]
    by_tick = [
        expression
        for w in DEFAULT_WINDOWS
        for expression in (
            pl.col("spread").rolling_mean_by("time", f"{w}s").alias(f"spread_mean_{w}s"),
            pl.col("imbalance").rolling_mean_by("time", f"{w}s").alias(f"order_book_imbalance_{w}s"),
            pl.col("one").rolling_sum_by("time", f"{w}s").alias(f"trade_intensity_{w}s"),
            pl.col("last_size").rolling_sum_by("time", f"{w}s").alias(f"volume_velocity_{w}s"),
        )
    ]
    return (
        frame.lazy()
        .with_columns(
            (pl.col("best_ask") - pl.col("best_bid")).alias("spread"),
            (pl.col("bid_size") / (pl.col("bid_size") + pl.col("ask_size"))).alias("imbalance"),
            pl.lit(1.0).alias("one"),
            second.alias("second"),
        )
        .with_columns(by_tick)
        .join(grid.lazy().with_columns(by_second).drop("price", "r", "move"), on="second", how="left")
        .with_columns((pl.col("price") / pl.col(f"base_{w}s")).log().alias(f"log_return_{w}s") for w in DEFAULT_WINDOWS)
        .collect()
    )


def frame_of(ticks: Ticks) -> pl.DataFrame:
    """The columns that the features need."""
    names = ("price", "best_bid", "best_ask", "bid_size", "ask_size", "last_size")
    columns = {name: getattr(ticks, name) for name in names}
    return pl.DataFrame({"time": ticks.time, **columns}).with_columns(pl.col("time").cast(pl.Datetime("ns")))


def update_us(rate: float, feature_set: FeatureSet = CORE, ticks: int = 20_000) -> float:
    """Median microseconds of ``FeatureEngine.update`` at a rate of ticks per second, warm."""
    walk = random_walk(ticks, rate, seed=3)
    engine, took = FeatureEngine(feature_set), []
    for tick in walk:
        start = time.perf_counter_ns()
        engine.update(tick)
        took.append(time.perf_counter_ns() - start)
    return median(took[ticks // 4 :]) / 1e3


def wider_set(scope: Scope, ticks: Ticks) -> Figure:
    """Speed of a larger feature set, measured alternately with the core set."""
    wide = FeatureSet(scope=scope)
    for every in Every:
        engine_pass(ticks[:1000], wide, every)
    pairs = [(best_of(lambda: engine_pass(ticks), 1), best_of(lambda: engine_pass(ticks, wide), 1)) for _ in range(5)]
    core, took = (min(side) for side in zip(*pairs, strict=True))
    by_second = best_of(lambda: engine_pass(ticks, wide, Every.SECOND), 3)
    update = min(update_us(RATE, wide) for _ in range(ROUNDS))
    memory = FeatureEngine(wide).bytes_per_product
    return Figure(
        f"feature kernel, {scope} set of {len(wide.names)} features, one core",
        f"{TICKS / took / 1e6:.1f} M ticks/s",
        "none",
        True,
        f"core {TICKS / core / 1e6:.1f} M ticks/s; a row per second {TICKS / by_second / 1e6:.1f} M ticks/s; "
        f"`update` {update:.2f} µs; {memory / 1000:.0f} kB a product",
    )


def with_leader(ticks: Ticks) -> Figure:
    """Cost per tick of a leader at its worst, a tick of each product in turn, measured alternately without one."""
    codes = (np.arange(len(ticks)) % 2).astype(np.int32)
    both = Ticks(
        ("BTC-USD", "binance:BTC-USDT"), **{name: getattr(ticks, name) for name in DTYPES} | {"product": codes}
    )
    plain, led = FeatureSet(scope=Scope.FULL), FeatureSet(scope=Scope.FULL, leader="binance:BTC-USDT")
    runs = [
        (best_of(lambda: engine_pass(both, plain), 1), best_of(lambda: engine_pass(both, led), 1)) for _ in range(5)
    ]
    without, took = (min(side) for side in zip(*runs, strict=True))
    return Figure(
        "feature kernel, full set, with a leader relative to without",
        f"{took / without:.2f} times as long",
        "under 1.2 times",
        took / without < 1.2,
        f"{took / len(both) * 1e9:.0f} ns a tick with, {without / len(both) * 1e9:.0f} ns without",
    )


def main() -> list[Figure]:
    """Kernel over arrays, compared with polars; ``update`` at 1 to 1000 ticks/s; the larger feature sets."""
    ticks = random_walk(TICKS, RATE)
    frame = frame_of(ticks)
    engine_pass(ticks[:1000])
    ours, theirs = best_of(lambda: engine_pass(ticks)), best_of(lambda: polars_pass(frame), times=3)
    # alternating, several times, so that other load affects all rates
    rounds = [{rate: update_us(rate) for rate in RATES} for _ in range(ROUNDS)]
    speeds = {rate: min(speed[rate] for speed in rounds) for rate in RATES}
    slowest, quickest = max(speeds.values()), min(speeds.values())
    state = FeatureEngine().bytes_per_product
    return [
        Figure(
            "feature kernel, 21 features, 3 windows, one core",
            f"{TICKS / ours / 1e6:.1f} M ticks/s",
            "8 M ticks/s",
            TICKS / ours >= 8e6,
            f"at {RATE:g} ticks/s of market time",
        ),
        Figure(
            "the same columns, relative to polars on all cores",
            f"{theirs / ours:.1f} times as fast",
            "3 times",
            theirs / ours >= 3,
            f"polars {TICKS / theirs / 1e6:.2f} M ticks/s",
        ),
        Figure("`FeatureEngine.update`, median", f"{slowest:.2f} µs", "under 5 µs", slowest < 5),
        Figure(
            "`update` from 1 to 1000 ticks/s, slowest relative to fastest",
            f"{slowest / quickest:.2f}",
            "flat",
            slowest / quickest < 1.5,
            ", ".join(f"{rate:g}/s {value:.2f} µs" for rate, value in speeds.items()),
        ),
        Figure("engine state per product", f"{state / 1000:.0f} kB", "under 100 kB", state < 100_000),
        *(wider_set(scope, ticks) for scope in (Scope.FULL, Scope.DEEP)),
        with_leader(ticks),
    ]


if __name__ == "__main__":
    np.set_printoptions(suppress=True)
    for figure in main():
        print(*figure.cells(), sep=" | ")
