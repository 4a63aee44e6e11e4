"""Training time and time per row of every detector, on synthetic rows with the scales of a market; one complete run."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figure
from benchmarks.market import parquet_tape
from volspike.models import DETECTORS, Detector, Sample
from volspike.models.lstm import REQUIRED
from volspike.models.scorer import Scorer

ROWS: Final = 400_000
COLUMNS: Final = 60
SINGLE_ROWS: Final = 5000
RUN_ROWS: Final = 850_000
MOST_GB: Final = 4.0
MOST_MINUTES: Final = 10
MOST_MICROSECONDS: Final = 50

_VOLATILITIES: Final = (
    *(f"realized_volatility_{window}s" for window in (10, 30, 60, 300, 900, 3600)),
    *(f"ewma_volatility_{half_life}s" for half_life in (10, 30, 60, 300, 600, 1800)),
)
_CLOCK: Final = ("time_of_day_sin", "time_of_day_cos", "seconds_to_full_60min")


@cache
def _shared(rows: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log volatility that all columns depend on, and that of the coming minute."""
    random = np.random.default_rng(0)
    level = np.convolve(random.normal(size=rows + 600), np.ones(600) / 600**0.5, mode="valid")[:rows] * 0.5
    return level, level + 0.4 * random.normal(size=rows)


def sample_for(name: str, rows: int = ROWS) -> Sample:
    """Rows with the columns that a detector selects from sixty; for the LSTM, with the lags of the last minute."""
    others = tuple(f"column_{number}" for number in range(COLUMNS - len(_VOLATILITIES) - len(_CLOCK)))
    offered = dict.fromkeys((*_VOLATILITIES, *_CLOCK, *others, *(REQUIRED if name == "lstm" else ())))
    names = DETECTORS[name].columns(tuple(offered))
    level, coming = _shared(rows)
    random = np.random.default_rng(1)
    x = random.normal(size=(rows, len(names)))
    for place, column in enumerate(names):
        if "volatility" in column:
            x[:, place] = 1e-4 * np.exp(level + 0.3 * x[:, place])
        elif column.startswith("lag_return"):
            x[:, place] *= 1e-4 * np.exp(level)
        elif column.startswith(("lag_ticks", "seconds")):
            x[:, place] = np.abs(x[:, place]) * 10
    volatility = 1e-4 * np.exp(coming)
    tau = float(np.quantile(volatility, 0.9))
    return Sample(names, x, (volatility >= tau).astype(np.int8), volatility, np.full(rows, tau), np.ones(rows))


def seconds_to_learn(name: str, sample: Sample) -> tuple[float, float, Detector]:
    """Elapsed and processor time of one training run, including the import of its library."""
    started, worked = time.perf_counter(), time.process_time()
    detector = DETECTORS[name](seed=0).fit(sample)
    return time.perf_counter() - started, time.process_time() - worked, detector


def microseconds_a_row(detector: Detector, sample: Sample) -> float:
    """Median time of rows scored one by one."""
    onnx = detector.to_onnx().SerializeToString()
    scorer = Scorer(onnx, width=len(sample.names), accepts_missing=detector.accepts_missing)
    taken = []
    for row in sample.x[:SINGLE_ROWS].tolist():
        started = time.perf_counter()
        scorer.probability_of(row)
        taken.append(time.perf_counter() - started)
    return 1e6 * median(taken)


def run_train(features: Path, artifacts: Path) -> tuple[float, float]:
    """Seconds and peak resident memory in GB of ``volspike train`` with LightGBM and all baselines."""
    command = ["train", "--features", str(features), "--models", "lightgbm", "--artifacts", str(artifacts)]
    code = (
        f"import sys; sys.argv[1:] = {command!r}\nfrom pathlib import Path\nfrom volspike.cli.app import main\n"
        "try:\n    main()\nfinally:\n    print(Path('/proc/self/status').read_text())"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    took = time.perf_counter() - started
    (peak,) = (line for line in done.stdout.splitlines() if line.startswith("VmHWM:"))
    return took, int(peak.split()[1]) / 1e6


def complete_run(rows: int = RUN_ROWS) -> Figure:
    """``volspike train`` on a file with one row per second and every feature there is."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        tape, features = parquet_tape(place / "tape.parquet", rows, 1.0, part=rows), place / "features.parquet"
        replay = ["replay", "--raw", str(tape), "--every", "1s", "--feature-set", "deep", "--add-labels"]
        command = [sys.executable, "-m", "volspike", *replay, "--out", str(features)]
        subprocess.run(command, check=True, capture_output=True)
        seconds, peak = run_train(features, place / "artifacts")
    return Figure(
        f"`volspike train --models lightgbm`, {rows:,} rows × 255 features",
        f"{seconds / 60:.1f} min, {peak:.1f} GB",
        f"under {MOST_MINUTES} min and {MOST_GB:g} GB",
        seconds < 60 * MOST_MINUTES and peak < MOST_GB,
        "all folds and baselines, intervals and the artifact included",
    )


def main() -> list[Figure]:
    """Train every detector once, then score rows one by one; then one run of the command."""
    learned, worked, scored = {}, {}, {}
    for name in DETECTORS:
        sample = sample_for(name)
        learned[name], worked[name], detector = seconds_to_learn(name, sample)
        scored[name] = microseconds_a_row(detector, sample)
        print(
            f"  {name}: {learned[name]:.1f} s ({worked[name]:.1f} s of processor), {scored[name]:.0f} µs a row",
            file=sys.stderr,
            flush=True,
        )
    minutes = sum(learned.values()) / 60
    sequence = scored.pop("lstm")
    slowest = max(scored, key=lambda name: scored[name])
    return [
        Figure(
            f"training, all models, {ROWS:,} rows × {COLUMNS} features",
            f"{minutes:.1f} min",
            f"under {MOST_MINUTES} min",
            minutes < MOST_MINUTES,
            "processor time: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in worked.items()),
        ),
        Figure(
            "one row through the slowest model except the LSTM, median",
            f"{scored[slowest]:.0f} µs ({slowest})",
            f"under {MOST_MICROSECONDS} µs",
            scored[slowest] < MOST_MICROSECONDS,
            f"LSTM, 60 time steps: {sequence:.0f} µs",
        ),
        complete_run(),
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
