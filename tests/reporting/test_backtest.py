"""A backtest lists the alerts of the live rule, and compares model and baselines on the same rows."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from math import isnan, nan
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, r2_score

from tests.reporting.pages import HtmlPage
from volspike.datasets import Dataset, load_dataset
from volspike.episodes import EpisodeTracker, SeriesOrder
from volspike.errors import NotEnoughData, SchemaMismatch, UsageError
from volspike.evaluation.spike_events import AlarmOutcome
from volspike.labels import SpikeDefinition
from volspike.models import Artifact
from volspike.models.adaptive import VOLATILITIES
from volspike.models.alert_level import alert_levels
from volspike.models.metadata import Adaptation
from volspike.reporting.backtest import AlarmCost, Backtest, BacktestRequest, calibrated, run_backtest, with_lowest
from volspike.reporting.backtest_page import MOST_ALERTS, backtest_page, write_backtest
from volspike.training.report import TrainingReport


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return load_dataset(folder / "features.parquet")


@pytest.fixture(scope="module")
def artifact(folder: Path, report: TrainingReport) -> Artifact:
    return Artifact.load(folder / "models" / "logistic")


DEFAULTS = BacktestRequest()


def backtested(artifact: Artifact, dataset: Dataset, options: BacktestRequest = DEFAULTS) -> Backtest:
    """A backtest with few resamples per interval: these tests do not check its width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volspike.reporting.backtest.RESAMPLES", 20)
        return run_backtest(artifact, artifact.directory.parents[1] / "features.parquet", dataset, options)


@pytest.fixture(scope="module")
def backtest(artifact: Artifact, dataset: Dataset) -> Backtest:
    return backtested(artifact, dataset)


def test_alerts_are_those_of_the_live_rule(backtest: Backtest, artifact: Artifact, dataset: Dataset) -> None:
    """Product, times, peak and threshold of each alert are those that a live tracker gives."""
    probability = artifact.score_rows(dataset, np.arange(len(dataset)))
    trackers = [EpisodeTracker(artifact.threshold, product=name) for name in dataset.products]
    opened = {}
    for row in range(len(dataset)):
        product = int(dataset.product[row])
        event = trackers[product].update(int(dataset.time[row]), float(probability[row]))
        if event is not None:
            opened[event.product, event.opened] = event.peak_probability
        elif (current := trackers[product].current) is not None:
            opened[current.product, current.opened] = current.peak_probability
    assert {(alert.product, alert.opened): alert.peak for alert in backtest.alerts} == pytest.approx(opened)
    assert len(backtest.alerts) > 20
    assert {alert.threshold for alert in backtest.alerts} == {artifact.threshold}
    assert all(alert.closed > alert.opened for alert in backtest.alerts)


def test_outcomes_add_up(backtest: Backtest) -> None:
    """Outcomes of alerts, spans and days count the same alerts, events and onsets."""
    figures, events = backtest.figures(), backtest.comparison.model_events
    outcomes = [alert.outcome for alert in backtest.alerts]
    in_time = [alert for alert in backtest.alerts if alert.outcome is AlarmOutcome.IN_TIME]
    assert figures["alerts"] == len(outcomes) == sum(day.alerts for day in backtest.days)
    assert (
        figures["false_alerts"] == outcomes.count(AlarmOutcome.FALSE) == sum(day.false_alerts for day in backtest.days)
    )
    assert figures["events"] == len(backtest.spans) == sum(day.events for day in backtest.days)
    assert figures["onsets"] == sum(span.is_onset for span in backtest.spans)
    assert (
        figures["onsets_caught"]
        == sum(alert.is_onset for alert in in_time)
        == sum(d.onsets_caught for d in backtest.days)
    )
    assert events.in_time == len(in_time) == sum(span.is_in_time for span in backtest.spans)
    assert len(set(outcomes)) > 2
    assert figures["median_lead_s"] == np.median([alert.lead_s for alert in in_time if alert.is_onset])
    assert all(isnan(alert.lead_s) == (alert.outcome in ("false", "repeated")) for alert in backtest.alerts)
    minutes = sum(alert.minutes for alert in backtest.alerts)
    assert figures["alarm_minutes_per_day"] == pytest.approx(minutes / (events.hours / 24.0))


def test_figures_are_complete_and_json(backtest: Backtest, dataset: Dataset) -> None:
    """Every promised figure is there; nothing is NaN."""
    figures = json.loads(msgspec.json.encode(backtest.figures()))
    promised = (
        *("base_rate", "alarm_minutes_per_day", "alerts", "events", "onsets_caught", "median_lead_s", "pr_auc"),
        *("baseline", "baseline_pr_auc", "pr_auc_calm", "baseline_pr_auc_calm"),
    )
    assert [name for name in promised if figures.get(name) is None] == []
    assert figures["rows"] == len(dataset)
    assert figures["base_rate"] == pytest.approx(backtest.scored.y.mean())
    assert figures["pr_auc"] == pytest.approx(average_precision_score(backtest.scored.y, backtest.scored.probability))
    assert "NaN" not in json.dumps(figures)


def test_the_best_baseline_on_these_rows_is_named(backtest: Backtest, dataset: Dataset, report: TrainingReport) -> None:
    """Baselines are ranked by PR-AUC on the rows; the one that training stored is among them."""
    areas = [found.pr_auc for found in backtest.baselines.values()]
    assert areas == sorted(areas, reverse=True)
    assert {"persistence", report.best_baseline} <= set(backtest.baselines)
    assert backtest.comparison.baseline_name == next(iter(backtest.baselines))
    past = dataset.persistence / dataset.thresholds(backtest.spike, backtest.metadata.tau)
    expected = average_precision_score(backtest.scored.y, past)
    assert backtest.baselines["persistence"].pr_auc == pytest.approx(expected)
    calm = past < 1.0
    expected = average_precision_score(backtest.scored.y[calm], past[calm])
    assert backtest.baselines["persistence"].pr_auc_calm == pytest.approx(expected)


def test_the_baseline_uses_as_many_alarm_minutes(backtest: Backtest) -> None:
    """Its alarms last no longer than the model's, and nearly as long."""
    ours, theirs = backtest.comparison.model_events, backtest.comparison.baseline_events
    assert 0.8 * ours.alarm_share < theirs.alarm_share <= ours.alarm_share


def test_rows_that_cannot_be_scored_count_as_missed(backtest: Backtest, artifact: Artifact, dataset: Dataset) -> None:
    """They stay in, with the lowest score: spikes among them are missed, and no alert opens there."""
    x = dataset.x.copy()
    half = len(dataset) // 2
    x[half:, dataset.names.index(artifact.features[0])] = nan
    found = backtested(artifact, replace(dataset, x=x))
    assert len(found.scored) == len(dataset)
    assert (found.scored.probability[half:] == found.scored.probability.min()).all()
    assert max(alert.opened for alert in found.alerts) < int(dataset.time[half])
    assert found.comparison.model_events.episodes == backtest.comparison.model_events.episodes
    assert found.comparison.pr_auc.model < backtest.comparison.pr_auc.model
    assert f"{len(dataset) - half:,} of {len(dataset):,} rows lack a value that logistic needs" in " ".join(
        found.warnings
    )


def test_the_baseline_is_calibrated_in_its_order(backtest: Backtest, dataset: Dataset) -> None:
    """Its score is a probability of these rows that ranks them as its volatility does."""
    past = dataset.persistence / dataset.thresholds(backtest.spike, backtest.metadata.tau)
    found = calibrated(past / (1.0 + past), backtest.scored.y)
    assert found.mean() == pytest.approx(backtest.scored.y.mean(), rel=0.02)
    order = np.argsort(past, kind="stable")
    assert (np.diff(found[order]) >= 0.0).all()


def test_lowest_scores_replace_undefined_ones() -> None:
    """The lowest defined score, or 0 if there is none."""
    score, count = with_lowest(np.array([0.5, nan, 0.2, np.inf]))
    assert (score.tolist(), count) == ([0.5, 0.2, 0.2, 0.2], 2)
    assert with_lowest(np.full(2, nan))[0].tolist() == [0.0, 0.0]


def test_another_spike_definition_changes_the_outcomes(
    backtest: Backtest, artifact: Artifact, dataset: Dataset
) -> None:
    """A fixed τ above the model's makes spikes rarer; the probabilities are then a ranking, without a calibration."""
    spike = SpikeDefinition.parse(f"fixed:{2 * backtest.metadata.tau}")
    found = backtested(artifact, dataset, BacktestRequest(spike=spike))
    assert found.comparison.model.base_rate < backtest.comparison.model.base_rate
    assert found.figures()["spike"] == str(spike)
    assert found.reliability is None
    assert backtest.reliability is not None
    assert any("used as a ranking only" in sentence for sentence in found.warnings)


def test_a_budget_moves_the_threshold_as_live(artifact: Artifact, dataset: Dataset) -> None:
    """The thresholds are those of the level that holds the budget from the model's own threshold on."""
    found = backtested(artifact, dataset, BacktestRequest(budget=200.0))
    series = SeriesOrder.of(dataset.time, dataset.product)
    probability = artifact.score_rows(dataset, np.arange(len(dataset)))
    first = float(np.log(artifact.threshold / (1.0 - artifact.threshold)))
    is_calm = dataset.persistence < artifact.metadata.tau
    expected = alert_levels(series, probability, first, 200.0, is_calm)
    np.testing.assert_array_equal(found.scored.threshold, expected)
    assert found.figures()["budget_minutes_per_day"] == 200.0
    assert 130.0 < found.alarm_minutes_per_day < 300.0


def test_an_adaptive_model_is_scored_as_live(artifact: Artifact, dataset: Dataset) -> None:
    """Probabilities learn from outcomes, those of another definition too; rows without the volatilities are refused."""
    adaptation = Adaptation(
        listed=(-3.2, 1.0, 0.0, 0.0, 0.0, 0.0),
        unlisted=(-3.2, 0.0, 1.0, 0.0, 0.0, 0.0),
        deviation=0.3,
        alert_log_odds=-2.0,
    )
    adaptive = Artifact.load(artifact.directory)
    adaptive.metadata = msgspec.structs.replace(artifact.metadata, adaptation=adaptation, products=("BTC-USD",))
    with pytest.raises(SchemaMismatch, match="ewma_volatility_10s"):
        backtested(adaptive, dataset)
    random = np.random.default_rng(0)
    volatilities = np.exp(random.normal(size=(len(dataset), len(VOLATILITIES))) - 9.0)
    wider = replace(dataset, names=(*dataset.names, *VOLATILITIES), x=np.hstack([dataset.x, volatilities]))
    found = adaptive.score_rows(wider, np.arange(len(dataset)))
    backtest = backtested(adaptive, wider)
    assert backtest.budget == 30.0
    np.testing.assert_array_equal(backtest.scored.probability, found)
    np.testing.assert_array_equal(
        backtest.scored.threshold, adaptive.alert_thresholds(wider, found, np.full(len(wider), artifact.metadata.tau))
    )
    assert found.tolist() != artifact.score_rows(wider, np.arange(len(dataset))).tolist()
    doubled = SpikeDefinition.parse(f"fixed:{2 * artifact.metadata.tau}")
    other = backtested(adaptive, wider, BacktestRequest(spike=doubled))
    assert other.scored.probability.mean() < found.mean()  # it learns the rarer spikes


def test_the_expected_volatility_is_compared_with_the_best_past_one(artifact: Artifact, dataset: Dataset) -> None:
    """QLIKE and R² of the forecast that is served; None for rows without its inputs."""
    x = dataset.x.copy()
    places = [dataset.names.index(f"realized_volatility_{window}s") for window in (60, 300)]
    x[:, places[1]] = 2.0 * x[:, places[0]]
    scaled = replace(dataset, x=x)
    found = backtested(artifact, scaled)
    assert found.volatility is not None
    assert found.volatility_baseline == "persistence"
    log_served = np.log(dataset.persistence) + 0.5 * np.log(2.0)
    expected = r2_score(np.log(dataset.future_volatility), log_served)
    assert found.volatility.r_squared.model == pytest.approx(expected)
    assert found.figures()["volatility"]["rows"] == len(dataset)
    assert "Expected volatility" in backtest_page(found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volspike.reporting.backtest.forecast_inputs", lambda _: {})
        without = backtested(artifact, dataset)
    assert without.volatility is None
    assert "Expected volatility" not in backtest_page(without)


def test_cost_is_of_missed_onsets_and_alerts(artifact: Artifact, dataset: Dataset, backtest: Backtest) -> None:
    """By hand, and that of sending no alerts; undefined without a request."""
    found = backtested(artifact, dataset, BacktestRequest(cost=AlarmCost(miss=20.0, alarm=0.5)))
    events = found.comparison.model_events
    assert found.cost == 20.0 * (events.onsets - events.onsets_caught) + 0.5 * len(found.alerts)
    assert found.cost_without_alerts == 20.0 * events.onsets
    assert isnan(backtest.cost)
    assert backtest.figures()["cost"] is None


def test_what_the_reader_must_know_is_a_warning(backtest: Backtest, artifact: Artifact, dataset: Dataset) -> None:
    """Rows of the training, products that it did not contain, another kind of market, and rows that are left out."""
    assert any("not out of sample" in sentence for sentence in backtest.warnings)
    facts = msgspec.structs.replace(dataset.facts, simulated=False)
    past = dataset.persistence.copy()
    past[:7] = nan
    found = backtested(artifact, replace(dataset, facts=facts, products=("A", "B"), persistence=past))
    text = " ".join(found.warnings)
    assert "logistic: another product: not trained on A, B, but on BTC-USD, ETH-USD" in text
    assert "trained on a simulated market and used on a real one" in text
    assert [text.partition(":")[0] for text in found.figures()["limitations"]][-2:] == ["SIMULATED", "another product"]
    assert "7 rows are left out" in text
    assert "out of sample" not in text


def test_rows_that_allow_nothing_are_refused(artifact: Artifact, dataset: Dataset) -> None:
    """No threshold, no score, or rows of another kind."""
    with pytest.raises(NotEnoughData, match="no row has a threshold"):
        backtested(artifact, replace(dataset, persistence=np.full(len(dataset), nan)))
    with pytest.raises(NotEnoughData, match="can score none of"):
        backtested(artifact, replace(dataset, x=np.full_like(dataset.x, nan)))
    with pytest.raises(SchemaMismatch, match="do not have the threshold"):
        backtested(artifact, dataset, BacktestRequest(spike=SpikeDefinition.parse("jump:2")))


def test_files_hold_every_alert_point_and_day(backtest: Backtest, tmp_path: Path) -> None:
    """CSV files with a header, and a page; the folder is created."""
    files = write_backtest(backtest, tmp_path / "new" / "folder")
    assert [file.name for file in files] == ["backtest.html", "alerts.csv", "curve.csv", "days.csv"]
    alerts, curve, days = ([*csv.DictReader(file.read_text(encoding="utf-8").splitlines())] for file in files[1:])
    assert [row["opened"] for row in alerts] == [alert.figures()["opened"] for alert in backtest.alerts]
    assert {row["score"] for row in curve} == {"logistic", backtest.comparison.baseline_name}
    assert len(curve) == len(backtest.curve) + len(backtest.baseline_curve)
    assert [row["day"] for row in days] == [day.day for day in backtest.days]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        write_backtest(backtest, tmp_path / "file")


def test_the_page_needs_nothing_else(backtest: Backtest) -> None:
    """It loads nothing; it names model, market, baseline and every day, and its charts have every alert and event."""
    html = backtest_page(backtest)
    page = HtmlPage.of(html)
    assert page.loaded == ["link data:,"]
    for text in ("SIMULATED", "logistic", backtest.comparison.baseline_name, *(day.day for day in backtest.days)):
        assert text in html
    events, *alerts = page.columns("days-chart")
    assert len(events["text"]) == len(backtest.spans)
    assert sum(len(columns["text"]) for columns in alerts) == len(backtest.alerts)
    assert sum(len(day["alerts"]["start"]) for day in page.days) == len(backtest.alerts)
    assert ">nan<" not in html


def test_names_on_the_page_are_escaped(backtest: Backtest, tmp_path: Path) -> None:
    """A product is text, whatever it contains."""
    products = ("<b>&", "</script>")
    names = dict(zip(backtest.products, products, strict=True))
    alerts = tuple(replace(alert, product=names[alert.product]) for alert in backtest.alerts)
    spans = tuple(replace(span, product=names[span.product]) for span in backtest.spans)
    table = pq.read_table(backtest.features)
    renamed = pa.array([names[name] for name in table["product_id"].to_pylist()]).dictionary_encode()
    place = table.schema.get_field_index("product_id")
    pq.write_table(table.set_column(place, "product_id", renamed), tmp_path / "f.parquet")
    changed = replace(backtest, features=tmp_path / "f.parquet", products=products, alerts=alerts, spans=spans)
    html = backtest_page(changed)
    assert "<b>&" not in html
    assert "&lt;b&gt;&amp;" in html
    assert len(HtmlPage.of(html).days) > 0


def test_a_long_list_of_alerts_is_cut_on_the_page(backtest: Backtest) -> None:
    """The newest are listed, and the page says where all are."""
    many = backtest.alerts * (MOST_ALERTS // len(backtest.alerts) + 1)
    page = backtest_page(replace(backtest, alerts=many))
    assert f"The newest {MOST_ALERTS} of {len(many)}; alerts.csv holds all." in page
