"""Ticks for measurements: a random walk with quotes and sizes, of any length and rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from volspike.market import Ticks
from volspike.tape import write_parquet

START = 1_760_000_000_000_000_000


def random_walk(n: int, rate: float, seed: int = 0, start: int = START) -> Ticks:
    """``n`` ticker ticks of one product, ``rate`` per second on average."""
    rng = np.random.default_rng(seed)
    time = start + np.cumsum(rng.exponential(1e9 / rate, n)).astype(np.int64)
    price = np.round(90_000 * np.exp(np.cumsum(rng.normal(0, 1e-5, n))), 2)
    untold = np.full(n, -1)
    return Ticks(
        ("BTC-USD",),
        time=time,
        received=time,
        kind=np.zeros(n, np.int8),
        product=np.zeros(n, np.int32),
        price=price,
        best_bid=price - 0.01,
        best_ask=price + rng.choice([0.01, 0.5], n),
        bid_size=rng.exponential(1.0, n),
        ask_size=rng.exponential(1.0, n),
        last_size=rng.exponential(0.1, n),
        side=np.zeros(n, np.int8),
        trade_id=untold,
        sequence=untold,
    )


def parquet_tape(path: Path, ticks: int, rate: float, part: int = 500_000) -> Path:
    """Write a Parquet tape of ``n`` ticks in parts."""

    def parts() -> Iterator[Ticks]:
        start = START
        for seed in range(ticks // part):
            walk = random_walk(part, rate, seed, start)
            start = int(walk.time[-1]) + 1
            yield walk

    write_parquet(parts(), path)
    return path
