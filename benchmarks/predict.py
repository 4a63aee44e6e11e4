"""``/predict`` with ten concurrent clients, compared with two other services of the same forest.

The references are a plain FastAPI service with pandas and scikit-learn, and ``mlflow models serve``. All are real
processes on the loopback interface with one worker each, measured one after the other by the load test's client in this
process: ten keep-alive connections, each with one request in flight. Client and server share the machine, so that the
results are a lower bound for the server. Rate limit and key are on; the limit is too high to refuse a request.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import uvloop

from benchmarks.figures import Figure
from volspike import __version__
from volspike.api.load_test import LoadPlan, LoadReport, Target, build_report, example_bodies, run_load
from volspike.features.schema import FeatureSet
from volspike.models import DETECTORS, TEN_FEATURES, Artifact, DataFacts, Metadata, Sample, SplitFacts

CLIENTS: Final = 10
ROWS: Final = 20_000
BATCH: Final = 1000
READY_SECONDS: Final = 90.0
KEY: Final = "the-key-of-this-benchmark"
PLAIN_SERVICE: Final = Path(__file__).with_name("plain_service.py")
MLFLOW_MODEL: Final = Path(__file__).with_name("mlflow_model.py")
SERVE: Final = f"""
import sys
from pathlib import Path
from volspike.config import Secret, ServingSettings
from volspike.api.server import serve

key, model, port = Secret({KEY!r}), Path(sys.argv[2]), int(sys.argv[1])
serve(ServingSettings(model=model, port=port, log_level="WARNING", rate_limit=10**9, api_key=key))
"""


def measure(port: int, path: str, bodies: Sequence[bytes], plan: LoadPlan, warm_up: int) -> LoadReport:
    """Send the requests of the plan after a warm-up and return the report."""
    target = Target("127.0.0.1", port, None)
    requests = [target.request("POST", path, body, KEY) for body in bodies]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run_load(target, requests, LoadPlan(requests=warm_up, concurrent=plan.concurrent)))
        measured = runner.run(run_load(target, requests, plan))
    facts = {"url": path, "timestamp": "", "model_version": "", "model_digest": "", "rows_per_request": 1}
    return build_report(measured, plan, **facts)


@contextmanager
def server(*command: str) -> Iterator[int]:
    """Start a server process with a free port in place of ``PORT``, wait until it listens, and stop it at the end."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port: int = free.getsockname()[1]
    arguments = [each.replace("PORT", str(port)) for each in command]
    path = (
        f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow searches it for the server's command
    )
    process = subprocess.Popen(arguments, start_new_session=True, env=os.environ | {"PATH": path})
    try:
        _wait_for(process, port)
        yield port
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)  # MLflow's server is a child of its command
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
    """Training rows: ten noisy columns, and spikes in a tenth of the rows that depend on some of them."""
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, len(TEN_FEATURES)))
    score = x[:, :3].sum(axis=1) + random.normal(size=ROWS)
    return {"x": x, "y": (score > np.quantile(score, 0.9)).astype(np.int8), "names": np.array(TEN_FEATURES)}


def save_forest(folder: Path, rows: dict[str, Any]) -> None:
    """Write an artifact of our random forest fitted to ``rows``."""
    volatility = np.where(rows["y"] == 1, 2.0, 0.5)
    sample = Sample(TEN_FEATURES, rows["x"], rows["y"], volatility, np.ones(ROWS), np.ones(ROWS))
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


def main(requests: int = 20_000, peer_requests: int = 600) -> list[Figure]:
    """Measure the servers one after the other with the same clients."""
    one, many = example_bodies(TEN_FEATURES, 1), example_bodies(TEN_FEATURES, BATCH)
    for_mlflow = [msgspec.json.encode({"dataframe_records": [msgspec.json.decode(body)["features"]]}) for body in one]
    peers = LoadPlan(requests=peer_requests, concurrent=CLIENTS)
    with tempfile.TemporaryDirectory() as name:
        folder, rows = Path(name), noise()
        save_forest(folder / "forest", rows)
        np.savez(folder / "rows.npz", **rows)
        with server(sys.executable, "-c", SERVE, "PORT", str(folder / "forest")) as port:
            ours = measure(port, "/predict", one, LoadPlan(requests=requests, concurrent=CLIENTS), 1000)
            batch = measure(port, "/predict", many, LoadPlan(requests=200, concurrent=1), 20)
        with server(sys.executable, str(PLAIN_SERVICE), "PORT", str(folder / "rows.npz")) as port:
            plain = measure(port, "/predict", one, peers, 50)
        with mlflow_server(folder) as port:
            mlflow = measure(port, "/invocations", for_mlflow, peers, 50)
    return figures(ours, batch, plain, mlflow)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[int]:
    """Command for ``mlflow models serve`` of the same forest, without downloads."""
    model = folder / "mlflow"
    saving = (sys.executable, str(MLFLOW_MODEL), str(model), str(folder / "rows.npz"))
    subprocess.run(saving, check=True, capture_output=True)
    mlflow = str(Path(sys.executable).with_name("mlflow"))
    serving = (mlflow, "models", "serve", "--model-uri", str(model), "--host", "127.0.0.1", "--port", "PORT")
    with server(*serving, "--env-manager", "local") as port:
        yield port


def figures(ours: LoadReport, batch: LoadReport, plain: LoadReport, mlflow: LoadReport) -> list[Figure]:
    """The targets, with both references."""
    for report in (ours, batch, plain, mlflow):
        if report.failed_requests:
            raise RuntimeError(f"{report.url}: {report.errors}")
    known, rate = ours.latency_ms, ours.requests_per_second
    beside = (
        f"plain FastAPI, pandas and scikit-learn {_summary(plain)}; mlflow models serve {_summary(mlflow)}: "
        f"{rate / plain.requests_per_second:.0f} and {rate / mlflow.requests_per_second:.0f} times as many requests"
    )
    p95, p99, middle = _known(known.p95), _known(known.p99), _known(batch.latency_ms.median)
    return [
        Figure(
            f"`/predict`, key and rate limit on, one worker, {CLIENTS} clients, forest: p95 and p99",
            f"{p95:.1f} and {p99:.1f} ms (median {_known(known.median):.2f})",
            "under 10 and 25 ms",
            p95 < 10 and p99 < 25,
            beside,
        ),
        Figure("the same: throughput", f"{rate:,.0f} requests/s", "2500 requests/s", rate >= 2500),
        Figure(
            f"`/predict`, {BATCH} rows in one request, one client: median",
            f"{middle:.1f} ms (p95 {_known(batch.latency_ms.p95):.1f})",
            "under 15 ms",
            middle < 15,
        ),
    ]


def _summary(report: LoadReport) -> str:
    return f"{report.requests_per_second:,.0f} requests/s (p95 {_known(report.latency_ms.p95):.0f} ms)"


def _known(ms: float | None) -> float:
    return float("nan") if ms is None else ms


if __name__ == "__main__":
    for figure in main():
        print(*figure.cells(), sep=" | ")
