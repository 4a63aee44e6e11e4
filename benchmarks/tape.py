"""How fast tapes are read, beside polars (NDJSON) and bare Arrow (Parquet) on the same files in the same run.

The NDJSON tape is of recorded shape, about 570 bytes a line, in Advanced Trade's wording. polars gets the same columns
out of it: figures as floats, the timestamp as nanoseconds, on all cores; volspike uses one. Arrow decodes the Parquet
tape's columns on one thread and does nothing else with them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from volspike.market import SECOND_NS, Kind, Tick
from volspike.tape import DayFigures, TapeWriter, convert, read_ticks

LINES: Final = 40_000
BEST_OF: Final = 3
DAY: Final = DayFigures(8103.26846767, 88099.05, 92533.29)
RAW: Final = (
    '{{"type":"ticker","product_id":"BTC-USD","price":"{price:.2f}","volume_24_h":"8103.26846767","low_24_h":"88099.05",'
    '"high_24_h":"92533.29","low_52_w":"74420.69","high_52_w":"126296","price_percent_chg_24_h":"-2.70171266278031",'
    '"best_bid":"{bid:.2f}","best_ask":"{ask:.2f}","best_bid_quantity":"{bid_size:.8f}","best_ask_quantity":"{ask_size:.8f}"}}'
)


def write_lines(path: Path) -> None:
    """A random walk told as recorded tapes tell a market."""
    rng = np.random.default_rng(7)
    cents = 8_956_500 + rng.integers(-200, 201, LINES).cumsum()
    received = 1_764_999_936 * SECOND_NS + (rng.exponential(0.25, LINES).cumsum() * 1e6).astype(np.int64) * 1000
    sizes = rng.exponential(0.2, (LINES, 2)).round(8)
    with TapeWriter(path) as tape:
        for ns, price, (bid_size, ask_size) in zip(
            received.tolist(), (cents / 100).tolist(), sizes.tolist(), strict=True
        ):
            bid, ask = round(price - 0.01, 2), round(price + 0.01, 2)
            tick = Tick(
                time=ns,
                received=ns,
                kind=Kind.TICKER,
                product_id="BTC-USD",
                price=price,
                best_bid=bid,
                best_ask=ask,
                bid_size=bid_size,
                ask_size=ask_size,
            )
            raw = RAW.format(price=price, bid=bid, ask=ask, bid_size=bid_size, ask_size=ask_size)
            tape.write_tick(tick, raw=raw.encode(), day=DAY)


def read_with_volspike(path: Path) -> int:
    """All ticks of a tape, chunk by chunk."""
    return sum(len(part) for part in read_ticks(path, set_aside=False))


def read_with_polars(path: Path) -> int:
    """The same columns of an NDJSON tape, as floats and nanoseconds, all at once."""
    raw = pl.col("raw").struct
    frame = pl.read_ndjson(path).select(
        pl.col("timestamp").str.to_datetime(time_unit="ns", time_zone="UTC"),
        pl.col("product_id"),
        pl.col("price", "best_bid", "best_ask").cast(pl.Float64),
        raw.field("best_bid_quantity").cast(pl.Float64),
        raw.field("best_ask_quantity").cast(pl.Float64),
    )
    return frame.height


def read_with_arrow(path: Path) -> int:
    """All columns of a Parquet tape, batch by batch, on one thread."""
    with pq.ParquetFile(path) as file:
        return sum(batch.num_rows for batch in file.iter_batches(use_threads=False))


def rate(read: Callable[[Path], int], path: Path) -> float:
    """Rows per second, the best of a few runs after one that warms up."""
    read(path)
    rates = []
    for _ in range(BEST_OF):
        started = time.perf_counter()
        rows = read(path)
        rates.append(rows / (time.perf_counter() - started))
    return max(rates)


def main(repeats: int = 25) -> dict[str, float]:
    """Measure both forms of a tape of ``repeats`` x 40000; print the figures and their ratios, and return them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_lines(folder / "short.ndjson")
        with (folder / "long.ndjson").open("wb") as tape:
            for _ in range(repeats):
                tape.write((folder / "short.ndjson").read_bytes())
        convert(folder / "long.ndjson", folder / "long.parquet")
        figures = {
            "ndjson_volspike": rate(read_with_volspike, folder / "long.ndjson"),
            "ndjson_polars": rate(read_with_polars, folder / "long.ndjson"),
            "parquet_volspike": rate(read_with_volspike, folder / "long.parquet"),
            "parquet_arrow": rate(read_with_arrow, folder / "long.parquet"),
        }
    figures["ndjson_ratio"] = figures["ndjson_volspike"] / figures["ndjson_polars"]
    figures["parquet_ratio"] = figures["parquet_volspike"] / figures["parquet_arrow"]
    print(f"tapes of {repeats * LINES} ticks, ticks per second, best of {BEST_OF}")
    print(f"{'':10}{'volspike':>14}{'peer':>14}{'ratio':>8}")
    for form, peer in (("ndjson", "polars"), ("parquet", "arrow")):
        ours, theirs, ratio = figures[f"{form}_volspike"], figures[f"{form}_{peer}"], figures[f"{form}_ratio"]
        print(f"{form:10}{ours:14,.0f}{theirs:14,.0f}{ratio:7.2f}x  {peer}")
    return figures


if __name__ == "__main__":
    main()
