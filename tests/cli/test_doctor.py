"""``volspike doctor``: every finding with what to do, and a status that says whether something is bad."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command_line import USAGE, Run, assert_refused
from tests.doctor.servers import nobody, open_exchange, open_site

CHECKS = {
    "versions", "extras", "plug-ins", "feed", "clock", "api", "kafka", "mlflow", "prometheus", "model", "tape folder",
    "outcomes", "gaps today",
}  # fmt: skip
HEALTHY = {
    "/health": (200, "OK"),
    "/health/ready": (200, ""),
    "/-/ready": (200, ""),
    "/api/v1/alerts": (200, '{"data": {"alerts": []}}'),
}
QUICK = ("--json", "--timeout", 2)
SETTINGS = (
    "API_PORT", "KAFKA_BOOTSTRAP_SERVERS", "MLFLOW_TRACKING_URI", "PROMETHEUS_URL", "MODEL_PATH", "COINBASE_REST_URL",
)  # fmt: skip


@pytest.fixture(autouse=True)
def exchange(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The simulated exchange at the address that the settings use for Coinbase."""
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    with open_exchange() as opened:
        monkeypatch.setenv("COINBASE_WS_URL", opened.url())
        monkeypatch.setenv("COINBASE_REST_URL", opened.url().replace("ws://", "http://").rpartition("/")[0])
        yield


def findings(out: str) -> dict[str, Any]:
    return {finding["check"]: finding for finding in json.loads(out)["findings"]}


def test_an_installation_that_works_has_nothing_bad(volspike: Run, tmp_path: Path) -> None:
    """An exchange and the named servers: status 0, one check each, and no file is created."""
    with open_site(HEALTHY) as site:
        outcome = volspike("doctor", "--api", site, "--mlflow-uri", site, "--prometheus-url", site, *QUICK)
    told = findings(outcome.out)
    assert (outcome.status, outcome.err) == (0, "")
    assert set(told) == CHECKS
    answering = ("versions", "feed", "clock", "api", "mlflow", "prometheus")
    assert [name for name in answering if told[name]["severity"] != "fine"] == []
    assert json.loads(outcome.out)["worst"] != "bad"
    assert all(finding["remedy"] for finding in told.values() if finding["severity"] != "fine")
    assert list(tmp_path.iterdir()) == []


def test_what_was_named_and_is_away_is_bad(volspike: Run) -> None:
    """Each named service without an answer is reported with a remedy, and the status is 1; checks run in parallel."""
    address = f"http://{nobody()}"
    named = ["--mlflow-uri", address, "--prometheus-url", address, "--api", address, "--bootstrap-servers", nobody()]
    began = time.monotonic()
    outcome = volspike("doctor", *named, "--timeout", 3)
    assert time.monotonic() - began < 3 * 4
    assert (outcome.status, outcome.err) == (1, "")
    lines = outcome.out.splitlines()
    for check in ("api", "kafka", "mlflow", "prometheus"):
        (at,) = [number for number, line in enumerate(lines) if line.split()[:2] == ["bad", check]]
        assert lines[at + 1].strip().startswith("→ ")
    assert "4 bad" in lines[-1]


def test_a_model_that_is_not_there_is_bad(volspike: Run) -> None:
    """What `up` would refuse to serve is found before it is started."""
    outcome = volspike("doctor", "--model", "nowhere", *QUICK)
    told = findings(outcome.out)["model"]
    assert (outcome.status, told["severity"]) == (1, "bad")
    assert "volspike train" in told["remedy"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("--timeout 0", ["--timeout", "above 0"]),
        ("--source nyse", ["'nyse'", "coinbase-exchange"]),
        ("--rest-url exchange", ["'exchange'", "https://"]),
    ],
)
def test_a_wrong_call_is_one_line(line: str, told: list[str], volspike: Run) -> None:
    """An option that cannot be checked is refused at once."""
    assert_refused(volspike("doctor", *line.split(), *QUICK[1:] if "--timeout" not in line else ()), USAGE, *told)


def test_the_addresses_of_history_are_checked_on_request(volspike: Run) -> None:
    """``--history`` lists each address of the archives; a mirror that has none of the files is bad."""
    with open_site({}) as site:
        outcome = volspike("doctor", "--history", "--base-url", site, "--timeout", 5)
    assert (outcome.status, outcome.err) == (1, "")
    assert "daily aggTrades" in outcome.out
    assert outcome.out.count(site) >= 10
