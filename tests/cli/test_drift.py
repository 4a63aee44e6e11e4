"""``volspike drift`` as a user calls it, in the spelling of the earlier system as well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command_line import DATA, USAGE, Run, assert_refused, run_in
from volspike.monitoring.results import DriftResult, read_result


@pytest.fixture(scope="module")
def hours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``features.parquet`` of three simulated hours, a row per second, without labels."""
    folder = tmp_path_factory.mktemp("hours")
    for command in (
        "simulate --minutes 200 --seed 5 --out tape.ndjson",
        "replay --raw tape.ndjson --out features.parquet --every 1s --feature-set core",
    ):
        outcome = run_in(folder, *command.split())
        assert outcome.status == 0, outcome.err
    return folder


def test_drift_decides_without_evidently(
    hours: Path, volspike: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where Evidently is absent the findings are made and kept all the same; only its page is refused."""
    monkeypatch.setattr("volspike.monitoring.evidently.find_spec", lambda _: None)
    asked = ("drift", "--features", hours / "features.parquet", "--report_type", "train_test", "--split-ratio", "0.6")
    outcome = volspike(*asked)
    assert outcome.status == 0, outcome.err
    assert "SIMULATED" in outcome.out
    assert "drift of the data set" in outcome.out
    found = json.loads((tmp_path / "reports/drift.json").read_text())
    assert {feature["name"] for feature in found["features"]} >= {"log_return_60s", "trade_intensity_300s"}
    kept = read_result(DriftResult, tmp_path / "models/results")
    assert kept is not None
    assert sum(kept.features.values()) == len(found["features"])
    assert_refused(volspike(*asked, "--output", "page.html"), USAGE, "volspike[monitor]")


def test_evidently_report_says_what_volspike_found(hours: Path, volspike: Run, tmp_path: Path) -> None:
    """Page and JSON are written, and the p-values in them are ours."""
    page = tmp_path / "reports/evidently/data_drift_report.html"
    outcome = volspike(
        "drift", "--features", hours / "features.parquet", "--split_ratio", "0.5", "--output", page, "--columns",
        "log_return_30s", "log_return_60s", "price_velocity_30s",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    assert "<html" in page.read_text()[:2000].lower()
    told = json.loads(page.with_suffix(".json").read_text())
    found = json.loads((tmp_path / "reports/drift.json").read_text())
    ours = {f["name"]: f["adjusted_p"] for f in found["features"] if f["adjusted_p"] is not None}
    theirs = {
        metric["config"]["column"]: metric["value"]
        for metric in told["metrics"]
        if "ValueDrift" in metric["metric_name"]
    }
    assert ours
    assert theirs == pytest.approx(ours)


def test_wrong_calls_are_refused_in_one_line(hours: Path, market: Path, volspike: Run) -> None:
    """A kind, a ratio or a column that does not exist, and a file that is too short."""
    features = hours / "features.parquet"
    kind = volspike("drift", "--features", features, "--report-type", "weekly")
    assert_refused(kind, USAGE, "--report-type", "data_drift, train_test")
    assert_refused(volspike("drift", "--features", features, "--split-ratio", "1.5"), USAGE, "between 0 and 1")
    assert_refused(volspike("drift", "--features", features, "--columns", "spread"), USAGE, "no feature spread")
    assert_refused(volspike("drift", "--features", market / "features.parquet"), DATA, "60 min of data needed")
    assert_refused(volspike("drift", "--features", "absent.parquet"), DATA, "no such file")
