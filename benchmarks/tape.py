"""Reading speed of tapes, compared with polars (NDJSON) and Arrow (Parquet) on the same files.

The NDJSON tape has the shape of a recording, about 570 bytes per line in the Advanced Trade format. polars extracts the
same columns, numbers as floats and the timestamp as nanoseconds, on all cores; volspike uses one. Arrow decodes the
columns of the Parquet tape on one thread and does nothing else.
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

from benchmarks.figures import Figure
from benchmarks.market import parquet_tape
from volspike.features import FeatureEngine
from volspike.market import SECOND_NS, Kind, Tick
from volspike.tape import DayFigures, TapeWriter, read_ticks

LINES: Final = 250_000
PARQUET_TICKS: Final = 4_000_000
BEST_OF: Final = 3
DAY: Final = DayFigures(8103.26846767, 88099.05, 92533.29)
RAW: Final = (
    '{{"type":"ticker","product_id":"BTC-USD","price":"{price:.2f}","volume_24_h":"8103.26846767","low_24_h":"88099.05",'
    '"high_24_h":"92533.29","low_52_w":"74420.69","high_52_w":"126296","price_percent_chg_24_h":"-2.70171266278031",'
    '"best_bid":"{bid:.2f}","best_ask":"{ask:.2f}","best_bid_quantity":"{bid_size:.8f}","best_ask_quantity":"{ask_size:.8f}"}}'
)


def write_lines(path: Path) -> None:
    """Write a random walk in the format of recorded tapes."""
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
    return sum(len(part) for part in read_ticks(path, keep_rejected=False))


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
    """Rows per second, the best of a few runs after a warm-up."""
    read(path)
    rates = []
    for _ in range(BEST_OF):
        started = time.perf_counter()
        rows = read(path)
        rates.append(rows / (time.perf_counter() - started))
    return max(rates)


def features_of(path: Path) -> int:
    """Compute every feature row of a tape with the live engine."""
    return sum(len(rows) for rows in FeatureEngine().run_all(read_ticks(path, keep_rejected=False)))


def main() -> list[Figure]:
    """Read both forms of a tape, with and without features."""
    with tempfile.TemporaryDirectory() as name:
        lines, table = Path(name) / "tape.ndjson", parquet_tape(Path(name) / "tape.parquet", PARQUET_TICKS, 50.0)
        write_lines(lines)
        ndjson, polars, ndjson_features = (
            rate(read, lines) for read in (read_with_volspike, read_with_polars, features_of)
        )
        parquet, arrow, parquet_features = (
            rate(read, table) for read in (read_with_volspike, read_with_arrow, features_of)
        )
    return [
        Figure(
            "NDJSON tape → features",
            f"{ndjson_features / 1e3:,.0f} 000 lines/s",
            "400 000 lines/s",
            ndjson_features >= 400_000,
            f"reading only {ndjson / 1e3:,.0f} 000; polars on all cores {polars / 1e3:,.0f} 000",
        ),
        Figure(
            "Parquet tape → features",
            f"{parquet_features / 1e6:.1f} M ticks/s",
            "3 M ticks/s",
            parquet_features >= 3e6,
            f"reading only {parquet / 1e6:.1f} M; Arrow on one thread {arrow / 1e6:.1f} M",
        ),
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
