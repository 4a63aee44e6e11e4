"""Alerts as files: each is complete, tested by promtool's cases, and asks for metrics that there are."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.docker.compose import DOCKER, read
from tests.metrics import EVERY, sample_names

HERE = DOCKER.parent / "tests/docker"
CASES = [case for name in ("alert_tests.yml", "alert_tests_days.yml") for case in read(HERE / name)["tests"]]
CHECKS = [check for case in CASES for check in case["alert_rule_test"]]
RULES = [rule for group in read(DOCKER / "prometheus/alerts.yml")["groups"] for rule in group["rules"]]
ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in RULES if "alert" in rule]
RECORDED = {rule["record"] for rule in RULES if "record" in rule}

SEEDS = {
    "HighErrorRate": ("> 0.01", "5m", "critical"),
    "HighLatency": ("> 0.8", "5m", "warning"),
    "ModelNotLoaded": ("== 0", "2m", "critical"),
    "HighRequestRate": ("> 100", "5m", "info"),
    "ServiceUnavailable": ("== 0", "1m", "critical"),
}


@pytest.mark.parametrize("rule", ALERTS)
def test_alerts_are_complete(rule: dict[str, Any]) -> None:
    """Each tells how bad it is, what it is in short and at length, and where its page is."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", ALERTS)
def test_every_alert_has_a_case_that_fires_and_one_that_does_not(rule: dict[str, Any]) -> None:
    """An alert without both is not tested."""
    expected = [bool(check["exp_alerts"]) for check in CHECKS if check["alertname"] == rule["alert"]]
    assert True in expected
    assert False in expected


def test_no_case_is_of_an_alert_that_is_not() -> None:
    """A case of a misspelled alert would always pass where nothing is to fire."""
    assert {check["alertname"] for check in CHECKS} == {param.id for param in ALERTS}


def test_alerts_ask_for_metrics_that_there_are() -> None:
    """Whatever an expression names is declared, recorded, or Prometheus's own."""
    known = {name for metric in EVERY for name in sample_names(metric)} | RECORDED | {"up"}
    for rule in RULES:
        text = re.sub(r'"[^"]*"|\[[^\]]*\]|\{[^}]*\}|\b(by|on)\s*\([^)]*\)', "", rule["expr"])
        names = set(re.findall(r"[a-z][a-z0-9_:]*(?!\s*\()\b", text)) - {"and", "or", "by", "on"}
        names = {name for name in names if not re.search(rf"\b{name}\s*\(", text)}
        assert names, rule
        assert names <= known, rule


def test_the_levels_of_the_earlier_system_are_kept() -> None:
    """Its five alerts have the levels, times and severities that its users know."""
    rules = {rule["alert"]: rule for rule in RULES if "alert" in rule}
    for name, (level, time, severity) in SEEDS.items():
        assert level in rules[name]["expr"]
        assert (rules[name]["for"], rules[name]["labels"]["severity"]) == (time, severity)
