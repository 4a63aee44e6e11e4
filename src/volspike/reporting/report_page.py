"""The evaluation as one HTML page: a summary, a timeline, and the figures of each model."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from pathlib import Path
from typing import Final

from volspike.datasets.feature_file import write_atomically
from volspike.evaluation import Interval
from volspike.evaluation.alarm_budget import DAY_S
from volspike.evaluation.spike_events import LEAD_CAP_HORIZONS
from volspike.progress import OnStep
from volspike.reporting.alert_history import alert_table, lead_bins, lead_table
from volspike.reporting.charts import OUTCOME_CLASSES, lead_chart, recall_chart, reliability_chart
from volspike.reporting.evaluate import EvaluationReport, ModelEvaluation
from volspike.reporting.format import (
    DASH,
    SIMULATED,
    Table,
    budget_table,
    curve_table,
    day_and_time,
    headline_table,
    no_evidence,
    number,
    reliability_table,
    row_spacing,
    share,
    share_span,
    span,
)
from volspike.reporting.pages import (
    LIMITS,
    METHOD,
    SUMMARY_HEADS,
    describe_evaluations,
    event_table,
    model_warnings,
    summary_row,
    verdict_of,
)
from volspike.reporting.timeline import timeline_days
from volspike.reporting.webpage import WebPage, bullets, coarse_days_note, html_table, paragraph, section, tiles

MOST_ALERTS: Final = 500
"""Alerts listed on the page, the newest."""


def render_page(evaluation: EvaluationReport, on_step: OnStep) -> str:
    """The evaluation as HTML, with style, script and data inside.

    Raises:
        UnreadableFile: the feature file has been removed since the evaluation.
    """
    page = WebPage("Evaluation of volatility spike models")
    model = shown_model(evaluation)
    page.add(
        paragraph(SIMULATED if evaluation.simulated else "", "simulated"),
        paragraph(no_evidence(evaluation.without_evidence), "no-evidence"),
        paragraph(_describe_data(evaluation), "quiet"),
        section(
            "Summary",
            bullets(summary(model, simulated=evaluation.simulated)),
            tiles(headline_tiles(model)),
            bullets([*evaluation.left_out, *dict.fromkeys(model_warnings(evaluation.models))]),
        ),
        section(
            "Models",
            html_table(Table(SUMMARY_HEADS, [summary_row(each) for each in evaluation.models])),
            paragraph(
                "95 %: block-bootstrap interval. Gain: PR-AUC of the model minus that of the baseline, on the same "
                "rows. Random scores reach the base rate in PR-AUC. Lower is better for Brier score and log loss. "
                "* is the model that is served.",
                "quiet",
            ),
            bullets([verdict_of(each) for each in evaluation.models]),
            bullets(list(describe_evaluations(evaluation.models))),
        ),
    )
    on_step("timeline")
    days = timeline_days(evaluation.features, model.scored, evaluation.products, model.alerts, model.spans)
    shown = model.alerts[-MOST_ALERTS:]
    page.add(
        section(
            f"Timeline of {model.title}",
            paragraph(coarse_days_note(days, model.scored), "quiet"),
            page.timeline(days),
            f"<details><summary>{len(shown)} of {len(model.alerts)} alerts as a table</summary>"
            + html_table(alert_table(shown), [OUTCOME_CLASSES[str(alert.outcome)] for alert in shown])
            + "</details>",
        )
    )
    on_step("charts")
    page.add(*_chart_sections(page, model))
    page.add(*(_tables(each) for each in evaluation.models if each is not model))
    page.add(
        section("Method", bullets([f"{name}. {text}" for name, text in METHOD.items()])),
        section("Limits", paragraph(SIMULATED if evaluation.simulated else ""), bullets(LIMITS)),
    )
    return page.html()


def write_page(evaluation: EvaluationReport, file: Path, on_step: OnStep) -> None:
    """Write the page to ``file``, which is replaced in one step.

    Raises:
        UsageError: it cannot be written.
        UnreadableFile: the feature file has been removed since the evaluation.
    """
    content = render_page(evaluation, on_step)
    with write_atomically(file) as part:
        part.write_text(content, encoding="utf-8")


def shown_model(evaluation: EvaluationReport) -> ModelEvaluation:
    """The model that the charts show: the served one, otherwise that with the greatest PR-AUC, evidence first."""

    def rank(model: ModelEvaluation) -> tuple[bool, bool, float]:
        area = model.comparison.model.pr_auc
        return model.is_served, model.is_evidence, -1.0 if isnan(area) else area

    return max(evaluation.models, key=rank)


def _describe_data(evaluation: EvaluationReport) -> str:
    return (
        f"{evaluation.features.name}: {evaluation.rows:,} labelled rows of {', '.join(evaluation.products)}, "
        f"{day_and_time(evaluation.start)} to {day_and_time(evaluation.end)}, a row per "
        f"{row_spacing(evaluation.every)}, profile {evaluation.profile}. All times are UTC."
    )


def summary(model: ModelEvaluation, *, simulated: bool) -> list[str]:
    """The findings in a trader's terms."""
    events, compared = model.comparison.model_events, model.comparison
    horizon = model.scored.horizon_s
    minutes = events.alarm_share * DAY_S / 60.0
    periods = "period" if events.onsets == 1 else "periods"
    sentences = [
        f"{model.title} warns that the next {horizon} seconds may be unusually volatile. It predicts no direction.",
        (
            f"In {events.hours:.1f} hours {events.onsets} volatile {periods} began after a calm minute; an alert was "
            f"open in time for {events.onsets_caught} of them ({share(events.onset_recall, 0)}; 95 %: "
            f"{share_span(events.intervals.get('onset_recall'))})."
        ),
        (
            f"Alerts: {events.alarms}, of which {events.alarms - events.true_alarms} were false: "
            f"{number(events.false_alarms_per_hour, 2)} false alerts per hour. In total an alert was open for "
            f"{number(minutes, 0)} minutes per day."
        ),
    ]
    if events.caught:
        is_late = events.lead_median_s < 0.0
        sentences.append(
            f"For half of the volatile periods that were caught, the alert opened at {'most' if is_late else 'least'} "
            f"{number(abs(events.lead_median_s), 0)} seconds {'after' if is_late else 'before'} they were realized."
        )
    sentences += list(_budget_sentences(model))
    sentences.append(verdict_of(model))
    if simulated:
        sentences.append("The market was simulated: nothing here says how the model does on a real one.")
    elif compared.spike_events and model.is_evidence:
        sentences.append("The intervals cover chance on days like these, not other market conditions.")
    return sentences


def _budget_sentences(model: ModelEvaluation) -> Iterator[str]:
    if model.metadata.model == model.comparison.baseline_name:
        return
    for point in model.comparison.budgets:
        if point.budget == 30.0 and point.model.onsets:
            yield (
                f"With 30 minutes of alarm per day it catches {point.model.onsets_caught} of {point.model.onsets} "
                f"of them; {model.comparison.baseline_name}, the best simple rule, catches "
                f"{point.baseline.onsets_caught}."
            )


def headline_tiles(model: ModelEvaluation) -> list[tuple[str, str]]:
    """Headline figures with their 95 % intervals, and their meaning."""
    events, compared = model.comparison.model_events, model.comparison
    found = events.intervals
    per_day = DAY_S / 60.0
    alarm = found.get("alarm_share")
    alarm_span = DASH if alarm is None else span(Interval(alarm.low * per_day, alarm.high * per_day), 0)
    calm = compared.calm.pr_auc
    return [
        (
            f"{events.onsets_caught} of {events.onsets}",
            f"onsets caught in time (95 %: {share_span(found.get('onset_recall'))})",
        ),
        (
            share(events.precision, 0),
            f"of the alerts met a spike event (95 %: {share_span(found.get('precision'))})",
        ),
        (
            number(events.false_alarms_per_hour, 2),
            f"false alarms per hour (95 %: {span(found.get('false_alarms_per_hour'), 2)})",
        ),
        (number(events.alarm_share * per_day, 0), f"minutes of alarm per day (95 %: {alarm_span})"),
        (
            f"{number(events.lead_median_s, 0)} s" if events.caught else DASH,
            f"median lead time (quartiles: {number(events.lead_low_s, 0)} … {number(events.lead_high_s, 0)} s)",
        ),
        (
            number(compared.pr_auc.model),
            (
                f"PR-AUC (95 %: {span(compared.pr_auc.model_interval)}); {compared.baseline_name} "
                f"{number(compared.pr_auc.baseline)}"
            ),
        ),
        (
            f"×{number(calm.ratio, 2)}",
            f"PR-AUC in calm rows over {compared.baseline_name} (95 %: {span(calm.ratio_interval, 2)})",
        ),
    ]


def describe_baselines(model: ModelEvaluation) -> str:
    """The baselines in the chart of onsets, and that of the tables if it is another one."""
    drawn, compared = [*model.curves][1:], model.comparison.baseline_name
    text = (
        f"Baselines: {', '.join(drawn) or 'none'}, those with the greatest PR-AUC on these rows, calibrated on them, "
        "which favours them."
    )
    return text if compared in model.curves else f"{text} The tables compare with {compared}, chosen in training."


def _chart_sections(page: WebPage, model: ModelEvaluation) -> Iterator[str]:
    events, compared = model.comparison.model_events, model.comparison
    cap = LEAD_CAP_HORIZONS * model.scored.horizon_s
    sent = (events.alarm_share * DAY_S / 60.0, events.onset_recall)
    yield section(
        f"Onsets caught and alarm minutes of {model.title}",
        page.chart(
            "recall",
            recall_chart(model.curves, sent),
            "Each point is one alert threshold. Further up and to the left is better: more onsets for less attention. "
            + describe_baselines(model),
            curve_table(model.curves),
            "Onsets caught over minutes of alarm per day",
        ),
        "<h3>At budgets of alarm minutes</h3>",
        html_table(budget_table(model.title, compared)),
    )
    bins = lead_bins(model.alerts, cap)
    yield section(
        f"Lead times and alerts of {model.title}",
        page.chart(
            "leads",
            lead_chart(bins),
            "Seconds from the opening of an alert to the end of the minute that its spike event's first row forecasts, "
            f"at most {cap}. Alerts that caught nothing have none.",
            lead_table(bins),
            "Lead times",
        ),
        "<h3>Alerts at the served threshold</h3>",
        html_table(event_table(model)),
    )
    if model.reliability is not None:
        yield section(
            f"Calibration of {model.title}",
            page.chart(
                "reliability",
                reliability_chart(model.title, model.reliability),
                "Bins of equally many rows, with 95 % intervals. On the diagonal, spikes are as frequent as predicted. "
                f"Expected calibration error {number(model.reliability.expected_error)} (95 %: "
                f"{span(model.reliability.expected_error_interval)}).",
                reliability_table(model.reliability),
                "Observed share of spikes over predicted probability",
            ),
        )
    yield section(f"Ranking of the rows by {model.title}", html_table(headline_table(model.title, compared)))


def _tables(model: ModelEvaluation) -> str:
    parts = [
        paragraph(verdict_of(model)),
        tiles(headline_tiles(model)),
        html_table(headline_table(model.title, model.comparison)),
        html_table(budget_table(model.title, model.comparison)),
        html_table(event_table(model)),
    ]
    if model.reliability is not None:
        parts.append(html_table(reliability_table(model.reliability)))
    return section(f"Figures of {model.title}", f"<details><summary>Figures</summary>{''.join(parts)}</details>")
