"""``volspike drift`` as a user calls it, in the spelling of the earlier system as well."""

from __future__ import annotations

import json
import re
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
    assert told["volspike"]["verdict"] == found["verdict"]
    assert set(told["volspike"]["not_evaluated"]) == {"log_return_30s", "log_return_60s", "price_velocity_30s"} - set(
        ours
    )


def test_the_page_has_our_verdict_and_what_was_not_evaluated(hours: Path, volspike: Run, tmp_path: Path) -> None:
    """Evidently's own verdict, which covers the tested features only, is replaced; untested features are listed."""
    page = tmp_path / "page.html"
    outcome = volspike("drift", "--features", hours / "features.parquet", "--output", page)
    assert outcome.status == 0, outcome.err
    found = json.loads((tmp_path / "reports/drift.json").read_text())
    untested = [feature["name"] for feature in found["features"] if feature["adjusted_p"] is None]
    assert untested
    html = page.read_text()
    assert f"drift of the data set: {found['verdict']}" in outcome.out
    assert html.count(f"Drift of the data set: {found['verdict']}") == 2  # at the top, and in Evidently's counter
    assert "detected. Dataset drift detection threshold" not in html
    assert f"Not evaluated: {len(untested)} of {len(found['features'])} features" in html
    assert all(f"<code>{name}</code>" in html for name in untested)
    assert "SIMULATED market" in html


def test_a_short_file_gets_a_page_that_says_so(hours: Path, volspike: Run, tmp_path: Path) -> None:
    """The verdict is "not enough data", a ratio that suffices is named, and with that ratio there is a test."""
    page = tmp_path / "reports/train_test.html"
    command = ("drift", "--features", hours / "features.parquet", "--report_type", "train_test", "--output", page)
    outcome = volspike(*command)
    assert outcome.status == 0, outcome.err
    assert "drift of the data set: not enough data" in outcome.out
    (ratio,) = re.findall(
        r"60 min of data needed on each side, .* use --split-ratio (0\.\d+) or record more", outcome.err
    )
    assert "Drift of the data set: not enough data" in page.read_text()
    assert f"--split-ratio {ratio}" in page.read_text()
    told = json.loads(page.with_suffix(".json").read_text())["volspike"]
    assert (told["verdict"], len(told["not_evaluated"])) == ("not enough data", 21)
    kept = read_result(DriftResult, tmp_path / "models/results")
    assert kept is not None
    assert kept.severity == "none"
    assert "not enough data" not in volspike(*command, "--split-ratio", ratio).out


def test_a_file_of_minutes_has_no_sufficient_ratio(market: Path, volspike: Run, tmp_path: Path) -> None:
    """Where no ratio helps, more data are needed; a split that leaves no newer rows is no error either."""
    for ratio in ("0.5", "0.99"):
        page = tmp_path / f"{ratio}.html"
        outcome = volspike("drift", "--features", market / "features.parquet", "--split-ratio", ratio, "--output", page)
        assert outcome.status == 0, outcome.err
        assert "record more, as no --split-ratio leaves 60 min on both sides" in outcome.err
        assert "not enough data" in page.read_text()


def test_wrong_calls_are_refused_in_one_line(hours: Path, volspike: Run) -> None:
    """A kind, a ratio or a column that does not exist, and a missing file."""
    features = hours / "features.parquet"
    kind = volspike("drift", "--features", features, "--report-type", "weekly")
    assert_refused(kind, USAGE, "--report-type", "data_drift, train_test")
    assert_refused(volspike("drift", "--features", features, "--split-ratio", "1.5"), USAGE, "between 0 and 1")
    assert_refused(volspike("drift", "--features", features, "--columns", "spread"), USAGE, "no feature spread")
    assert_refused(volspike("drift", "--features", "absent.parquet"), DATA, "no such file")
