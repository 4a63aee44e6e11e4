"""Speed and memory of the import of trades, compared with ``read_csv`` of polars on the same file.

The file is an archive of Binance's aggregated trades, as published: a zip of a CSV text without a header. Each
measurement runs in a process of its own on one thread, and counts its processor time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from benchmarks.figures import Figure

ROWS: Final = 5_000_000
SHORT_ROWS: Final = 2_000_000
LONG_ROWS: Final = 20_000_000
START_US: Final = 1_759_536_000_000_000
BEST_OF: Final = 2

_CHUNK = 1_000_000
_NAME = "BTCUSDT-aggTrades-2025-10-04"


def write_archive(folder: Path, rows: int) -> Path:
    """Write a random walk of trades in the layout of Binance's archive."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_NAME}.zip"
    rng = np.random.default_rng(5)
    cents, now, writing = 12_000_000, START_US, pacsv.WriteOptions(include_header=False, quoting_style="none")
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open(f"{_NAME}.csv", "w", force_zip64=True) as file,
    ):
        for first in range(0, rows, _CHUNK):
            count = min(_CHUNK, rows - first)
            ids = np.arange(first, first + count) + 3_000_000_000
            prices = cents + rng.integers(-30, 31, count).cumsum()
            times = now + rng.integers(0, 40_000, count).cumsum()
            cents, now = int(prices[-1]), int(times[-1])
            is_maker = rng.integers(0, 2, count).astype(bool)
            columns = [
                pa.array(ids),
                _decimals(prices, 2),
                _decimals(rng.geometric(0.001, count), 5),
                pa.array(ids * 2),
                pa.array(ids * 2 + 1),
                pa.array(times),
                pc.if_else(pa.array(is_maker), "True", "False"),
                pa.repeat("True", count),
            ]
            pacsv.write_csv(pa.table(columns, names=list("abcdefgh")), file, writing)
    return path


def _decimals(values: np.ndarray, places: int) -> pa.Array:
    """Numbers as Binance writes them, with eight decimals."""
    whole, rest = np.divmod(values, 10**places)
    digits = pc.utf8_lpad(pa.array(rest).cast(pa.string()), places, "0")
    return pc.binary_join_element_wise(pa.array(whole).cast(pa.string()), pc.utf8_rpad(digits, 8, "0"), ".")


def convert_archive(archive: Path, tape: Path) -> int:
    """Read the archive and write the tape, as a download does."""
    from volspike.tape.importers import read_trades  # noqa: PLC0415  only the child needs it
    from volspike.tape.parquet import ParquetTape  # noqa: PLC0415

    with zipfile.ZipFile(archive) as packed, ParquetTape(tape) as written:
        for ticks in read_trades(packed.open(packed.namelist()[0]), "binance", "binance:BTC-USDT"):  # type: ignore[arg-type]
            written.write(ticks)
    return written.ticks


def read_with_polars(archive: Path, tape: Path) -> int:
    """Read the same text into memory, which is all that is done."""
    import polars as pl  # noqa: PLC0415

    del tape
    with zipfile.ZipFile(archive) as packed:
        return pl.read_csv(packed.read(packed.namelist()[0]), has_header=False).height


def import_archive(archive: Path, tape: Path) -> int:
    """Import the archive as ``volspike import`` does."""
    from volspike.tape.import_tapes import import_files  # noqa: PLC0415

    return sum(product.ticks for result in import_files([archive], tape.parent) for product in result.products)


def measure(name: str, archive: Path, tape: Path) -> tuple[float, float]:
    """Processor seconds of one of the functions above, and the peak memory of its process in MB (``VmHWM``)."""
    code = (
        "import time; from pathlib import Path; import pyarrow as pa; pa.set_cpu_count(1)\n"
        "from benchmarks import importing\nbegun = time.process_time()\n"
        f"importing.{name}(Path({str(archive)!r}), Path({str(tape)!r}))\n"
        "print(time.process_time() - begun)\nprint(Path('/proc/self/status').read_text())"
    )
    settings = os.environ | {"POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=settings)
    seconds, *lines = done.stdout.splitlines()
    (peak,) = (line for line in lines if line.startswith("VmHWM:"))
    return float(seconds), int(peak.split()[1]) / 1000


def main(long_rows: int = LONG_ROWS) -> list[Figure]:
    """Convert an archive, read it with polars, and import a short and a long one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        archive = write_archive(folder / "a", ROWS)
        ours, polars = [], []
        for _ in range(BEST_OF):  # in turn, so that a busy machine slows both
            ours.append(measure("convert_archive", archive, folder / "a.parquet"))
            polars.append(measure("read_with_polars", archive, folder / "a.parquet"))
        (seconds, peak), (reference, reference_peak) = min(ours), min(polars)
        short = measure("import_archive", write_archive(folder / "short", SHORT_ROWS), folder / "out" / "a.parquet")
        long = measure("import_archive", write_archive(folder / "long", long_rows), folder / "out" / "b.parquet")
    rate = ROWS / seconds
    return [
        Figure(
            "Binance aggTrades zip → Parquet tape, one core",
            f"{rate / 1e6:.2f} M trades/s",
            "2 M trades/s",
            rate >= 2e6,
            f"polars read_csv of the same file, one thread, {ROWS / reference / 1e6:.2f} M/s",
        ),
        Figure(
            "the same: time compared with polars",
            f"{seconds / reference:.2f} times",
            "at most 1.5 times",
            seconds <= 1.5 * reference,
            f"{seconds:.2f} s and {reference:.2f} s",
        ),
        Figure(
            "the same: peak memory", f"{peak:.0f} MB", "under 300 MB", peak < 300, f"polars {reference_peak:.0f} MB"
        ),
        Figure(
            f"`volspike import` of {long_rows / 1e6:.0f} M rows: peak memory",
            f"{long[1]:.0f} MB",
            "constant",
            long[1] < 1.15 * short[1],
            f"with {SHORT_ROWS / 1e6:.0f} M rows {short[1]:.0f} MB; {long_rows / long[0] / 1e6:.2f} M rows/s",
        ),
    ]


if __name__ == "__main__":
    started = time.perf_counter()
    for figure in main():
        print(*figure.cells(), sep=" | ")
    print(f"{time.perf_counter() - started:.0f} s")
