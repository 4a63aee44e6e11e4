"""The looks at servers around volspike, against real ones on loopback that answer as those do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.doctor.servers import Answers, nobody, open_site
from tests.streams.brokers.mock import MockKafka
from volspike.doctor.finding import Finding, Severity
from volspike.doctor.services import look_at_api, look_at_kafka, look_at_mlflow, look_at_prometheus
from volspike.streams.clients import KafkaSettings

Look = Callable[[str, bool, float], Awaitable[list[Finding]]]
LOOKS = [(look_at_api, "/health/ready"), (look_at_mlflow, "/health"), (look_at_prometheus, "/-/ready")]
ALERTS = {
    "status": "success",
    "data": {
        "alerts": [
            {"labels": {"alertname": "FeedDown"}, "state": "firing"},
            {"labels": {"alertname": "HighLatency"}, "state": "pending"},
        ]
    },
}


def looked(look: Look, url: str, *, is_asked: bool = True) -> Finding:
    async def run() -> list[Finding]:
        return await look(url, is_asked, 5.0)

    (finding,) = asyncio.run(run())
    return finding


@pytest.mark.parametrize(("look", "path"), LOOKS)
def test_a_healthy_server_is_fine(look: Look, path: str) -> None:
    """Its own path of health answers 200; a slash at the end of the address changes nothing."""
    with open_site({path: (200, "OK")}) as site:
        assert looked(look, site).severity is Severity.FINE
        assert looked(look, f"{site}/").severity is Severity.FINE


@pytest.mark.parametrize(("look", "path"), LOOKS)
def test_silence_is_bad_only_where_somebody_asked(look: Look, path: str) -> None:
    """A named address that does not answer is bad; at the default address it is noted, with what would start it."""
    finding = looked(look, f"http://{nobody()}")
    assert finding.severity is Severity.BAD
    assert finding.remedy
    unasked = looked(look, f"http://{nobody()}", is_asked=False)
    assert unasked.severity is Severity.NOTE
    assert "not needed unless you use it" in unasked.found


def test_an_api_that_is_not_ready_says_why() -> None:
    """What it answers is repeated, and is bad wherever it was looked for."""
    with open_site({"/health/ready": (503, '{"detail": "no model.onnx"}')}) as site:
        finding = looked(look_at_api, site, is_asked=False)
    assert finding.severity is Severity.BAD
    assert "no model.onnx" in finding.found


@pytest.mark.parametrize(
    ("alerts", "severity"), [(ALERTS, Severity.WARNING), ({"data": 7}, Severity.FINE), ([], Severity.FINE)]
)
def test_alerts_that_fire_are_named(alerts: object, severity: Severity) -> None:
    """Firing ones only, and an answer of another shape costs nothing but their names."""
    answers: Answers = {"/-/ready": (200, ""), "/api/v1/alerts": (200, json.dumps(alerts))}
    with open_site(answers) as site:
        finding = looked(look_at_prometheus, site)
    assert finding.severity is severity
    assert ("FeedDown" in finding.found) == (severity is Severity.WARNING)
    assert "HighLatency" not in finding.found


def test_mlflow_may_be_a_file_or_a_database(tmp_path: Path) -> None:
    """A database file needs no server; one that is not there yet is no fault, and passwords are not repeated."""
    file = tmp_path / "mlflow.db"
    assert looked(look_at_mlflow, f"sqlite:///{file}").severity is Severity.NOTE
    file.touch()
    assert looked(look_at_mlflow, f"sqlite:///{file}").severity is Severity.FINE
    finding = looked(look_at_mlflow, "postgresql://ada:secret@db/mlflow")
    assert "secret" not in finding.found + str(finding.facts)
    silent = looked(look_at_mlflow, f"http://ada:secret@{nobody()}")
    assert silent.severity is Severity.BAD
    assert "secret" not in silent.found + str(silent.facts)


def test_kafka_is_asked_for_its_topics() -> None:
    """A cluster without the pipeline's topics is a warning that names them; with them it is fine."""
    with MockKafka() as kafka:
        settings = KafkaSettings(bootstrap_servers=kafka.bootstrap)
        for topic in ("ticks.raw", "ticks.features"):
            kafka.create_topic(topic)
        (finding,) = look_at_kafka(settings, True, 10.0)
        assert finding.severity is Severity.WARNING
        assert finding.facts["missing_topics"] == "ticks.predictions ticks.dead ticks.state"
        assert finding.remedy == "`volspike topics create`"
        for topic in ("ticks.predictions", "ticks.dead", "ticks.state"):
            kafka.create_topic(topic)
        (finding,) = look_at_kafka(settings, True, 10.0)
    assert finding.severity is Severity.FINE


@pytest.mark.parametrize(("is_asked", "severity"), [(True, Severity.BAD), (False, Severity.NOTE)])
def test_kafka_away(is_asked: bool, severity: Severity) -> None:
    """No broker, or no client to ask one with: bad where Kafka was named, else noted."""
    (finding,) = look_at_kafka(KafkaSettings(bootstrap_servers=nobody()), is_asked, 1.0)
    assert finding.severity is severity
    assert nobody() in finding.found
    (finding,) = look_at_kafka(None, is_asked, 1.0)
    assert (finding.severity, finding.remedy) == (severity, "pip install 'volspike[kafka]'")
