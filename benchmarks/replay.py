"""Peak memory and speed of complete replays into files."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure
from benchmarks.kernel import best_of
from benchmarks.market import parquet_tape

SHORT_TICKS = 4_000_000
LONG_TICKS = 20_000_000


def replay_file(tape: Path, out: Path, scope: str = "core") -> None:
    """Do the work of `volspike replay --feature-set` in this process."""
    from volspike.datasets.build import build_features  # noqa: PLC0415  only the child needs it
    from volspike.features import FeatureSet, Scope  # noqa: PLC0415

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
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
