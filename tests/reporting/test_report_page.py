"""The HTML report is one file, and its numbers are those of the evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.reporting.pages import HtmlPage, day_column
from volspike.evaluation import SpikeTimeline
from volspike.evaluation.alarm_budget import DAY_S
from volspike.market import SECOND_NS
from volspike.reporting.alert_history import lead_bins
from volspike.reporting.evaluate import EvaluationReport, ModelEvaluation
from volspike.reporting.format import SIMULATED, number, share, span
from volspike.reporting.report_page import describe_baselines, headline_tiles, render_page, shown_model, write_page
from volspike.reporting.timeline import DATA_LOSS, NO_DATA, NOT_SCORED, timeline_days


@pytest.fixture(scope="module")
def evaluation(evaluation: EvaluationReport) -> EvaluationReport:
    """With a model in service that is not the baseline."""
    models = tuple(replace(each, is_served=each.title == "logistic") for each in evaluation.models)
    return replace(evaluation, models=models)


@pytest.fixture(scope="module")
def model(evaluation: EvaluationReport) -> ModelEvaluation:
    found = shown_model(evaluation)
    assert found.title == "logistic"
    return found


@pytest.fixture(scope="module")
def html(evaluation: EvaluationReport) -> str:
    return render_page(evaluation, lambda _: None)


@pytest.fixture(scope="module")
def page(html: str) -> HtmlPage:
    return HtmlPage.of(html)


def test_the_file_needs_no_other(page: HtmlPage, html: str, evaluation: EvaluationReport, tmp_path: Path) -> None:
    """Style, script and data are inside; nothing is loaded, and each id is unique."""
    assert page.loaded == ["link data:,"]
    assert len(page.ids) == len(set(page.ids))
    assert {each["id"] for each in page.charts} == {"timeline", "recall", "leads", "reliability"}
    assert "@import" not in html
    assert "url(http" not in html
    write_page(evaluation, tmp_path / "r.html", lambda _: None)
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
    assert (tmp_path / "r.html").stat().st_size < 8_000_000


def test_headline_figures_are_those_of_the_evaluation(html: str, model: ModelEvaluation) -> None:
    """Counts, shares and areas have their 95 % intervals next to them, and the market is marked."""
    events, compared = model.comparison.model_events, model.comparison
    for text in (
        f"<b>{events.onsets_caught} of {events.onsets}</b>",
        f"<b>{share(events.precision, 0)}</b>",
        f"<b>{number(events.alarm_share * DAY_S / 60, 0)}</b>minutes of alarm per day",
        f"<b>{number(events.lead_median_s, 0)} s</b>",
        f"<b>{number(compared.pr_auc.model)}</b>PR-AUC (95 %: {span(compared.pr_auc.model_interval)})",
        f"Alerts: {events.alarms}, of which {events.alarms - events.true_alarms} were false",
        SIMULATED,
        "nothing here says how the model does on a real one",
    ):
        assert text in html
    assert "NO EVIDENCE" not in html.replace("it is marked NO EVIDENCE", "")


def test_model_without_evidence_is_marked(evaluation: EvaluationReport) -> None:
    """The banner names the model, and its verdict is no statement of skill."""
    marked = replace(evaluation, models=tuple(replace(each, is_evidence=False) for each in evaluation.models))
    html = render_page(marked, lambda _: None)
    names = ", ".join(each.title for each in evaluation.models)
    assert f'<p class="no-evidence">NO EVIDENCE: the figures of {names}' in html
    assert "better than" not in html.replace("not shown to be better than", "")


def test_reliability_chart_has_the_bins(page: HtmlPage, html: str, model: ModelEvaluation) -> None:
    """Points, intervals and counts are those of the evaluation, in the chart and in the table."""
    assert model.reliability is not None
    (shown,) = [columns for columns in page.columns("reliability") if "low" in columns]
    assert shown["x"] == [part.mean_probability for part in model.reliability.bins]
    assert shown["y"] == [part.observed_rate for part in model.reliability.bins]
    assert shown["high"] == [part.interval.high for part in model.reliability.bins]
    for part, text in zip(model.reliability.bins, shown["text"], strict=True):
        assert f"{part.rows:,} rows, {part.spike_events} spike events" in text
        assert f'<td class="number">{part.rows:,}</td><td class="number">{part.spike_events}</td>' in html


def test_recall_chart_has_model_and_strongest_baselines(page: HtmlPage, model: ModelEvaluation) -> None:
    """Curves are those of the evaluation, the model's first; the baseline of the comparison is among the others."""
    name, *baselines = model.curves
    assert name == model.title
    assert baselines
    drawn = [columns for columns in page.columns("recall") if len(columns["x"]) > 1]
    for points, columns in zip(model.curves.values(), drawn, strict=False):
        shown = [point for point in points if point.minutes_per_day <= 120]
        assert columns["x"] == [point.minutes_per_day for point in shown]
        assert columns["y"] == [point.onset_recall for point in shown]
    assert model.comparison.baseline_name in baselines


def test_lead_times_are_those_of_the_alerts(page: HtmlPage, model: ModelEvaluation) -> None:
    """Every alert that caught an event is in one bin; the bins of alerts in time agree with the event figures."""
    cap = 2 * model.scored.horizon_s
    bins = lead_bins(model.alerts, cap)
    events = model.comparison.model_events
    assert sum(each.alerts for each in bins) == events.caught
    assert sum(each.alerts for each in bins[1:]) == events.in_time
    assert sum(each.onsets for each in bins[1:]) == events.onsets_caught
    (columns,) = page.columns("leads")
    assert columns["onsets"] == [each.onsets for each in bins]
    one = replace(model.alerts[0], lead_s=0.0), replace(model.alerts[0], lead_s=10.0)
    assert [each.alerts for each in lead_bins((*one, replace(one[0], lead_s=10.5)), cap)][:3] == [1, 1, 1]
    assert sum(each.alerts for each in lead_bins((), cap)) == 0


def test_timeline_has_the_rows_of_the_file(
    page: HtmlPage, evaluation: EvaluationReport, model: ModelEvaluation
) -> None:
    """The selected day has each row's price and probability, and all its alerts and events."""
    first = page.days[0]
    rows = pq.read_table(evaluation.features, columns=["timestamp", "product_id", "price"])
    prices = dict(zip(rows["timestamp"].cast("int64").to_pylist(), rows["price"].to_pylist(), strict=True))
    at = day_column(first, "at", "<u4")
    times = [(first["start"] + offset) * 1_000_000 for offset in at]
    assert day_column(first, "close", "<f8") == [prices[time] for time in times]
    scores = dict(zip(model.scored.time.tolist(), model.scored.probability.tolist(), strict=True))
    drawn = day_column(first, "probability", "<f4")
    expected = [scores.get(time, np.nan) for time in times]
    np.testing.assert_allclose(drawn, expected, rtol=1e-6)
    events = SpikeTimeline.of(model.scored)
    assert sum(len(day["spikes"]["start"]) for day in page.days) == len(events.spikes)
    assert sum(len(day["alerts"]["start"]) for day in page.days) == model.comparison.model_events.alarms
    for day in page.days:
        assert {"silent", "not scored", "incomplete"} >= set(day["missing"]["style"])
        assert [name == "silent" for name in day["missing"]["style"]] == [NO_DATA in t for t in day["missing"]["text"]]
    counts = [len(day["spikes"]["start"]) for day in page.days]
    assert counts == sorted(counts, reverse=True)


def test_bars_keep_extremes_and_missing_data(
    evaluation: EvaluationReport, model: ModelEvaluation, tmp_path: Path
) -> None:
    """Coarser bars have the extremes of their rows; silences, unscored rows and data loss are spans with a cause."""
    table = pq.read_table(evaluation.features)
    time = np.asarray(table["timestamp"].cast("int64"))
    start, half = int(time[0]), len(time) // 2
    kept = (time < start + 1000 * SECOND_NS) | (time >= start + 1060 * SECOND_NS)
    whole = np.asarray(table["is_whole"]).copy()
    whole[200:220] = False
    price = np.linspace(100.0, 200.0, len(time))
    changed = table.set_column(table.schema.get_field_index("is_whole"), "is_whole", [whole])
    changed = changed.set_column(table.schema.get_field_index("price"), "price", [price]).filter(kept)
    pq.write_table(changed, tmp_path / "f.parquet")
    scored = model.scored.only(model.scored.time >= time[half])
    days = timeline_days(tmp_path / "f.parquet", scored, evaluation.products, model.alerts, model.spans)
    coarse = next(day for day in days if not day.is_complete)
    own = [
        (row, cost)
        for row, cost, product, is_kept in zip(time, price, table["product_id"].to_pylist(), kept, strict=True)
        if product == coarse.product and is_kept
    ]
    for index in (0, 5, len(coarse.at) - 1):
        begin = coarse.start + int(coarse.at[index]) * 1_000_000
        inside = [cost for row, cost in own if begin <= row < begin + coarse.bar_s * SECOND_NS]
        assert (coarse.low[index], coarse.high[index]) == (min(inside), max(inside))
        assert coarse.close[index] == inside[-1]
    best = {int(moment // (coarse.bar_s * SECOND_NS)) for moment in scored.time[scored.probability > 0.5]}
    assert best
    fine = days[0]
    silent = [(each.end - each.start) / SECOND_NS for each in fine.missing if each.cause == NO_DATA]
    assert any(60 <= length <= 62 for length in silent)
    assert {each.cause for each in fine.missing} >= {NO_DATA, NOT_SCORED, DATA_LOSS}


def test_shares_have_intervals_in_percent(html: str, model: ModelEvaluation) -> None:
    """A share and its interval have one unit, and a run of spike rows is a spike event, not an episode."""
    found = model.comparison.model_events.intervals["precision"]
    assert f"({100 * found.low:.0f} … {100 * found.high:.0f} %)" in html
    assert "spike events caught (95 %)" in html
    assert "spike episode" not in html


def test_a_model_that_caught_nothing_has_no_lead_time(evaluation: EvaluationReport, model: ModelEvaluation) -> None:
    """The tile has a dash without a unit."""
    events = replace(model.comparison.model_events, caught=0, lead_median_s=float("nan"))
    changed = replace(model, comparison=replace(model.comparison, model_events=events))
    assert ("–", "median lead time") in [(value, text[:16]) for value, text in headline_tiles(changed)]


def test_a_baseline_of_the_tables_that_is_not_drawn_is_named(model: ModelEvaluation) -> None:
    """The baseline chosen in training can be weaker on these rows than those in the chart."""
    assert "The tables compare" not in describe_baselines(model)
    other = replace(model, comparison=replace(model.comparison, baseline_name="garch"))
    assert describe_baselines(other).endswith("The tables compare with garch, chosen in training.")
