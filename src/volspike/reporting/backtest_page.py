"""The files of a backtest: one HTML page that loads nothing else, and its alerts, curves and days as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Final

from volspike.errors import UsageError
from volspike.evaluation.spike_events import LEAD_CAP_HORIZONS
from volspike.market import format_time
from volspike.reporting.alert_history import alert_table, lead_bins, lead_table
from volspike.reporting.backtest import Backtest
from volspike.reporting.charts import (
    MOST_STRIPS,
    OUTCOME_CLASSES,
    days_chart,
    lead_chart,
    recall_chart,
    reliability_chart,
)
from volspike.reporting.format import (
    SIMULATED,
    Table,
    budget_table,
    curve_table,
    day_and_time,
    headline_table,
    number,
    reliability_table,
    share,
    signed,
    span,
)
from volspike.reporting.timeline import timeline_days
from volspike.reporting.webpage import WebPage, coarse_days_note, html_table, paragraph, section, tiles

PAGE: Final = "backtest.html"
MOST_ALERTS: Final = 500
"""Alerts listed on the page, the newest; the CSV file holds all."""


def write_backtest(backtest: Backtest, folder: Path) -> tuple[Path, ...]:
    """Write ``backtest.html``, ``alerts.csv``, ``curve.csv`` and ``days.csv`` into ``folder``.

    Raises:
        UsageError: the folder cannot be written.
    """
    files = {
        PAGE: backtest_page(backtest),
        "alerts.csv": _as_csv([alert.figures() for alert in backtest.alerts]),
        "curve.csv": _as_csv(list(_curve_rows(backtest))),
        "days.csv": _as_csv([day.figures() for day in backtest.days]),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content, encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}; choose another --out") from error
    return tuple(folder / name for name in files)


def _curve_rows(backtest: Backtest) -> Iterator[dict[str, Any]]:
    curves = {backtest.metadata.model: backtest.curve, backtest.comparison.baseline_name: backtest.baseline_curve}
    for name, points in curves.items():
        yield from ({"score": name} | point.figures() for point in points)


def _as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal names as CSV; undefined values are empty."""
    text = StringIO()
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def day_table(backtest: Backtest) -> Table:
    """The figures of each UTC day."""
    heads = ("day", "rows", "base rate", "PR-AUC", backtest.comparison.baseline_name, "onsets", "caught")
    rows = [
        (
            day.day,
            f"{day.rows:,}",
            share(day.base_rate),
            number(day.pr_auc),
            number(day.baseline_pr_auc),
            f"{day.onsets}",
            f"{day.onsets_caught}",
            f"{day.alerts}",
            f"{day.false_alerts}",
            number(day.alarm_minutes_per_day, 1),
        )
        for day in backtest.days
    ]
    return Table((*heads, "alerts", "false", "alarm min/day"), rows)


def volatility_table(backtest: Backtest) -> Table | None:
    """QLIKE and R² of the expected volatility and of the best past volatility; None if it is not served."""
    found = backtest.volatility
    if found is None:
        return None
    heads = ("volatility", "expected", "95 %", backtest.volatility_baseline, "95 %", "difference", "95 %")
    rows = [
        (
            name,
            number(each.model),
            span(each.model_interval),
            number(each.baseline),
            span(each.baseline_interval),
            signed(each.gain),
            span(each.gain_interval),
        )
        for name, each in (("QLIKE (lower is better)", found.qlike), ("R² of its logarithm", found.r_squared))
    ]
    return Table(heads, rows)


def baseline_table(backtest: Backtest) -> Table:
    """PR-AUC of every baseline, the best first."""
    rows = [(name, number(found.pr_auc), number(found.pr_auc_calm)) for name, found in backtest.baselines.items()]
    return Table(("baseline", "PR-AUC", "PR-AUC in calm rows"), rows)


def backtest_page(backtest: Backtest) -> str:
    """The page as HTML, with style, script and charts inside.

    Raises:
        UnreadableFile: the feature file has been removed since the backtest.
    """
    name, compared = backtest.metadata.model, backtest.comparison
    page = WebPage(f"Backtest of {name} on {backtest.features.name}")
    page.add(
        paragraph(SIMULATED if backtest.simulated else "", "simulated"),
        paragraph(_description(backtest), "quiet"),
        *(paragraph(f"⚠ {sentence}") for sentence in backtest.warnings),
        section("Result", _tiles(backtest)),
        section(
            "Onsets caught over minutes of alarm",
            _recall(page, backtest),
            html_table(budget_table(name, compared)),
        ),
        section(
            "Ranking of the rows",
            html_table(headline_table(name, compared)),
            html_table(baseline_table(backtest)),
        ),
        _timeline_section(page, backtest),
        _days_section(page, backtest),
        _lead_section(page, backtest),
        _reliability_section(page, backtest),
        _volatility_section(backtest),
        _alert_section(backtest),
    )
    return page.html()


def _description(backtest: Backtest) -> str:
    return (
        f"{len(backtest.scored):,} rows of {', '.join(backtest.products)}, {day_and_time(format_time(backtest.start))} "
        f"to {day_and_time(format_time(backtest.end))}. Spike definition {backtest.spike}: "
        f"{backtest.spike.describe()}. {share(backtest.comparison.model.base_rate)} of the rows are spikes."
    )


def _tiles(backtest: Backtest) -> str:
    events, ratio = backtest.comparison.model_events, backtest.comparison.calm.pr_auc.ratio
    theirs = backtest.comparison.baseline_events.onsets_caught
    budget = "" if backtest.budget is None or backtest.request.thresholds else f", budget {backtest.budget:g}"
    cap = LEAD_CAP_HORIZONS * backtest.scored.horizon_s
    figures = [
        (f"{events.onsets_caught} of {events.onsets}", f"onsets caught in time; the best baseline {theirs}"),
        (f"{events.alarms}", f"alerts, {events.alarms - events.true_alarms} of them false"),
        (number(backtest.alarm_minutes_per_day, 1), f"minutes of alarm per day{budget}"),
        (f"{number(backtest.median_lead_s, 0)} s", f"median lead before the spike is realized, at most {cap} s"),
        (f"×{number(ratio, 2)}", f"PR-AUC in calm rows over {backtest.comparison.baseline_name}"),
    ]
    if backtest.request.cost is not None:
        without = number(backtest.cost_without_alerts, 1)
        figures.append((number(backtest.cost, 1), f"cost of missed onsets and alerts; without alerts {without}"))
    return tiles(figures)


def _recall(page: WebPage, backtest: Backtest) -> str:
    name, baseline = backtest.metadata.model, backtest.comparison.baseline_name
    curves = {name: backtest.curve, f"{baseline} (best baseline)": backtest.baseline_curve}
    return page.chart(
        "recall",
        recall_chart(curves, (backtest.alarm_minutes_per_day, backtest.comparison.model_events.onset_recall)),
        f"{name} and {baseline}, the best baseline on these rows. "
        f"The ring marks the alerts below, at {backtest.threshold_text}.",
        curve_table(curves),
        "Onsets caught over minutes of alarm per day",
    )


def _timeline_section(page: WebPage, backtest: Backtest) -> str:
    days = timeline_days(backtest.features, backtest.scored, backtest.products, backtest.alerts, backtest.spans)
    return section("Timeline", paragraph(coarse_days_note(days, backtest.scored), "quiet"), page.timeline(days))


def _days_section(page: WebPage, backtest: Backtest) -> str:
    chart, hidden = days_chart(backtest.spans, backtest.alerts, several=len(backtest.products) > 1)
    more = f" The newest {MOST_STRIPS} of {MOST_STRIPS + hidden} strips are shown." if hidden else ""
    return section(
        "Days",
        page.chart(
            "days-chart",
            chart,
            f"Spike events above (paler: they began in a volatile minute), alerts below each line.{more}",
            None,
            "Spike events and alerts of each day",
        ),
        html_table(day_table(backtest)),
    )


def _lead_section(page: WebPage, backtest: Backtest) -> str:
    bins = lead_bins(backtest.alerts, LEAD_CAP_HORIZONS * backtest.scored.horizon_s)
    caption = "Seconds from the opening of an alert to the realized spike. Alerts that caught nothing have none."
    return section("Lead times", page.chart("leads", lead_chart(bins), caption, lead_table(bins), "Lead times"))


def _reliability_section(page: WebPage, backtest: Backtest) -> str:
    if backtest.reliability is None:
        return ""
    return section(
        "Calibration",
        page.chart(
            "reliability",
            reliability_chart(backtest.metadata.model, backtest.reliability),
            "Rows in ten groups of equally many by their probability. On the diagonal, spikes were as frequent as "
            "predicted; with few spike events a group means little.",
            reliability_table(backtest.reliability),
            "Observed share of spikes over predicted probability",
        ),
    )


def _volatility_section(backtest: Backtest) -> str:
    table = volatility_table(backtest)
    return "" if table is None else section("Expected volatility", html_table(table))


def _alert_section(backtest: Backtest) -> str:
    shown = backtest.alerts[-MOST_ALERTS:]
    more = (
        f" The newest {len(shown)} of {len(backtest.alerts)}; alerts.csv holds all."
        if len(shown) < len(backtest.alerts)
        else ""
    )
    text = (
        "An alert catches the first spike event that it overlaps. It is in time if it opened before "
        f"the spike was realized, and false if it overlaps no spike.{more}"
    )
    classes = [OUTCOME_CLASSES[str(alert.outcome)] for alert in shown]
    return section("Alerts", paragraph(text, "quiet"), html_table(alert_table(shown), classes))
