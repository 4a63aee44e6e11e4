"""``/predict`` under ten concurrent clients, beside a plain FastAPI and scikit-learn service with the same forest.

Both servers are real processes on the loopback interface with one worker each, measured one after the other by the same
client in this process: ten kept connections, each with one request in flight. Client and server share the machine, so
that the figures are a lower bound of the server's.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import uvloop

from benchmarks.figures import Figure
from volspike import __version__
from volspike.features.schema import FeatureSet
from volspike.models import DETECTORS, TEN_FEATURES, Artifact, DataFacts, Metadata, Sample, SplitFacts

CLIENTS: Final = 10
ROWS: Final = 20_000
READY_SECONDS: Final = 60.0
MOST_SECONDS: Final = 120.0
PLAIN_SERVICE: Final = Path(__file__).with_name("plain_service.py")
SERVE: Final = """
import sys
from pathlib import Path
from volspike.config import ServingSettings
from volspike.serving.run import serve

serve(ServingSettings(model=Path(sys.argv[2]), port=int(sys.argv[1]), log_level="WARNING"))
"""

_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass
class Load:
    """What the clients of one server share: how many requests are still to be sent, and how long each took."""

    remaining: int
    request: bytes
    latencies: list[float] = field(default_factory=list)
    failures: int = 0


class Connection(asyncio.Protocol):
    """One client: sends the next request once the last one is answered, until none remain."""

    def __init__(self, load: Load, done: asyncio.Future[None]) -> None:
        self._load = load
        self._done = done
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports have no common parent with it
        self._next()

    def data_received(self, data: bytes) -> None:
        """Time a whole answer, and go on."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._buffer, 0, head)
        if length is None or len(self._buffer) < head + 4 + int(length[1]):
            return
        self._load.latencies.append(time.perf_counter() - self._sent)
        self._load.failures += not self._buffer.startswith(b"HTTP/1.1 200")
        self._buffer = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the measurement where a server closes its connection before the end."""
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server closed the connection"))

    def _next(self) -> None:
        if self._load.remaining == 0:
            if not self._done.done():
                self._done.set_result(None)
            self._transport.close()
            return
        self._load.remaining -= 1
        self._sent = time.perf_counter()
        self._transport.write(self._load.request)


async def _drive(port: int, load: Load) -> float:
    """Seconds until all requests of ``load`` are answered."""
    loop = asyncio.get_running_loop()
    ends = [loop.create_future() for _ in range(CLIENTS)]
    started = time.perf_counter()
    for end in ends:
        await loop.create_connection(_client(load, end), "127.0.0.1", port)
    async with asyncio.timeout(MOST_SECONDS):
        await asyncio.gather(*ends)
    return time.perf_counter() - started


def _client(load: Load, end: asyncio.Future[None]) -> Callable[[], Connection]:
    return lambda: Connection(load, end)


def measure(port: int, requests: int, warm_up: int) -> dict[str, float]:
    """Median, 95th and 99th percentile (ms), requests/s and failures of ``requests`` requests after a warm-up."""
    body = json.dumps({"features": dict.fromkeys(TEN_FEATURES, 0.5)}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_drive(port, Load(warm_up, request)))
        load = Load(requests, request)
        seconds = runner.run(_drive(port, load))
    median, p95, p99 = np.percentile(np.array(load.latencies) * 1e3, [50, 95, 99])
    return {
        "median_ms": float(median),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "requests_per_s": requests / seconds,
        "failures": float(load.failures),
    }


@contextmanager
def server(*command: str) -> Iterator[int]:
    """A server process started with a free port put in place of ``PORT``, once it listens; ended by its id."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
    process = subprocess.Popen([each.replace("PORT", str(port)) for each in command], start_new_session=True)
    try:
        _wait_for(process, port)
        yield port
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{process.args!r} did not listen on port {port}")


def noise() -> dict[str, Any]:
    """Rows to learn from: ten noisy columns, and a spike in a tenth of the rows that some of them hint at."""
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, len(TEN_FEATURES)))
    score = x[:, :3].sum(axis=1) + random.normal(size=ROWS)
    return {"x": x, "y": (score > np.quantile(score, 0.9)).astype(np.int8), "names": np.array(TEN_FEATURES)}


def save_forest(folder: Path, rows: dict[str, Any]) -> None:
    """Write an artifact of the package's own forest, fitted to ``rows``."""
    volatility = np.where(rows["y"] == 1, 2.0, 0.5)
    sample = Sample(TEN_FEATURES, rows["x"], rows["y"], volatility, 1.0, np.ones(ROWS))
    detector = DETECTORS["random_forest"](seed=0).fit(sample)
    features = FeatureSet()
    metadata = Metadata(
        model="random_forest",
        created="",
        volspike_version=__version__,
        features=TEN_FEATURES,
        left_out=(),
        feature_digest=features.digest,
        windows=features.windows,
        every="tick",
        profile="ticker",
        simulated=True,
        products=(),
        horizon_s=60,
        label_percentile=90.0,
        tau=1e-4,
        thresholds={"half": 0.5},
        served_threshold="half",
        accepts_missing=False,
        data=DataFacts(rows=ROWS, train_rows=ROWS, validation_rows=0, test_rows=0, start="", end=""),
        split=SplitFacts(method="", folds=1, fractions=(), note="noise, for speed alone"),
        metrics={},
        importance={},
        versions={},
        onnx_sha256="",
    )
    Artifact.save(folder, detector.to_onnx().SerializeToString(), metadata, {})


def main(requests: int = 20_000, plain_requests: int = 600) -> list[Figure]:
    """Both servers in turn, each on its own port, under the same clients."""
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), noise()
        save_forest(folder / "forest", rows)
        np.savez(folder / "rows.npz", **rows)
        with server(sys.executable, "-c", SERVE, "PORT", str(folder / "forest")) as port:
            ours = measure(port, requests, warm_up=1000)
        with server(sys.executable, str(PLAIN_SERVICE), "PORT", str(folder / "rows.npz")) as port:
            plain = measure(port, plain_requests, warm_up=50)
    return [
        Figure(
            f"`/predict`, one worker, {CLIENTS} clients, forest: median",
            f"{ours['median_ms']:.2f} ms (p95 {ours['p95_ms']:.1f}, p99 {ours['p99_ms']:.1f})",
            "under 3 ms",
            ours["median_ms"] < 3 and not ours["failures"],
            f"plain FastAPI and scikit-learn {plain['median_ms']:.0f} ms (p99 {plain['p99_ms']:.0f})",
        ),
        Figure(
            "the same: throughput",
            f"{ours['requests_per_s']:,.0f} requests/s",
            "1500 requests/s",
            ours["requests_per_s"] >= 1500 and not ours["failures"],
            f"plain {plain['requests_per_s']:,.0f}, a ratio of {ours['requests_per_s'] / plain['requests_per_s']:.0f}",
        ),
    ]


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
