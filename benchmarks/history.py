"""Downloads and conversion of months of history: trades per second, memory, and CPU at 20 MB/s."""

from __future__ import annotations

import io
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from benchmarks.figures import Figure

TRADES = 2_000_000
RATE_MB_S = 20.0
DAYS = 20
TRADES_PER_DAY = 500_000
FIRST = date(2025, 7, 1)


def agg_trades_csv(trades: int, day: date, first_id: int, seed: int = 1) -> bytes:
    """A day of Binance's aggTrades in µs, as varied as those of BTC-USDC on 2025-10-04.

    There, 131,072 trades have 33 thousand prices and 9 thousand sizes, from 0.00005 (10 %) to 0.03 (90 %).
    """
    draw = np.random.default_rng(seed)
    start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1_000_000
    times = start + np.sort(draw.integers(0, 86_400_000_000, trades))
    cents = 11_500_000 + np.cumsum(draw.integers(-200, 201, trades) * (draw.random(trades) < 0.4))
    sizes = np.maximum(1, draw.lognormal(np.log(81.0), 2.6, trades).astype(np.int64) % 10_000_000)
    makers = np.array(["False", "True"])[draw.integers(0, 2, trades)]
    text = io.StringIO()
    for start_row in range(0, trades, 100_000):
        rows = slice(start_row, start_row + 100_000)
        ids = range(first_id + start_row, first_id + start_row + len(times[rows]))
        text.writelines(
            f"{i},{c // 100}.{c % 100:02d}000000,{s // 100_000}.{s % 100_000:05d}000,{i},{i},{t},{m},True\n"
            for i, c, s, t, m in zip(
                ids,
                cents[rows].tolist(),
                sizes[rows].tolist(),
                times[rows].tolist(),
                makers[rows].tolist(),
                strict=True,
            )
        )
    return text.getvalue().encode()


def write_zip(path: Path, text: bytes) -> None:
    """A zip archive with one file, compressed as the venue does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(path.with_suffix(".csv").name, text)


def convert(source: Path, tape: Path) -> int:
    """Converts one file as `volspike history` does; returns the number of trades."""
    from volspike.history.archives import ARCHIVES, ArchiveFile  # noqa: PLC0415  only the child needs it
    from volspike.history.conversion import convert_file  # noqa: PLC0415

    archive = ARCHIVES["binance"]
    layout = archive.layout("aggTrades", is_monthly=False)
    assert layout is not None
    file = ArchiveFile(archive, layout, "binance:BTC-USDT", FIRST, FIRST + timedelta(days=1))
    return convert_file(file, source, tape, {}).rows


def measure_conversion(source: Path, tape: Path) -> tuple[float, float, float]:
    """CPU seconds on one core, elapsed seconds, and peak memory in MB of a process that converts a file."""
    code = (
        "import time, resource; from pathlib import Path; from benchmarks.history import convert\n"
        f"convert(Path({str(source)!r}), Path({str(tape)!r}))\n"
        "began, cpu = time.perf_counter(), time.process_time()\n"
        f"convert(Path({str(source)!r}), Path({str(tape)!r}))\n"
        "print(time.process_time() - cpu, time.perf_counter() - began)\n"
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return float(out[0]), float(out[1]), int(out[2]) / 1000


def measure_polars(source: Path) -> tuple[float, float]:
    """CPU and elapsed seconds of polars' ``read_csv`` on the text of the same archive, decompression included."""
    code = (
        "import io, time, zipfile, polars\n"
        "def read():\n"
        f"    with zipfile.ZipFile({str(source)!r}) as archive:\n"
        "        return polars.read_csv(archive.read(archive.namelist()[0]), has_header=False)\n"
        "read()\n"
        "began, cpu = time.perf_counter(), time.process_time()\n"
        "read()\n"
        "print(time.process_time() - cpu, time.perf_counter() - began)"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    return float(out[0]), float(out[1])


@contextmanager
def limited_server(files: dict[str, bytes], mb_per_s: float) -> Iterator[str]:
    """A server of this process that sends at most so many MB per second in all."""
    lock, next_at = threading.Lock(), [time.monotonic()]
    chunk = 1 << 17

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = files.get(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("content-length", str(len(body or b"")))
            self.end_headers()
            for start in range(0, len(body or b""), chunk):
                with lock:
                    next_at[0] = max(next_at[0], time.monotonic() - 0.05) + chunk / (mb_per_s * 1e6)
                    wait = next_at[0] - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
                self.wfile.write((body or b"")[start : start + chunk])

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def measure_download(folder: Path, packed: bytes) -> tuple[float, float, float]:
    """CPU as a share of one core at 20 MB/s, MB/s, and MB: days of one size from a server that sends 20 MB/s.

    The CPU seconds per MB, times 20 MB/s, are the share also on a machine that is too busy to reach that speed.
    """
    from volspike.history.archives import ARCHIVES, plan_files  # noqa: PLC0415

    days = [FIRST + timedelta(days=number) for number in range(DAYS)]
    files = plan_files(ARCHIVES["binance"], "binance:BTC-USDT", "aggTrades", days, time.time_ns())
    served = {file.path: packed for file in files}
    served |= {f"{path}.CHECKSUM": f"{sha256(body).hexdigest()}  x".encode() for path, body in served.items()}
    end = FIRST + timedelta(days=DAYS)
    command = ["history", "binance", "BTC-USDT", "--from", f"{FIRST}", "--to", f"{end}", "--out", str(folder)]
    with limited_server(served, RATE_MB_S) as url:
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-m", "volspike", *command, "--base-url", url], check=True, capture_output=True)
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    size = DAYS * len(packed) / 1e6
    return cpu / size * RATE_MB_S, size / seconds, size


def main(trades: int = TRADES) -> list[Figure]:
    """Convert one generated day, and download and convert several."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "BTCUSDT-aggTrades-2025-07-01.zip"
        write_zip(source, agg_trades_csv(trades, FIRST, 1))
        cpu, seconds, peak = measure_conversion(source, folder / "tape.parquet")
        polars_cpu, polars_seconds = measure_polars(source)
        small = folder / "small.zip"
        write_zip(small, agg_trades_csv(TRADES_PER_DAY, FIRST, 1))
        share, speed, size = measure_download(folder / "history", small.read_bytes())
    return [
        Figure(
            f"Binance aggTrades zip → Parquet tape, {trades / 1e6:.0f} M trades",
            f"{trades / cpu / 1e6:.2f} M trades per CPU second ({trades / seconds / 1e6:.2f} M/s elapsed)",
            "at least 2 M/s on one core",
            trades / cpu >= 2e6,
        ),
        Figure(
            "the same compared with polars' read_csv of the text",
            f"{cpu / polars_cpu:.2f} times its CPU time",
            "at most 1.5 times",
            cpu / polars_cpu <= 1.5,
            f"polars {trades / polars_cpu / 1e6:.2f} M rows per CPU second, {trades / polars_seconds / 1e6:.2f} M/s",
        ),
        Figure("the same, peak memory", f"{peak:.0f} MB", "under 300 MB", peak < 300),
        Figure(
            f"`volspike history` of {DAYS} days ({size:.0f} MB) from a server that sends {RATE_MB_S:.0f} MB/s",
            f"{share:.0%} of one core at {RATE_MB_S:.0f} MB/s",
            "under 50 % of one core",
            share < 0.5,
            f"{DAYS * TRADES_PER_DAY / 1e6:.0f} M trades, converted as they arrive; {speed:.1f} MB/s on this machine",
        ),
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
