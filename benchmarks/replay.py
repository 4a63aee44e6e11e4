"""Peak memory and speed of complete replays into files, and the speed of the library on a frame of the same ticks."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

import volspike as vs
from benchmarks.figures import Figure
from benchmarks.kernel import best_of
from benchmarks.market import parquet_tape
from volspike.datasets.build import build_features
from volspike.features import Every, FeatureSet, Scope

SHORT_TICKS = 4_000_000
LONG_TICKS = 20_000_000


def replay_file(tape: Path, out: Path, scope: str = "core") -> None:
    """Do the work of `volspike replay --feature-set` in this process."""
    build_features([tape], out, FeatureSet(scope=Scope(scope)))


def peak_mb(tape: Path, out: Path, scope: str = "core") -> float:
    """Peak resident memory of a process that replays ``tape`` into ``out``, in MB, from ``VmHWM``.

    ``ru_maxrss`` is unsuitable, because a child starts with the value of its parent.
    """
    call = (
        f"replay_file(Path({str(tape)!r}), Path({str(out)!r}), {scope!r}); print(Path('/proc/self/status').read_text())"
    )
    code = f"from pathlib import Path; from benchmarks.replay import replay_file; {call}"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    (peak,) = (line for line in printed.splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1000


def frame_rate(tape: Path, out: Path) -> tuple[float, float]:
    """Ticks per second of ``vs.features`` of a polars frame, and of a replay of the same ticks from Parquet to Parquet.

    Both make a row of the full feature set per second; their rows are compared.
    """
    frame = pl.read_parquet(tape)
    full = FeatureSet(scope=Scope.FULL)
    rows = vs.features(frame, simulated=False)
    of_frame = len(frame) / best_of(lambda: vs.features(frame, simulated=False), times=3)
    of_file = len(frame) / best_of(lambda: build_features([tape], out, full, Every.SECOND), times=3)
    text = pl.col("product_id").cast(pl.String)
    if not rows.with_columns(text).equals(pl.DataFrame(pq.read_table(out)).with_columns(text)):
        raise AssertionError("the rows of the frame differ from those of the replay")
    return of_frame, of_file


def main(long_ticks: int = LONG_TICKS) -> list[Figure]:
    """Replay a short and a long tape into files."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        table = parquet_tape(place / "tape.parquet", SHORT_TICKS, 50.0)
        to_file = SHORT_TICKS / best_of(lambda: replay_file(table, place / "features.parquet"), times=1)
        short = peak_mb(table, place / "short.parquet")
        long = peak_mb(parquet_tape(place / "long.parquet", long_ticks, 50.0), place / "long_features.parquet")
        wide_to_file = SHORT_TICKS / best_of(lambda: replay_file(table, place / "features.parquet", "full"), times=1)
        wide = peak_mb(table, place / "short.parquet", "full")
        of_frame, of_file = frame_rate(table, place / "seconds.parquet")
    return [
        Figure(
            f"peak memory of a replay of {long_ticks / 1e6:.0f} M ticks into a file",
            f"{long:.0f} MB",
            "under 500 MB",
            long < 500,
            f"with {SHORT_TICKS / 1e6:.0f} M ticks {short:.0f} MB; {to_file / 1e6:.2f} M ticks/s including writing",
        ),
        Figure(
            f"the same with the full feature set, {SHORT_TICKS / 1e6:.0f} M ticks",
            f"{wide:.0f} MB",
            "under 500 MB",
            wide < 500,
            f"{wide_to_file / 1e6:.2f} M ticks/s including writing",
        ),
        Figure(
            "polars frame → full features per second, in memory (`vs.features`)",
            f"{of_frame / 1e6:.1f} M ticks/s",
            "the rate of `volspike replay`",
            of_frame >= of_file,
            f"`volspike replay` of the same ticks, Parquet to Parquet: {of_file / 1e6:.1f} M ticks/s, equal rows",
        ),
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
