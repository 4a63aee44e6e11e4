"""A training run is stored in MLflow as reported; if the server fails, in a local database."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import onnxruntime
import pytest

from volspike.datasets import Dataset
from volspike.evaluation import Interval
from volspike.models import Artifact
from volspike.training.mlflow import (
    TrackingResult,
    open_client,
    root_cause,
    set_champion,
    set_champion_by_digest,
    short_timeout,
    track_run,
)
from volspike.training.report import ModelResult, TrainingReport
from volspike.training.request import TrainingRequest
from volspike.training.run import train_on
from volspike.training.tracking import (
    LOCAL_STORE,
    TrackingSettings,
    model_metrics,
    model_parameters,
    run_parameters,
    run_tags,
)

SERVER = "http://ada:geheim@127.0.0.1:{port}"


@pytest.fixture(scope="module")
def report(market: Dataset, tmp_path_factory: pytest.TempPathFactory) -> TrainingReport:
    """Two models, trained and written."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "features.parquet").write_bytes(b"rows")
    request = TrainingRequest(
        features=folder / "features.parquet",
        models=("logistic", "har"),
        artifacts=folder / "artifacts",
        folds=2,
        search=0,
        columns=("all",),
    )
    trained = train_on(market, request, lambda step: None)
    return replace(trained, models=tuple(with_intervals(model) for model in trained.models))


def with_intervals(model: ModelResult) -> ModelResult:
    """The model with intervals, for which so short a market has too few events."""
    known, gains = {"pr_auc": Interval(0.25, 0.75)}, {"pr_auc": Interval(-0.125, 0.5)}
    judged = [replace(one, model_intervals=known, gain_intervals=gains) for one in (model.pooled, model.final)]
    return replace(model, pooled=judged[0], final=judged[1])


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take seconds to create, and nothing in them."""
    file = tmp_path_factory.mktemp("mlflow") / "deeper" / "mlflow.db"
    with open_client(f"sqlite:///{file}"):
        return file


@pytest.fixture
def here(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an empty local store."""
    (tmp_path / "mlruns").mkdir()
    monkeypatch.chdir(tmp_path)
    with closing(sqlite3.connect(empty_store)) as empty, closing(sqlite3.connect("mlruns/mlflow.db")) as own:
        empty.backup(own)
    return tmp_path


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The hosts that this process connects to."""
    hosts: set[str] = set()
    connect = socket.socket.connect

    def noted(self: socket.socket, address: Any) -> None:
        if self.family in {socket.AF_INET, socket.AF_INET6}:
            hosts.add(str(address[0]))
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", noted)
    yield hosts
    assert hosts <= {"127.0.0.1", "::1"}


def tracked(report: TrainingReport, here: Path, uri: str = LOCAL_STORE) -> TrackingResult:
    # a database per test with an absolute path: MLflow caches stores by URI, whatever the working directory
    local = f"sqlite:///{here}/mlruns/mlflow.db"
    settings = TrackingSettings(tracking_uri=local if uri == LOCAL_STORE else uri)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volspike.training.mlflow.LOCAL_STORE", local)
        return track_run(report, settings, lambda step: None)


@contextmanager
def client_of(here: Path) -> Iterator[Any]:
    with open_client(f"sqlite:///{here}/mlruns/mlflow.db") as client:
        yield client


def runs_of(client: Any, told: TrackingResult) -> dict[str, Any]:
    """The runs below a tracked run, by their models' names."""
    assert told.logged is not None
    found = client.search_runs(
        [told.logged.experiment_id], filter_string=f"tags.`mlflow.parentRunId` = '{told.logged.run_id}'"
    )
    return {run.info.run_name: run for run in found}


def only_logistic(report: TrainingReport) -> TrainingReport:
    logistic = next(model for model in report.models if model.model == "logistic")
    return replace(report, models=(logistic,), baselines=(), chosen="logistic")


def test_stored_run_equals_the_report(
    report: TrainingReport, here: Path, connected: set[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Parameters, metrics, data, files and tags equal the report; MLflow prints nothing and contacts no other host."""
    before = dict(os.environ)
    told = tracked(report, here)
    assert capfd.readouterr() == ("", "")
    assert dict(os.environ) == before
    assert connected == set()
    assert told.warnings == ()
    assert told.logged is not None
    with client_of(here) as client:
        whole = client.get_run(told.logged.run_id)
        assert client.get_experiment(told.logged.experiment_id).name == "volatility_detection"
        assert whole.info.status == "FINISHED"
        digest = sha256(b"rows").hexdigest()
        assert whole.data.params == run_parameters(report) | {"data_sha256": digest}
        assert run_tags(report).items() <= whole.data.tags.items()
        assert whole.data.tags["simulated"] == "true"
        assert {one.path for one in client.list_artifacts(told.logged.run_id)} == {"requirements.txt", "warnings.txt"}
        (data,) = (one.dataset for one in whole.inputs.dataset_inputs)
        assert (data.name, data.digest, json.loads(data.profile)["rows"]) == (
            "features.parquet",
            digest[:36],
            report.rows,
        )
        below = runs_of(client, told)
        assert set(below) == {model.model for model in (*report.models, *report.baselines)}
        for model in (*report.models, *report.baselines):
            assert_tracked(client, below[model.model], report, model)


def assert_tracked(client: Any, run: Any, report: TrainingReport, model: ModelResult) -> None:
    """The run has the model's parameters, metrics and files."""
    assert run.info.status == "FINISHED"
    assert run.data.params == model_parameters(report, model)
    assert run.data.tags["role"] == ("baseline" if model.is_baseline else "model")
    assert set(run.data.metrics) == {name for name, _, _ in model_metrics(model)}
    history = client.get_metric_history(run.info.run_id, "fold/pr_auc")
    assert [(one.step, one.value) for one in history] == [
        (fold.fold, fold.comparison.model.pr_auc) for fold in model.folds
    ]
    assert run.data.metrics["pooled/pr_auc"] == model.pooled.model.pr_auc
    assert run.data.metrics["final/baseline/pr_auc"] == model.final.baseline.pr_auc
    if model in report.models:
        assert run.data.metrics["pooled/pr_auc_low"] == 0.25
        assert run.data.metrics["final/gain/pr_auc_high"] == 0.5
    assert run.data.metrics[f"threshold/{model.threshold_name}"] == model.thresholds[model.threshold_name]
    files = {one.path for one in client.list_artifacts(run.info.run_id)}
    assert files == ({"metadata.json", *(plot.name for plot in model.plots)} if model.artifact else set())


def test_undefined_metric_is_not_logged(report: TrainingReport) -> None:
    """A metric that is NaN is not logged, rather than logged as zero."""
    (model,) = only_logistic(report).models
    blind = replace(model.pooled, model=replace(model.pooled.model, pr_auc=float("nan")))
    names = {name for name, _, _ in model_metrics(replace(model, pooled=blind))}
    assert "pooled/pr_auc" not in names
    assert "pooled/roc_auc" in names
    assert "search/best" not in names  # nothing was search_settings


def test_loaded_model_equals_the_trained_one(report: TrainingReport, market: Dataset, here: Path) -> None:
    """Loaded through mlflow.onnx, through pyfunc and as an artifact, the model gives the same probabilities."""
    told = tracked(only_logistic(report), here)
    assert told.logged is not None
    ours = Artifact.load(report.request.artifacts / "logistic")
    x = market.columns(ours.features)[1000:1200]
    expected = ours.probability(x)
    with client_of(here):
        import mlflow.onnx  # noqa: PLC0415 - seconds, and only where telemetry is off

        graph = mlflow.onnx.load_model("models:/volspike@challenger")
        session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
        given = session.run(["probability"], {"features": x.astype(np.float32)})[0]
        np.testing.assert_array_equal(given, expected.astype(np.float32))
        loaded = mlflow.pyfunc.load_model("models:/volspike@champion")
        rows = {name: x[:, ours.features.index(name)] for name in reversed(ours.features)}
        np.testing.assert_array_equal(np.asarray(loaded.predict(rows)["probability"]), given)
        folder = mlflow.artifacts.download_artifacts(
            f"models:/volspike/{told.logged.version}", dst_path=str(here / "back")
        )
    again = Artifact.load(Path(folder))
    assert again.metadata == ours.metadata
    np.testing.assert_array_equal(again.probability(x), expected)


def test_aliases_move(report: TrainingReport, here: Path) -> None:
    """Every run sets ``challenger``; the first run and a promoted one also set ``champion``."""
    plain = only_logistic(report)
    promoted = replace(plain, promoted=Path("artifacts/production"))
    steps = [plain, plain, promoted, plain]
    found = []
    with client_of(here) as client:
        for step in steps:
            told = tracked(step, here)
            assert told.logged is not None
            aliases = client.get_registered_model("volspike").aliases
            found.append((told.logged.version, str(aliases["champion"]), str(aliases["challenger"])))
        version = client.get_model_version("volspike", 3)
    assert found == [("1", "1", "1"), ("2", "1", "2"), ("3", "3", "3"), ("4", "3", "4")]
    assert (version.tags["model"], version.tags["promoted"], version.tags["simulated"]) == (
        "logistic",
        "true",
        "true",
    )


def test_champion_moves_with_what_is_served(report: TrainingReport, here: Path) -> None:
    """``champion`` moves when a challenger is promoted later; an unreachable store is a warning."""
    settings = TrackingSettings(tracking_uri=f"sqlite:///{here}/set_champion.db")
    for _ in range(2):
        track_run(only_logistic(report), settings, lambda _: None)
    assert set_champion(settings, "2") == ""
    with open_client(settings.tracking_uri) as client:
        aliases = client.get_registered_model("volspike").aliases
    assert {name: str(version) for name, version in aliases.items()} == {"champion": "2", "challenger": "2"}
    assert "cannot be used" in set_champion(settings, "7")
    assert "no --mlflow-uri" in set_champion(TrackingSettings(), "2")


def test_the_champion_is_found_by_its_graph(report: TrainingReport, here: Path) -> None:
    """A promoted or restored model is found by its SHA-256; a model that was never tracked moves no alias."""
    settings = TrackingSettings(tracking_uri=f"sqlite:///{here}/set_champion.db")
    plain = only_logistic(report)
    other = replace(report, models=tuple(one for one in report.models if one.model == "har"), chosen="har")
    for step in (plain, plain, other):
        track_run(step, settings, lambda _: None)
    hashes = {name: Artifact.load(report.request.artifacts / name).metadata.onnx_sha256 for name in ("logistic", "har")}
    champions = []
    with open_client(settings.tracking_uri) as client:
        for name in ("har", "logistic"):
            assert set_champion_by_digest(settings, hashes[name]) == ""
            champions.append(str(client.get_registered_model("volspike").aliases["champion"]))
        assert champions == ["3", "2"]
        assert "no version of this model" in set_champion_by_digest(settings, "0" * 64)
        assert str(client.get_registered_model("volspike").aliases["champion"]) == "2"
    assert set_champion_by_digest(TrackingSettings(), "0" * 64) == ""


def test_a_stratified_split_makes_no_champion(report: TrainingReport, here: Path) -> None:
    """The version is tagged as no evidence and does not become ``champion`` for being the first."""
    told = tracked(replace(only_logistic(report), split_method="stratified"), here)
    assert told.logged is not None
    with client_of(here) as client:
        assert set(client.get_registered_model("volspike").aliases) == {"challenger"}
        assert "NO EVIDENCE" in client.get_model_version("volspike", 1).tags["warning"]


def assert_moved(told: TrackingResult, report: TrainingReport, here: Path, *why: str) -> None:
    """The complete run is in the local store, and one warning says so without the password."""
    (warning,) = told.warnings
    assert [words for words in (*why, f"{here}/mlruns/mlflow.db instead", "mlflow ui") if words not in warning] == []
    assert "geheim" not in f"{warning}{told}{told.summary()}"
    with client_of(here) as client:
        assert set(runs_of(client, told)) == {model.model for model in report.models}
        assert client.get_model_version_by_alias("volspike", "challenger").run_id


def test_refused_connection_falls_back_to_the_local_store(
    report: TrainingReport, here: Path, connected: set[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """If the server refuses the connection, the run is stored locally, and the warning has the reason and a command."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        told = tracked(only_logistic(report), here, SERVER.format(port=taken.getsockname()[1]))
    assert_moved(told, only_logistic(report), here, "MLflow at http://***@127.0.0.1", "(Connection refused)")
    assert connected == {"127.0.0.1"}
    assert capfd.readouterr() == ("", "")


class ShortLived(BaseHTTPRequestHandler):
    """An MLflow server that closes every connection once a run exists."""

    asked: list[str]

    def do_GET(self) -> None:
        answers = {
            "experiments/get-by-name": {"experiment": {"experiment_id": "7", "name": "volatility_detection"}},
            "runs/create": {"run": {"info": {"run_id": "r1", "run_uuid": "r1", "experiment_id": "7"}, "data": {}}},
            "experiments/search": {"experiments": []},
        }
        length = int(self.headers.get("Content-Length", 0))
        self.rfile.read(length)
        path = self.path.partition("/mlflow/")[2].partition("?")[0]
        self.asked.append(path)
        if "runs/create" in self.asked[:-1] or path not in answers:
            self.close_connection = True
            return
        body = json.dumps(answers[path]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815  named by http.server

    def log_message(self, *args: object) -> None:
        """No output."""


@pytest.fixture
def short_lived() -> Iterator[tuple[int, list[str]]]:
    """The port of such a server, and its requests."""
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (ShortLived,), {"asked": asked}))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_port, asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_server_failure_half_way_falls_back_to_the_local_store(
    report: TrainingReport, here: Path, short_lived: tuple[int, list[str]]
) -> None:
    """If the server fails half way, the complete run is stored locally."""
    port, asked = short_lived
    told = tracked(only_logistic(report), here, SERVER.format(port=port))
    assert "runs/create" in asked
    assert "runs/log-batch" in asked
    assert_moved(told, only_logistic(report), here, f"MLflow at http://***@127.0.0.1:{port}")


def test_without_any_store_there_is_a_warning(report: TrainingReport, tmp_path: Path) -> None:
    """If no store can be used, a warning has both reasons and the models' folder, and nothing is raised."""
    (tmp_path / "mlruns").write_text("in the way")
    told = tracked(report, tmp_path)
    assert told.logged is None
    (warning,) = told.warnings
    assert "is not tracked" in warning
    assert str(report.request.artifacts) in warning


def test_interrupted_run_is_marked_as_failed(report: TrainingReport, here: Path) -> None:
    """An interrupt ends the run in the store as FAILED and is raised."""

    def interrupt(step: str) -> None:
        raise KeyboardInterrupt

    uri = f"sqlite:///{here}/mlruns/mlflow.db"
    with pytest.raises(KeyboardInterrupt):
        track_run(report, TrackingSettings(tracking_uri=uri), interrupt)
    with client_of(here) as client:
        experiment = client.get_experiment_by_name("volatility_detection")
        assert [run.info.status for run in client.search_runs([experiment.experiment_id])] == ["FAILED"]


TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"


def test_short_timeout_is_temporary() -> None:
    """Within the context requests have one short attempt; afterwards the environment is restored."""
    before = dict(os.environ)
    with short_timeout():
        assert (os.environ[TIMEOUT], os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"]) == ("5", "0")
    assert dict(os.environ) == before


def test_root_cause_is_the_first_error() -> None:
    """The first error of a chain is reported in one masked line of at most 200 characters."""
    first = ValueError("no\n  way to http://ada:geheim@host " + "x" * 300)
    second, third = RuntimeError("second"), RuntimeError("third")
    second.__context__, third.__cause__ = first, second
    told = root_cause(third)
    assert told.startswith("no way to http://***@host xxx")
    assert told.endswith("x…")
    assert len(told) == 200
    assert root_cause(TimeoutError()) == "TimeoutError"
    assert root_cause(ConnectionRefusedError(111, "Connection refused")) == "Connection refused"
