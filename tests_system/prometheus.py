"""A real Prometheus on the loopback interface with the shipped configuration and alerts."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from ruamel.yaml import YAML
from tests.streams.brokers.ports import free_ports

ROOT: Final = Path(__file__).resolve().parent.parent
SHIPPED: Final = ROOT / "docker/prometheus"
UNPACKED: Final = ROOT / "build/prometheus/usr/bin"


def program(name: str) -> str:
    """The path of ``prometheus`` or ``promtool``.

    Raises:
        FileNotFoundError: it is not installed; ``sh tests_system/install_prometheus`` installs it.
    """
    found = shutil.which(name) or shutil.which(name, path=UNPACKED)
    if found is None:
        raise FileNotFoundError(f"no {name}: run sh tests_system/install_prometheus")
    return found


def write_configuration(folder: Path, targets: dict[str, str], change_rule: Callable[[dict[str, Any]], None]) -> Path:
    """Writes the shipped configuration and alerts to ``folder``, with the address in ``targets`` for each job in it.

    Samples are taken every second instead of every five; ``change_rule`` may change each alert rule in place.
    """
    yaml = YAML(typ="safe")
    configuration = yaml.load((SHIPPED / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"}
    jobs = {job["job_name"]: job for job in configuration["scrape_configs"]}
    configuration["scrape_configs"] = [
        {key: value for key, value in jobs[name].items() if not key.endswith("_sd_configs")}
        | {"static_configs": [{"targets": [address]}]}
        for name, address in targets.items()
    ]
    alerts = yaml.load((SHIPPED / "alerts.yml").read_text())
    for group in alerts["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            change_rule(rule)
    yaml.dump(alerts, folder / "alerts.yml")
    yaml.dump(configuration, folder / "prometheus.yml")
    return folder / "prometheus.yml"


def becomes_true(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether ``condition`` is true within so many seconds; it is checked five times a second."""
    end = time.monotonic() + seconds
    while not (is_true := condition()) and time.monotonic() < end:
        time.sleep(0.2)
    return is_true


class Prometheus:
    """A Prometheus server; it is ready once the constructor returns."""

    def __init__(self, configuration: Path) -> None:
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        command = [
            program("prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={configuration.parent / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (configuration.parent / "prometheus.log").open("w") as log:
            self._process = subprocess.Popen(command, stderr=log)  # noqa: S603  our own command
        assert becomes_true(self._is_ready, 20), (configuration.parent / "prometheus.log").read_text()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as reply:  # noqa: S310  our own server
                return bool(reply.status == 200)
        except OSError:
            return False

    def query(self, path: str, **parameters: str) -> Any:
        """The data of a response of the HTTP API."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(address, timeout=10) as reply:  # noqa: S310  our own server
            return json.load(reply)["data"]

    def values(self, expr: str) -> list[float]:
        """The present value of an expression, one number per series."""
        return [float(series["value"][1]) for series in self.query("query", query=expr)["result"]]

    def firing(self) -> set[str]:
        """The names of the alerts that are firing."""
        return {alert["labels"]["alertname"] for alert in self.query("alerts")["alerts"] if alert["state"] == "firing"}

    def close(self) -> None:
        """Stops the process."""
        self._process.terminate()
        self._process.wait(timeout=20)
