"""The servers around volspike that speak HTTP: its own API, MLflow, Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import httpx
import msgspec

from volspike.doctor.finding import Fact, Finding, Severity
from volspike.doctor.web import ask, is_refused_address
from volspike.training.tracking import database_file, masked

_SHOWN_ALERTS: Final = 5


async def look_at_api(url: str, is_asked: bool, within_s: float) -> list[Finding]:
    """Whether a volspike serves at ``url`` and is ready."""
    answer = await _answer("api", url, "/health/ready", within_s)
    if isinstance(answer, str):
        remedy = "start one with `volspike up` or `volspike serve`"
        return [_silent("api", answer, is_asked, remedy, url)]
    if answer.status_code == 200:
        return [_fine("api", f"{url} is ready", url)]
    found = f"{url} is not ready (status {answer.status_code}): {_shortened(answer.text)}"
    remedy = "see its log and the finding on the model; name a model with --model or MODEL_PATH"
    return [Finding(check="api", severity=Severity.BAD, found=found, remedy=remedy, facts={"url": url})]


async def look_at_mlflow(uri: str, is_asked: bool, within_s: float) -> list[Finding]:
    """Whether training runs can be tracked at ``uri``: a server that is healthy, or a database file that is there."""
    shown = masked(uri)
    if (file := database_file(uri)) is not None:
        return [_database(file, shown)]
    if is_refused_address(uri):
        return [_fine("mlflow", f"{shown} is a database; a training run connects to it", shown)]
    answer = await _answer("mlflow", uri, "/health", within_s)
    if not isinstance(answer, str) and answer.status_code == 200:
        return [_fine("mlflow", f"{shown} is healthy", shown)]
    told = answer if isinstance(answer, str) else f"{shown}: status {answer.status_code}"
    remedy = "`docker compose -f docker/compose.yaml up -d mlflow`, or track into a file: --mlflow-uri sqlite:///mlruns/mlflow.db"
    return [_silent("mlflow", masked(told), is_asked, remedy, shown)]


async def look_at_prometheus(url: str, is_asked: bool, within_s: float) -> list[Finding]:
    """Whether Prometheus is ready at ``url``, and which of its alerts fire."""
    answer = await _answer("prometheus", url, "/-/ready", within_s)
    if isinstance(answer, str) or answer.status_code != 200:
        told = answer if isinstance(answer, str) else f"{url}: status {answer.status_code}"
        return [_silent("prometheus", told, is_asked, "`docker compose -f docker/compose.yaml up -d prometheus`", url)]
    alerts = await ask(f"{url.rstrip('/')}/api/v1/alerts", within_s)
    firing = [] if isinstance(alerts, str) else _firing(alerts)
    if not firing:
        return [_fine("prometheus", f"{url} is ready, no alert fires", url)]
    found = f"{url} is ready; firing: {', '.join(firing[:_SHOWN_ALERTS])}"
    remedy = "each alert has its section in docs/runbook.md"
    facts: dict[str, Fact] = {"url": url, "firing": len(firing)}
    return [Finding(check="prometheus", severity=Severity.WARNING, found=found, remedy=remedy, facts=facts)]


async def _answer(check: str, url: str, path: str, within_s: float) -> httpx.Response | str:
    if is_refused_address(url):
        return f"{url!r} is no address of {check}; it begins with http:// or https://"
    answer = await ask(url.rstrip("/") + path, within_s)
    return f"{url}: {answer}" if isinstance(answer, str) else answer


def _database(file: str, shown: str) -> Finding:
    if Path(file).is_file():
        return _fine("mlflow", f"{shown} is there", shown)
    found = f"{shown} is not there yet"
    remedy = "nothing to do: the first `volspike train --mlflow-uri` makes it"
    return Finding(check="mlflow", severity=Severity.NOTE, found=found, remedy=remedy, facts={"url": shown})


def _firing(answer: httpx.Response) -> list[str]:
    try:
        told: Any = msgspec.json.decode(answer.content)
        alerts = told["data"]["alerts"]
        names = {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}
    except (msgspec.DecodeError, KeyError, TypeError):
        return []
    return sorted(names)


def _silent(check: str, told: str, is_asked: bool, remedy: str, url: str) -> Finding:
    """Nobody answers: bad where an address was named, else only worth knowing."""
    if is_asked:
        return Finding(check=check, severity=Severity.BAD, found=told, remedy=remedy, facts={"url": url})
    found = f"{told}; not needed unless you use it"
    return Finding(check=check, severity=Severity.NOTE, found=found, remedy=remedy, facts={"url": url})


def _fine(check: str, found: str, url: str) -> Finding:
    return Finding(check=check, severity=Severity.FINE, found=found, facts={"url": url})


def _shortened(text: str) -> str:
    return " ".join(text.split())[:200]
