"""Bulk history: one pass compared with two workers and with a local Ray, alternating over the same tapes."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pyarrow.parquet as pq

from benchmarks.figures import Figure
from benchmarks.kernel import best_of
from benchmarks.market import random_walk
from volspike.datasets.build import build_features
from volspike.datasets.engines import create_engine
from volspike.features import Every, FeatureSet, Scope
from volspike.market import Ticks
from volspike.tape import write_ndjson

PRODUCTS, DAYS, TICKS_A_DAY = 4, 4, 60_000
ROUNDS = 3
DAY_NS = 86_400_000_000_000
FULL = FeatureSet(scope=Scope.FULL)


def history(folder: Path) -> list[Path]:
    """Write NDJSON tapes, one per product and day, a few hours each."""
    start = int(random_walk(1, 1.0).time[0])
    paths = []
    for product in range(PRODUCTS):
        for day in range(DAYS):
            walk = random_walk(TICKS_A_DAY, 5.0, product * DAYS + day, start + day * DAY_NS)
            columns = dict(walk.columns())
            paths.append(folder / f"ticks_P{product}_{day}.ndjson")
            write_ndjson([Ticks((f"P{product}-USD",), **columns)], paths[-1])
    return paths


def seconds(name: str, workers: int, tapes: list[Path], out: Path, every: Every) -> float:
    """Elapsed time of a replay, including the start of its workers."""

    def run() -> None:
        with ExitStack() as stack:
            engine = stack.enter_context(create_engine(name, workers, None))
            build_features(tapes, out, FULL, every, engine=engine)

    return best_of(run, 1)


def main() -> list[Figure]:
    """Rows per tick and per second of the full set, from NDJSON."""
    figures: list[Figure] = []
    ways = {"one pass": ("local", 1), "two workers": ("local", 2), "Ray on two cores": ("ray", 2)}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tapes, out = history(folder), folder / "out.parquet"
        size = sum(tape.stat().st_size for tape in tapes)
        for every in Every:
            build_features(tapes[:1], out, FULL, every)  # compiled
            took: dict[str, list[float]] = {way: [] for way in ways}
            for _ in range(ROUNDS):
                for way, (name, workers) in ways.items():
                    took[way].append(seconds(name, workers, tapes, out, every))
            ratios = {
                way: [one / other for one, other in zip(took["one pass"], took[way], strict=True)] for way in ways
            }
            rows = pq.read_metadata(out).num_rows
            figures.extend(
                Figure(
                    f"bulk history of {PRODUCTS} products and {DAYS} days, {size / 1e6:.0f} MB, a row per {every}",
                    f"{median(ratios[way]):.2f} times as fast as one pass",
                    "none",
                    True,
                    f"{way}: {median(took[way]):.1f} s against {median(took['one pass']):.1f} s for {rows:,} rows; "
                    f"pairs {', '.join(f'{ratio:.2f}' for ratio in ratios[way])}",
                )
                for way in list(ways)[1:]
            )
    return figures


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
