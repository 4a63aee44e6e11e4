"""A real Prometheus with a running pipeline: declared series, dashboard queries, alerts."""

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
from tests_system.prometheus import ROOT, SHIPPED, Prometheus, becomes_true, program, write_configuration
from volspike.monitoring.results import DriftResult, TrainingResult, write_result
from volspike.streams.metrics import PredictionMetrics, WorkerMetrics

DASHBOARD: Final = ROOT / "docker/grafana/dashboards/crypto-volatility.json"
CASES: Final = ROOT / "tests/docker"
WITHOUT_VALUE: Final = {f"Feed latency: {letter}" for letter in "ABC"}
"""Queries that give NaN, because the times of a simulated market at high speed are not those of the clock."""

ALERT_AFTER_S: Final = 2
"""The waiting time of each alert in the tested copy of the alerts, in seconds."""


def run_promtool(*arguments: str) -> str:
    """The output of promtool, after asserting that it succeeded."""
    done = subprocess.run([program("promtool"), *arguments], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration_and_alerts_are_valid() -> None:
    """promtool accepts the shipped configurations and alerts."""
    for name in ("prometheus.yml", "local.yml"):
        assert "SUCCESS" in run_promtool("check", "config", str(SHIPPED / name))
    assert "SUCCESS" in run_promtool("check", "rules", str(SHIPPED / "alerts.yml"))


@pytest.mark.parametrize("name", ["alert_tests.yml", "alert_tests_days.yml"])
def test_alert_rules_pass_their_tests(name: str) -> None:
    """Each alert fires in the expected situations, with the expected text, and in no other."""
    assert "FAILED" not in run_promtool("test", "rules", str(CASES / name))


def shorten_waiting_time(rule: dict[str, Any]) -> None:
    """Reduces the waiting time of an alert to seconds; its threshold is unchanged."""
    if "alert" in rule:
        rule["for"] = f"{ALERT_AFTER_S}s"


@pytest.fixture(scope="module")
def worker() -> Iterator[tuple[Callable[[], None], str]]:
    """The collectors of a worker with values set by hand: a function that counts a commit, and their address."""
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


class Monitored:
    """A running pipeline and the Prometheus that monitors it."""

    def __init__(self, folder: Path, commit: Callable[[], None], worker_address: str) -> None:
        self._commit = commit
        now = time.time_ns()
        drift = DriftResult(time=now, share=0.6, severity="medium", features={"none": 4, "medium": 6}, rows=5000)
        training = TrainingResult(
            time=now, model="har", outcome="kept", reason="requested",
            pr_auc=0.3, brier=0.05, precision=0.4, recall=0.5, base_rate=0.1,
        )  # fmt: skip
        for result in (drift, training):
            write_result(result, folder / "models" / "results")
        self.server = Server(
            folder, "--source", "simulator", "--pairs", "BTC-USD", "--pairs", "ETH-USD", "--speed", 180, "--port", 0,
            "--outcomes", folder / "outcomes.sqlite", command="up",
        )  # fmt: skip
        address = self.server.url.removeprefix("http://")
        targets = {"api": address, "featurizer": worker_address}
        self.prometheus = Prometheus(write_configuration(folder, targets, shorten_waiting_time))

    def work(self) -> None:
        """Requests a prediction with the features that /version lists, and counts a commit of the worker."""
        self._commit()
        names = self.server.get("/version").json["features"]
        body = json.dumps({"features": dict.fromkeys(names, 0.0001)})
        assert self.server.post("/predict", body).status == 200

    def close(self) -> None:
        self.server.close()
        self.prometheus.close()


@pytest.fixture(scope="module")
def monitored(tmp_path_factory: pytest.TempPathFactory, worker: tuple[Callable[[], None], str]) -> Iterator[Monitored]:
    """A simulated market at high speed, monitored until the first delayed labels are known."""
    monitored = Monitored(tmp_path_factory.mktemp("monitored"), *worker)

    def has_outcomes() -> bool:
        monitored.work()
        return bool(monitored.prometheus.values("live_precision >= 0 and live_recall >= 0"))

    try:
        assert becomes_true(has_outcomes, 90), "no row was flagged, or no row was a spike"
        yield monitored
    finally:
        monitored.close()


def test_every_declared_series_is_scraped(monitored: Monitored) -> None:
    """Prometheus has samples of each declared metric."""
    scraped = set(monitored.prometheus.query("label/__name__/values"))
    missing = {name for metric in EVERY for name in sample_names(metric)} - scraped
    assert missing == set()


def queries() -> dict[str, str]:
    """Every query of the dashboard as Grafana sends it, by panel and letter."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        f"{panel['title']}: {target['refId']}": target["expr"].replace("$__rate_interval", "20s")
        for panel in panels
        for target in panel.get("targets", ())
    }


def test_no_panel_is_empty(monitored: Monitored) -> None:
    """Each query of the dashboard returns a series while the pipeline runs."""
    expressions = queries()
    assert len(expressions) > 50
    found = {panel: monitored.prometheus.values(expr) for panel, expr in expressions.items()}
    assert [panel for panel, values in found.items() if not values] == []
    without_value = {panel for panel, values in found.items() if all(map(isnan, values))}
    assert without_value == WITHOUT_VALUE


def test_values_are_those_of_the_pipeline(monitored: Monitored) -> None:
    """Prometheus counts the ticks of the pipeline, and the source is marked as simulated."""
    ticks = monitored.server.metrics()['feed_ticks_total{product="BTC-USD"}']
    assert becomes_true(lambda: monitored.prometheus.values('feed_ticks_total{product="BTC-USD"}')[0] >= ticks, 20)
    assert monitored.prometheus.values('live_source_info{simulated="true"}') == [1]
    assert all(0 < value < 1 for value in monitored.prometheus.values("spike_threshold"))


def test_alerts_fire_after_their_waiting_time(monitored: Monitored) -> None:
    """The alert for drift fires while the service runs; after the service has stopped, the alert for that fires."""
    assert becomes_true(lambda: "DataDrift" in monitored.prometheus.firing(), 30)
    assert "ServiceUnavailable" not in monitored.prometheus.firing()
    monitored.server.stop()
    assert becomes_true(lambda: "ServiceUnavailable" in monitored.prometheus.firing(), 30)
    assert "StreamWorkerDown" not in monitored.prometheus.firing()
