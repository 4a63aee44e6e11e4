"""``volspike backtest``: tables, JSON, files, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from tests.cli.command_line import DATA, MODEL, USAGE, Run, assert_refused
from volspike.cli.backtest import parse_budget, parse_cost
from volspike.cli.screen import SIMULATED
from volspike.errors import UsageError
from volspike.models import DEFAULT_MODEL
from volspike.models.metadata import decode_metadata, encode_metadata

GOOD = ("--features", "features.parquet", "--model", "logistic")


def test_alerts_curve_and_days_are_printed(features: Path, model: Path, volspike: Run) -> None:
    """The kind of market, tables of alerts, budgets, PR-AUC and days, and a summary with the cost."""
    outcome = volspike("backtest", *GOOD, "--cost", "miss=20,alarm=1")
    assert outcome.status == 0
    assert outcome.out.startswith(f"{SIMULATED}\n")
    for words in (
        *("opened (UTC)", "outcome", "onset recall at", "30 min per day", "the best baseline", "calm rows"),
        *(
            "alarm min/day",
            "spike definition percentile:90",
            "minutes of alarm per day",
            "onsets caught in time",
            "cost ",
        ),
    ):
        assert words in outcome.out
    assert "not out of sample" in outcome.err


def test_json_is_one_document(features: Path, model: Path, volspike: Run) -> None:
    """Standard output is the figures alone, those that the tables show."""
    outcome = volspike("backtest", *GOOD, "--json", "--budget", "60m/day")
    assert outcome.status == 0
    figures = json.loads(outcome.out)
    assert {"base_rate", "alerts", "events", "onsets_caught", "pr_auc", "baseline", "pr_auc_calm"} <= set(figures)
    assert figures["budget_minutes_per_day"] == 60.0
    assert figures["alerts"] == len(figures["alert_list"])


def test_a_threshold_replaces_that_of_the_model(features: Path, model: Path, volspike: Run) -> None:
    """The figures and the summary name it; a low one opens more alerts, and an unknown product is refused."""
    few, many = (
        json.loads(volspike("backtest", *GOOD, "--json", "--budget", "30", "--alert-threshold", text).out)
        for text in ("BTC-USD=1", "coinbase:*=0.0001")
    )
    assert (few["alerts"], few["alert_thresholds"]) == (0, {"BTC-USD": 1.0})
    assert many["alerts"] > 0
    assert {each["product"] for each in many["alert_list"]} == {"BTC-USD"}
    shown = volspike("backtest", *GOOD, "--alert-threshold", "0.5").out
    assert "minutes of alarm per day at the model's own threshold, except every product 0.5" in shown
    assert_refused(
        volspike("backtest", *GOOD, "--alert-threshold", "ETH-USD=0.5"),
        USAGE,
        "unknown product ETH-USD; accepted are BTC-USD, coinbase:*",
    )


def test_a_folder_receives_page_and_tables(features: Path, model: Path, tmp_path: Path, volspike: Run) -> None:
    """``--out`` creates the folder and names its files."""
    outcome = volspike("backtest", *GOOD, "--out", "result")
    names = ["backtest.html", "alerts.csv", "curve.csv", "days.csv"]
    assert outcome.out.splitlines()[-4:] == [f"→ result/{name}" for name in names]
    assert sorted(path.name for path in (tmp_path / "result").iterdir()) == sorted(names)


def test_another_spike_definition(features: Path, model: Path, volspike: Run) -> None:
    """``--spike`` changes the outcomes; the figures name it."""
    figures = [
        json.loads(volspike("backtest", *GOOD, "--json", *extra).out) for extra in ([], ["--spike", "fixed:0.0002"])
    ]
    assert [found["spike"] for found in figures] == ["percentile:90", "fixed:0.0002"]
    assert figures[1]["base_rate"] < figures[0]["base_rate"]


def test_default_is_the_shipped_model(features: Path, tmp_path: Path, volspike: Run) -> None:
    """Without ``--model``, and as a name, it is the model in the package; a folder of that name precedes it."""
    shipped = decode_metadata((DEFAULT_MODEL / "metadata.json").read_bytes())
    found = [volspike("backtest", "--features", features, *extra) for extra in ([], ["--model", "default"])]
    assert found[0] == found[1]
    assert found[0].status == 0 or shipped.model in found[0].err
    shutil.copytree(DEFAULT_MODEL, tmp_path / "default")
    own = msgspec.structs.replace(shipped, model="own", every="2s")
    (tmp_path / "default" / "metadata.json").write_bytes(encode_metadata(own))
    assert_refused(volspike("backtest", "--features", features), MODEL, "model own expects rows every 2s")


@pytest.mark.parametrize(("text", "minutes"), [("30m/day", 30.0), ("7.5", 7.5), ("60min", 60.0), ("15m/d", 15.0)])
def test_a_budget_in_its_spellings(text: str, minutes: float) -> None:
    """Minutes per day, with or without the unit."""
    assert parse_budget(text) == minutes


@pytest.mark.parametrize("text", ["", "0", "1440m/day", "30h/day", "-5", "m/day", "nan"])
def test_other_budgets_are_refused(text: str) -> None:
    """No number of minutes, none, or a day and more."""
    with pytest.raises(UsageError, match="--budget takes minutes"):
        parse_budget(text)


def test_costs_are_named() -> None:
    """In any order, with decimals."""
    cost = parse_cost("alarm=0.5, miss=20")
    assert (cost.miss, cost.alarm) == (20.0, 0.5)


@pytest.mark.parametrize("text", ["", "20,1", "miss=20", "miss=20,alarm=-1", "miss=20,alarm=inf", "miss=a,alarm=1"])
def test_other_costs_are_refused(text: str) -> None:
    """Both costs are needed, finite and not negative."""
    with pytest.raises(UsageError, match="--cost takes two costs"):
        parse_cost(text)


def test_what_is_missing_is_named(features: Path, model: Path, tmp_path: Path, volspike: Run) -> None:
    """One line for a missing model, a file that is none, a bad option, and a definition that the rows lack."""
    assert_refused(volspike("backtest", "--features", features, "--model", "none"), MODEL, "none: no ")
    (tmp_path / "text").write_text("no rows")
    assert_refused(volspike("backtest", "--features", "text", "--model", "logistic"), DATA, "text")
    assert_refused(volspike("backtest", *GOOD, "--budget", "much"), USAGE, "--budget takes minutes", "'much'")
    assert_refused(volspike("backtest", *GOOD, "--spike", "level"), MODEL, "--spike level:90")
