"""``volspike demo``: every step once, from a recorded market to a served probability."""

from __future__ import annotations

import json
import signal
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any

import typer

from volspike.cli import replay, train
from volspike.cli.screen import err, note_if_simulated, out
from volspike.cli.simulate import write_simulated_tape

EXAMPLES = "Example: volspike demo --port 8000"

MODELS = ["baseline", "logistic", "random_forest"]
SERVED = "random_forest"
PATIENCE_S = 30.0

_NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the server runs on this machine


def run(
    data: Annotated[
        Path,
        typer.Option(help="Folder with recordings; without any, a market is simulated.", envvar="VOLSPIKE_DATA"),
    ] = Path("../shared/data"),
    host: Annotated[str, typer.Option(help="Address to listen on.", envvar="API_HOST")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port.", envvar="API_PORT")] = 8000,
    once: Annotated[bool, typer.Option("--once", help="Stop after the first prediction.")] = False,
) -> None:
    """Replay a tape, train on it, serve the random forest, and print one prediction."""
    from volspike.api.server import listen, serve
    from volspike.config import ServingSettings

    with listen(host, port) as free:  # fail before the training if the port is taken
        port = free.getsockname()[1]  # the port that was chosen for 0
    features = Path("data/processed/features.parquet")
    out.rule("1. A recorded market → features and labels")
    replay.run([_tape(data)], features, add_labels=True)
    out.rule("2. Features → models, evaluated on held-out rows")
    train.run(features, MODELS, search=0)
    out.rule("3. A served probability")
    artifact = Path("models/artifacts") / SERVED
    threading.Thread(
        target=_request_prediction, args=(f"http://{host}:{port}", features, artifact, once), daemon=True
    ).start()
    serve(ServingSettings(model=artifact, host=host, port=port, log_level="WARNING"))


def _tape(data: Path) -> str:
    """The recordings, or a simulated market if there are none."""
    recordings = data / "coinbase"
    if any(recordings.glob("*.ndjson")):
        err.print(f"recorded market: {recordings}")
        return str(recordings / "*.ndjson")
    tape = Path("data/raw/simulated_BTCUSD.ndjson")
    write_simulated_tape(tape, ["BTC-USD"], minutes=240, seed=7)
    note_if_simulated(True)
    return str(tape)


def _request_prediction(url: str, features: Path, model: Path, once: bool) -> None:
    """Waits for the server, requests a prediction for the newest row, and prints the answer and useful URLs."""
    try:
        _show_one(url, features, model)
    finally:
        if once:  # stop the server even after an error
            signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once on Windows
    out.print("stop with Ctrl-C")


def _show_one(url: str, features: Path, model: Path) -> None:
    from volspike.datasets import load_dataset
    from volspike.market import format_time
    from volspike.models import Artifact

    columns = Artifact.load(model).features
    dataset = load_dataset(features)
    newest = dict(zip(columns, dataset.columns(columns)[-1].tolist(), strict=True))
    _until_ready(url)
    body = json.dumps({"features": newest})
    answer = _post(f"{url}/predict", body)
    out.print(f"{dataset.products[int(dataset.product[-1])]} at {format_time(int(dataset.time[-1]))}:")
    out.print(f"  curl -X POST {url}/predict -H 'Content-Type: application/json' -d '{body}'")
    out.print(f"  {json.dumps(answer)}")
    out.print(f"see {url}/ (status), {url}/docs (the API), {url}/metrics, {url}/health")


def _until_ready(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with _NO_PROXY.open(f"{url}/health/ready", timeout=1):
                return
        except urllib.error.URLError:
            time.sleep(0.05)


def _post(url: str, body: str) -> Any:
    request = urllib.request.Request(url, body.encode(), {"Content-Type": "application/json"})  # noqa: S310  our own server
    with _NO_PROXY.open(request, timeout=10) as reply:
        return json.load(reply)
