"""A fake model and clients of the API: an application in this process, and a server process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, cast

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from numpy.typing import NDArray

from volspike import __version__
from volspike.api.app import create_app
from volspike.config import ServingSettings
from volspike.features.schema import FeatureSet
from volspike.labels import SpikeDefinition, SpikeKind
from volspike.models import DETECTORS, TEN_FEATURES, Artifact, DataFacts, Metadata, Sample, SplitFacts
from volspike.models.metadata import MarketFacts

NAMES: Final = ("spread_mean_60s", "log_return_60s", "trade_intensity_60s")


DATA: Final = DataFacts(
    rows=9, train_rows=7, validation_rows=1, test_rows=1, start="2025-12-01T00:00:00Z", end="2025-12-05T00:00:00Z"
)


SPLIT: Final = SplitFacts(method="walk_forward", folds=5, fractions=(0.7, 0.15, 0.15), note="")


SPIKE: Final = SpikeDefinition(SpikeKind.PERCENTILE, 90.0)


@dataclass(frozen=True)
class FakeMetadata:
    """Metadata of a fake model."""

    feature_digest: str = "0123456789ab"
    features: tuple[str, ...] = ()
    simulated: bool = False
    created: str = "2025-12-06T00:00:00Z"
    onnx_sha256: str = "ab" * 32
    data: DataFacts = DATA
    horizon_s: int = 60
    spike_definition: SpikeDefinition = SPIKE
    served_threshold: str = "best_f1"
    threshold: float = 0.5
    adaptation: None = None
    split: SplitFacts = SPLIT
    products: tuple[str, ...] = ("BTC-USD",)
    markets: tuple[MarketFacts, ...] = (MarketFacts(venue="coinbase", product="BTC-USD"),)
    venues: tuple[str, ...] = ("coinbase",)
    metrics: Mapping[str, Mapping[str, float | None]] = field(
        default_factory=lambda: {"model": {"pr_auc": 0.25, "brier": 0.0625, "precision": None, "f1": 0.5}}
    )


@dataclass(frozen=True)
class FakeArtifact:
    """A model whose probability is the first value of a row, clipped to [0, 1]."""

    name: str = "random_forest"
    directory: Path = Path("models/artifacts/fake")
    features: tuple[str, ...] = NAMES
    threshold: float = 0.5
    accepts_missing: bool = False
    metadata: FakeMetadata = field(default_factory=FakeMetadata)
    heads: Mapping[int, Any] = field(default_factory=dict)
    horizons: tuple[int, ...] = (60,)

    def probability(self, x: NDArray[np.float64], _: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        return np.clip(x[:, 0], 0.0, 1.0)

    def probability_of(self, row: Sequence[float], _: float | None = None) -> float:
        return min(max(row[0], 0.0), 1.0)

    def thresholds(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.full(len(x), 1e-4)

    def threshold_of(self, _: Sequence[float]) -> float:
        return 1e-4


def fake_artifact(**changes: Any) -> Artifact:
    """A fake model with these fields."""
    return cast("Artifact", FakeArtifact(**changes))


class Client:
    """A client of an application in this process; its lifespan runs around the requests."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._runner = asyncio.Runner()
        self._lifespan: AbstractAsyncContextManager[Any] = app.router.lifespan_context(app)

    def __enter__(self) -> Self:
        self._runner.run(self._lifespan.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.run(self._lifespan.__aexit__(None, None, None))
        self._runner.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                return await http.request(method, path, **options)

        return self._runner.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def predict(self, body: object) -> httpx.Response:
        """Post ``body``: bytes as they are, anything else as JSON with Python's NaN and infinities."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", "/predict", content=content, headers={"content-type": "application/json"})

    def metric(self, line: str) -> float:
        """The value of the sample ``line``; 0 if there is none."""
        lines = self.get("/metrics").text.splitlines()
        return next((float(each.rsplit(" ", 1)[1]) for each in lines if each.startswith(line + " ")), 0.0)


@pytest.fixture
def fake() -> FakeArtifact:
    """The fake model, to be changed."""
    return FakeArtifact()


@pytest.fixture
def new_client() -> type[Client]:
    """The client class, for use in a ``with`` statement."""
    return Client


@pytest.fixture
def served() -> Iterator[Callable[..., Client]]:
    """Starts applications that serve a model; all clients are closed at the end."""
    opened: list[Client] = []

    def start(artifact: Any = None, **settings: Any) -> Client:
        client = Client(create_app(ServingSettings(**settings), lambda _: artifact or fake_artifact()))
        opened.append(client.__enter__())
        return client

    yield start
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(served: Callable[..., Client]) -> Client:
    """A client of an application that serves the fake model."""
    return served()


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real artifact with ten features: a logistic regression on noise. Copy it before changing it."""
    random = np.random.default_rng(7)
    x = random.normal(size=(400, len(TEN_FEATURES)))
    excess = np.exp(x[:, 0] - 1)
    sample = Sample(TEN_FEATURES, x, (excess >= 1).astype(np.int8), excess, np.ones(len(x)), np.ones(len(x)))
    detector = DETECTORS["logistic"](seed=0).fit(sample)
    features = FeatureSet()
    metadata = Metadata(
        model="logistic",
        created="2025-12-06T00:00:00Z",
        volspike_version=__version__,
        features=TEN_FEATURES,
        left_out=(),
        feature_digest=features.digest,
        windows=features.windows,
        every="tick",
        profile="ticker",
        simulated=True,
        products=("BTC-USD",),
        horizon_s=60,
        label_percentile=90.0,
        tau=1e-4,
        thresholds={"best_f1": 0.4},
        served_threshold="best_f1",
        accepts_missing=False,
        data=DataFacts(rows=400, train_rows=400, validation_rows=0, test_rows=0, start="", end=""),
        split=SplitFacts(method="time_based", folds=1, fractions=(1.0,), note=""),
        metrics={},
        importance={},
        versions={},
        onnx_sha256="",
    )
    folder = tmp_path_factory.mktemp("artifacts") / "logistic"
    Artifact.save(folder, detector.to_onnx().SerializeToString(), metadata, {})
    return folder


SERVE: Final = """
import json
import sys
from pathlib import Path
from volspike.config import ServingSettings
from volspike.api.server import serve

serve(ServingSettings(model=Path(sys.argv[1]), port=0, **json.loads(sys.argv[2])))
"""


class Process:
    """A server process on a free loopback port."""

    def __init__(self, model: Path, **settings: Any) -> None:
        command = [sys.executable, "-c", SERVE, str(model), json.dumps(settings)]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)  # noqa: S603
        self.events: list[dict[str, Any]] = []
        self.port: int = self.until("server_started")["port"]

    def until(self, event: str) -> dict[str, Any]:
        """The next log event with this name; earlier ones are in ``events``."""
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.events.append(json.loads(line))
            if self.events[-1]["event"] == event:
                return self.events[-1]
        raise AssertionError(f"the server ended without {event}: {self.events}")

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def terminate(self) -> None:
        os.kill(self._process.pid, signal.SIGTERM)

    def wait(self) -> int:
        """The exit status."""
        return self._process.wait(timeout=30)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stderr is not None:
            self._process.stderr.close()


@pytest.fixture
def process(artifact: Path) -> Iterator[Callable[..., Process]]:
    """Starts servers of the real artifact; all are stopped at the end."""
    started: list[Process] = []

    def start(model: Path = artifact, **settings: Any) -> Process:
        started.append(Process(model, **settings))
        return started[-1]

    yield start
    for each in started:
        each.close()
