"""The checks of the servers around volspike, against local servers that answer like them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.doctor.servers import Answers, nobody, open_site
from tests.streams.brokers.mock import MockKafka
from volspike.doctor.finding import Finding, Severity
from volspike.doctor.services import check_api, check_kafka, check_mlflow, check_prometheus
from volspike.streams.clients import KafkaSettings

Check = Callable[[str, bool, float], Awaitable[list[Finding]]]
CHECKS = [(check_api, "/health/ready"), (check_mlflow, "/health"), (check_prometheus, "/-/ready")]
ALERTS = {
    "status": "success",
    "data": {
        "alerts": [
            {"labels": {"alertname": "FeedDown"}, "state": "firing"},
            {"labels": {"alertname": "HighLatency"}, "state": "pending"},
        ]
    },
}


def checked(check: Check, url: str, *, is_named: bool = True) -> Finding:
    async def run() -> list[Finding]:
        return await check(url, is_named, 5.0)

    (finding,) = asyncio.run(run())
    return finding


@pytest.mark.parametrize(("check", "path"), CHECKS)
def test_a_healthy_server_is_fine(check: Check, path: str) -> None:
    """A server whose health path answers 200 is fine; a trailing slash in the address changes nothing."""
    with open_site({path: (200, "OK")}) as site:
        assert checked(check, site).severity is Severity.FINE
        assert checked(check, f"{site}/").severity is Severity.FINE


@pytest.mark.parametrize(("check", "path"), CHECKS)
def test_no_answer_is_bad_only_at_a_named_address(check: Check, path: str) -> None:
    """A named address that does not answer is bad; at the default address it is noted with a way to start one."""
    finding = checked(check, f"http://{nobody()}")
    assert finding.severity is Severity.BAD
    assert finding.remedy
    at_default = checked(check, f"http://{nobody()}", is_named=False)
    assert at_default.severity is Severity.NOTE
    assert "only needed if you use it" in at_default.found


def test_an_api_that_is_not_ready_says_why() -> None:
    """Its answer is quoted, and is bad at any address."""
    with open_site({"/health/ready": (503, '{"detail": "no model.onnx"}')}) as site:
        finding = checked(check_api, site, is_named=False)
    assert finding.severity is Severity.BAD
    assert "no model.onnx" in finding.found


@pytest.mark.parametrize(
    ("alerts", "severity"), [(ALERTS, Severity.WARNING), ({"data": 7}, Severity.FINE), ([], Severity.FINE)]
)
def test_alerts_that_fire_are_named(alerts: object, severity: Severity) -> None:
    """Only firing alerts are named; an answer of another shape names none."""
    answers: Answers = {"/-/ready": (200, ""), "/api/v1/alerts": (200, json.dumps(alerts))}
    with open_site(answers) as site:
        finding = checked(check_prometheus, site)
    assert finding.severity is severity
    assert ("FeedDown" in finding.found) == (severity is Severity.WARNING)
    assert "HighLatency" not in finding.found


def test_mlflow_may_be_a_file_or_a_database(tmp_path: Path) -> None:
    """A database file needs no server, may not exist yet, and no password is printed."""
    file = tmp_path / "mlflow.db"
    assert checked(check_mlflow, f"sqlite:///{file}").severity is Severity.NOTE
    file.touch()
    assert checked(check_mlflow, f"sqlite:///{file}").severity is Severity.FINE
    finding = checked(check_mlflow, "postgresql://ada:secret@db/mlflow")
    assert "secret" not in finding.found + str(finding.facts)
    silent = checked(check_mlflow, f"http://ada:secret@{nobody()}")
    assert silent.severity is Severity.BAD
    assert "secret" not in silent.found + str(silent.facts)


def test_kafka_is_named_for_its_topics() -> None:
    """A cluster without the pipeline's topics is a warning that names them; with them it is fine."""
    with MockKafka() as kafka:
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
        for topic in ("ticks.raw", "ticks.features"):
            kafka.create_topic(topic)
        (finding,) = check_kafka(settings, True, 10.0)
        assert finding.severity is Severity.WARNING
        assert finding.facts["missing_topics"] == "ticks.predictions ticks.dead ticks.state"
        assert finding.remedy == "`volspike topics create`"
        for topic in ("ticks.predictions", "ticks.dead", "ticks.state"):
            kafka.create_topic(topic)
        (finding,) = check_kafka(settings, True, 10.0)
    assert finding.severity is Severity.FINE


@pytest.mark.parametrize(("is_named", "severity"), [(True, Severity.BAD), (False, Severity.NOTE)])
def test_kafka_away(is_named: bool, severity: Severity) -> None:
    """No broker, or no Kafka client: bad if Kafka was named, otherwise noted."""
    (finding,) = check_kafka(KafkaSettings(bootstrap_servers=nobody()), is_named, 1.0)
    assert finding.severity is severity
    assert nobody() in finding.found
    (finding,) = check_kafka(None, is_named, 1.0)
    assert (finding.severity, finding.remedy) == (severity, "pip install 'volspike[kafka]'")
