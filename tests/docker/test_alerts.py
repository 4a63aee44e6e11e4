"""The alerting rules: each is complete, has cases for promtool, and uses existing metrics."""

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
    """Each has a severity, a summary, a description and the address of its runbook section."""
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"


@pytest.mark.parametrize("rule", ALERTS)
def test_every_alert_has_a_firing_and_a_silent_case(rule: dict[str, Any]) -> None:
    """Each alert has a case in which it fires and one in which it does not."""
    expected = [bool(check["exp_alerts"]) for check in CHECKS if check["alertname"] == rule["alert"]]
    assert True in expected
    assert False in expected


def test_every_case_has_an_alert() -> None:
    """No case names a missing alert, because a silent case of a misspelled name always passes."""
    assert {check["alertname"] for check in CHECKS} == {param.id for param in ALERTS}


def test_expressions_use_existing_metrics() -> None:
    """Every metric of an expression is declared, recorded, or built into Prometheus."""
    known = {name for metric in EVERY for name in sample_names(metric)} | RECORDED | {"up"}
    for rule in RULES:
        text = re.sub(r'"[^"]*"|\[[^\]]*\]|\{[^}]*\}|\b(by|on)\s*\([^)]*\)', "", rule["expr"])
        names = set(re.findall(r"[a-z][a-z0-9_:]*(?!\s*\()\b", text)) - {"and", "or", "unless", "by", "on"}
        names = {name for name in names if not re.search(rf"\b{name}\s*\(", text)}
        assert names, rule
        assert names <= known, rule


def test_alerts_of_the_earlier_system_are_unchanged() -> None:
    """Its five alerts have the thresholds, durations and severities that users know."""
    rules = {rule["alert"]: rule for rule in RULES if "alert" in rule}
    for name, (level, time, severity) in SEEDS.items():
        assert level in rules[name]["expr"]
        assert (rules[name]["for"], rules[name]["labels"]["severity"]) == (time, severity)
