"""What Prometheus sees of a running pipeline: each declared series, alerts that fire, and no empty panel."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from math import isnan
from pathlib import Path
from typing import Any, Final

import pytest
from prometheus_client import start_http_server
from tests.metrics import EVERY, sample_names

from tests_system.processes import Server
from tests_system.watching import ROOT, SHIPPED, Prometheus, program, shipped_configuration, until
from volspike.monitoring.results import DriftResult, TrainingResult, keep_result
from volspike.streams.metrics import PredictionMetrics, WorkerMetrics

DASHBOARD: Final = ROOT / "docker/grafana/dashboards/crypto-volatility.json"
CASES: Final = ROOT / "tests/docker"
UNKNOWN: Final = {f"From the exchange's clock to ours: {letter}" for letter in "ABC"}
"""Panels without a number: a market at many times its speed does not tell the wall's time."""

HASTY_S: Final = 2
"""For how long a condition has to hold in the copy of the alerts that is tested here."""


def checked(*arguments: str) -> str:
    """What promtool says, which is content."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration_and_alerts_are_sound() -> None:
    """promtool reads the shipped configurations and their alerts."""
    for name in ("prometheus.yml", "local.yml"):
        assert "SUCCESS" in checked("check", "config", str(SHIPPED / name))
    assert "SUCCESS" in checked("check", "rules", str(SHIPPED / "alerts.yml"))


@pytest.mark.parametrize("name", ["alert_tests.yml", "alert_tests_days.yml"])
def test_every_case_of_an_alert_holds(name: str) -> None:
    """Each alert fires where it has to, with its words, and nowhere else."""
    assert "FAILED" not in checked("test", "rules", str(CASES / name))


def hastened(rule: dict[str, Any]) -> None:
    """Hours take seconds; levels stay what they are."""
    if "alert" in rule:
        rule["for"] = f"{HASTY_S}s"


@pytest.fixture(scope="module")
def worker() -> Iterator[tuple[Callable[[], None], str]]:
    """A worker's own collectors, counted by hand: what a commit does to them, and the address that tells them."""
    metrics = WorkerMetrics()
    metrics.messages.inc(40)
    metrics.results.inc(39)
    metrics.dead.inc()
    metrics.set_lag({0: 3, 1: 0})
    metrics.partitions.set(2)
    predictions = PredictionMetrics(metrics.registry)
    predictions.episode(is_open=True)

    def commit() -> None:
        predictions.rows([0.02, 0.4, None])
        metrics.commit_seconds.observe(0.01)

    server, thread = start_http_server(0, "127.0.0.1", metrics.registry)
    yield commit, f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


class Watched:
    """A running pipeline and the Prometheus that watches it."""

    def __init__(self, folder: Path, commit: Callable[[], None], worker_address: str) -> None:
        self._commit = commit
        now = time.time_ns()
        drift = DriftResult(time=now, share=0.6, severity="medium", features={"none": 4, "medium": 6}, rows=5000)
        training = TrainingResult(
            time=now, model="har", outcome="kept", reason="asked for",
            pr_auc=0.3, brier=0.05, precision=0.4, recall=0.5, base_rate=0.1,
        )  # fmt: skip
        for result in (drift, training):
            keep_result(result, folder / "models" / "results")
        self.server = Server(
            folder, "--source", "simulator", "--pairs", "BTC-USD", "--pairs", "ETH-USD", "--speed", 180, "--port", 0,
            "--outcomes", folder / "outcomes.sqlite", command="up",
        )  # fmt: skip
        address = self.server.url.removeprefix("http://")
        targets = {"api": address, "featurizer": worker_address}
        self.prometheus = Prometheus(shipped_configuration(folder, targets, hastened))

    def work(self) -> None:
        """Asks for a prediction, whose features /version tells; the worker commits meanwhile."""
        self._commit()
        names = self.server.get("/version").json["features"]
        body = json.dumps({"features": dict.fromkeys(names, 0.0001)})
        assert self.server.post("/predict", body).status == 200

    def close(self) -> None:
        self.server.close()
        self.prometheus.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory, worker: tuple[Callable[[], None], str]) -> Iterator[Watched]:
    """A simulated market at many times its speed, watched for as long as delayed labels take to come."""
    watched = Watched(tmp_path_factory.mktemp("watched"), *worker)

    def is_judged() -> bool:
        watched.work()
        return bool(watched.prometheus.values("live_precision >= 0 and live_recall >= 0"))

    try:
        assert until(is_judged, 90), "nothing was called a spike, or nothing was one"
        yield watched
    finally:
        watched.close()


def test_every_declared_series_is_seen(watched: Watched) -> None:
    """Prometheus has samples of each metric that is declared."""
    seen = set(watched.prometheus.ask("label/__name__/values"))
    missing = {name for metric in EVERY for name in sample_names(metric)} - seen
    assert missing == set()


def queries() -> dict[str, str]:
    """Every query of the dashboard by panel and letter, as Grafana would send it."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        f"{panel['title']}: {target['refId']}": target["expr"].replace("$__rate_interval", "20s")
        for panel in panels
        for target in panel.get("targets", ())
    }


def test_no_panel_is_empty(watched: Watched) -> None:
    """Each query of the dashboard gives a series while the pipeline runs."""
    asked = queries()
    assert len(asked) > 50
    told = {panel: watched.prometheus.values(expr) for panel, expr in asked.items()}
    assert [panel for panel, values in told.items() if not values] == []
    unknown = {panel for panel, values in told.items() if all(map(isnan, values))}
    assert unknown == UNKNOWN


def test_numbers_are_those_of_the_pipeline(watched: Watched) -> None:
    """What the exchange told is what Prometheus counts, and the market is called simulated."""
    ticks = watched.server.metrics()['feed_ticks_total{product="BTC-USD"}']
    assert until(lambda: watched.prometheus.values('feed_ticks_total{product="BTC-USD"}')[0] >= ticks, 20)
    assert watched.prometheus.values('live_source_info{simulated="true"}') == [1]
    assert all(0 < value < 1 for value in watched.prometheus.values("spike_threshold"))


def test_alerts_fire_when_their_time_has_come(watched: Watched) -> None:
    """Drift that was found fires while all is well; then the service is stopped, and its absence fires."""
    assert until(lambda: "DataDrift" in watched.prometheus.firing(), 30)
    assert "ServiceUnavailable" not in watched.prometheus.firing()
    watched.server.stop()
    assert until(lambda: "ServiceUnavailable" in watched.prometheus.firing(), 30)
    assert "StreamWorkerDown" not in watched.prometheus.firing()
