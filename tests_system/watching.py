"""A real Prometheus on loopback, with the configuration and the alerts that are shipped."""

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
        FileNotFoundError: it is not there; ``sh tests_system/install_prometheus`` sees to that.
    """
    found = shutil.which(name) or shutil.which(name, path=UNPACKED)
    if found is None:
        raise FileNotFoundError(f"no {name}: sh tests_system/install_prometheus")
    return found


def shipped_configuration(folder: Path, targets: dict[str, str], change: Callable[[dict[str, Any]], None]) -> Path:
    """The shipped configuration and alerts in ``folder``, with addresses of ours for the jobs that we have.

    It asks every second instead of every five; ``change`` may alter each rule.
    """
    yaml = YAML(typ="safe")
    configuration = yaml.load((SHIPPED / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "scrape_timeout": "900ms", "evaluation_interval": "1s"}
    jobs = {job["job_name"]: job for job in configuration["scrape_configs"]}
    configuration["scrape_configs"] = [
        {key: told for key, told in jobs[name].items() if not key.endswith("_sd_configs")}
        | {"static_configs": [{"targets": [address]}]}
        for name, address in targets.items()
    ]
    alerts = yaml.load((SHIPPED / "alerts.yml").read_text())
    for group in alerts["groups"]:
        group.pop("interval", None)
        for rule in group["rules"]:
            change(rule)
    yaml.dump(alerts, folder / "alerts.yml")
    yaml.dump(configuration, folder / "prometheus.yml")
    return folder / "prometheus.yml"


def until(holds: Callable[[], bool], seconds: float) -> bool:
    """Whether something holds within so many seconds, asked five times a second."""
    end = time.monotonic() + seconds
    while not (held := holds()) and time.monotonic() < end:
        time.sleep(0.2)
    return held


class Prometheus:
    """A server that is ready once this is made."""

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
        assert until(self._is_ready, 20), (configuration.parent / "prometheus.log").read_text()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as reply:  # noqa: S310  our own server
                return bool(reply.status == 200)
        except OSError:
            return False

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer of the HTTP API."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as reply:  # noqa: S310  our own server
            return json.load(reply)["data"]

    def values(self, expr: str) -> list[float]:
        """What an expression comes to now, one number per series."""
        return [float(series["value"][1]) for series in self.ask("query", query=expr)["result"]]

    def firing(self) -> set[str]:
        """The alerts that fire."""
        return {alert["labels"]["alertname"] for alert in self.ask("alerts")["alerts"] if alert["state"] == "firing"}

    def close(self) -> None:
        """Ends the process by its id."""
        self._process.terminate()
        self._process.wait(timeout=20)
