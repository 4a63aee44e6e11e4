"""Text shared by PDF pages, model cards and documentation: numbers, tables, and the meaning of names and verdicts.

An undefined number is a dash.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from volspike.evaluation import AlarmPoint, Comparison, Interval, Reliability
from volspike.models import Metadata

DASH = "–"


def number(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` decimals.

    >>> number(0.12345), number(None)
    ('0.123', '–')
    """
    return DASH if value is None or isnan(value) else f"{value:.{digits}f}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference with its sign.

    >>> signed(0.05)
    '+0.050'
    """
    return DASH if value is None or isnan(value) else f"{value:+.{digits}f}"


def between(low: float | None, high: float | None, digits: int = 3) -> str:
    """An interval from its ends.

    >>> between(0.1, 0.25, 2)
    '0.10 … 0.25'
    """
    if low is None or high is None or isnan(low) or isnan(high):
        return DASH
    return f"{low:.{digits}f} … {high:.{digits}f}"


def span(interval: Interval | None, digits: int = 3) -> str:
    """A bootstrap interval."""
    return DASH if interval is None else between(interval.low, interval.high, digits)


def share(value: float | None, digits: int = 1) -> str:
    """A share as a percentage.

    >>> share(0.1)
    '10.0 %'
    """
    return DASH if value is None or isnan(value) else f"{100 * value:.{digits}f} %"


def share_span(interval: Interval | None) -> str:
    """A bootstrap interval of a share, as percentages."""
    if interval is None or isnan(interval.low) or isnan(interval.high):
        return DASH
    return f"{100 * interval.low:.0f} … {100 * interval.high:.0f} %"


def day_and_time(instant: str) -> str:
    """An RFC 3339 instant to the second.

    >>> day_and_time("2025-12-01T16:49:47.178994Z")
    '2025-12-01 16:49:47 UTC'
    """
    return f"{instant[:10]} {instant[11:19]} UTC"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, followed by an empty line."""
    return _row(*heads) + _row(*["---"] * len(heads)) + "".join(_row(*cells) for cells in rows) + "\n"


SIMULATED = "SIMULATED market: these numbers show that the system works; they say nothing about a real market."


def no_evidence(titles: Sequence[str]) -> str:
    """The banner of figures that training saw; "" without any.

    >>> no_evidence(["har"])
    'NO EVIDENCE: the figures of har are not out of sample and show no skill.'
    """
    return f"NO EVIDENCE: the figures of {', '.join(titles)} are not out of sample and show no skill." if titles else ""


_MEANINGS = (
    (r"best_f1", "largest F1 on the validation rows"),
    (r"rate_([\d.]+)", "flags {} % of the validation rows"),
    (r"cost_([\d.]+)", "lowest cost on the validation rows, if a missed spike costs as much as {} false alarms"),
    (
        r"false_alarms_([\d.]+)_per_hour",
        "most spikes caught with at most {} false alarms per hour on the validation rows",
    ),
    (r"minutes_([\d.]+)_per_day", "at most {} minutes of alarm per day on the validation rows"),
)


def threshold_meaning(name: str) -> str:
    """The criterion a threshold was chosen by.

    >>> threshold_meaning("rate_10")
    'flags 10 % of the validation rows'
    """
    for form, meaning in _MEANINGS:
        if found := re.fullmatch(form, name):
            return meaning.format(*found.groups())
    return "the detector's own"


@dataclass(frozen=True, slots=True)
class Table:
    """A table that the PDF and Markdown documents render; the cells of its first ``texts`` columns are text."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    texts: int = 1


def fold_table(facts: Metadata) -> Table:
    """The folds of a model's training, oldest first; with the baseline's PR-AUC unless the model is the baseline."""
    heads = ("fold", "test block", "test rows", "τ", "base rate", "PR-AUC", f"PR-AUC of {facts.baseline}")
    columns = len(heads) - (facts.model == facts.baseline)
    rows = [
        (
            f"{fold.fold}{' (final)' if fold.is_final else ''}",
            fold.block or "newest rows",
            f"{fold.test_rows:,}",
            f"{fold.tau:.2e}",
            number(fold.base_rate),
            number(fold.pr_auc),
            number(fold.baseline_pr_auc),
        )[:columns]
        for fold in facts.fold_metrics
    ]
    return Table(heads[:columns], rows, 2)


def threshold_table(facts: Metadata) -> Table:
    """A model's alert thresholds and the criterion of each."""
    rows = [
        (f"{name}{' (served)' if name == facts.served_threshold else ''}", threshold_meaning(name), f"{value:.4f}")
        for name, value in facts.thresholds.items()
    ]
    return Table(("threshold", "criterion", "probability"), rows, 2)


def headline_table(model: str, compared: Comparison) -> Table:
    """PR-AUC of a model and the baseline pooled, as the mean of days and in calm rows, with their ratio."""
    parts = (
        ("pooled", compared.pr_auc),
        (f"mean of {compared.days.parts} day{'s' if compared.days.parts != 1 else ''}", compared.days.pr_auc),
        (f"calm rows ({compared.calm.rows:,})", compared.calm.pr_auc),
    )
    rows = [
        (
            name,
            number(found.model),
            span(found.model_interval),
            number(found.baseline),
            span(found.baseline_interval),
            number(found.ratio, 2),
            span(found.ratio_interval, 2),
        )
        for name, found in parts
    ]
    return Table(("PR-AUC", model, "95 %", compared.baseline_name, "95 %", "ratio", "95 %"), rows)


def budget_table(model: str, compared: Comparison) -> Table:
    """Onset recall of a model and the baseline at budgets of alarm minutes per day."""
    rows = [
        (
            f"{point.budget:g} min per day",
            f"{point.model.onsets}",
            share(point.onset_recall.model),
            _share_span(point.onset_recall.model_interval),
            share(point.onset_recall.baseline),
            _share_span(point.onset_recall.baseline_interval),
            number(point.model.lead_median_s, 0),
        )
        for point in compared.budgets
    ]
    heads = ("onset recall at", "onsets", model, "95 %", compared.baseline_name, "95 %", "median lead, s")
    return Table(heads, rows)


def _share_span(interval: Interval) -> str:
    return DASH if isnan(interval.low) else f"{100 * interval.low:.0f} … {100 * interval.high:.0f} %"


def reliability_table(found: Reliability) -> Table:
    """Predicted and observed rate of each group of rows by probability, with their ratio and number of events."""
    rows = [
        (
            between(part.low, part.high, 4),
            f"{part.rows:,}",
            f"{part.spike_events}",
            number(part.mean_probability, 4),
            number(part.observed_rate, 4),
            number(part.ratio, 2),
            span(part.ratio_interval, 2),
        )
        for part in found.bins
    ]
    return Table(("probability", "rows", "spike events", "predicted", "observed", "ratio", "95 %"), rows)


def curve_table(curves: Mapping[str, Sequence[AlarmPoint]]) -> Table:
    """The points of curves of onset recall over alarm minutes, by score."""
    rows = [
        (
            name,
            number(point.minutes_per_day, 1),
            f"{point.onsets_caught} of {point.onsets}",
            share(point.onset_recall),
            f"{point.alarms}",
            number(point.lead_median_s, 0),
        )
        for name, points in curves.items()
        for point in points
    ]
    return Table(("score", "alarm min/day", "onsets caught", "share", "alerts", "median lead, s"), rows)


def row_spacing(every: str) -> str:
    """The time step of a row.

    >>> row_spacing("1s")
    'second'
    """
    return "second" if every == "1s" else every


def split_in_words(method: str, folds: int, fold_by: str, training: str) -> str:
    """The split method with its parameters.

    >>> split_in_words("walk_forward", 5, "day", "expanding")
    'walk_forward, 5 folds by day, expanding training'
    """
    if method != "walk_forward":
        return method
    return f"{method}, {folds} fold{'s' if folds != 1 else ''} by {fold_by}, {training} training"


def verdict(model: str, comparison: Comparison) -> str:
    """One sentence on the difference to the baseline and its evidence."""
    if model == comparison.baseline_name:
        return f"{model} is the best baseline, which other models have to beat."
    gain = f"{signed(comparison.gain)} (95 %: {span(comparison.gain_intervals['pr_auc'])})"
    events = f"{comparison.spike_events} separate spike event{'s' if comparison.spike_events != 1 else ''}"
    relation = {"better": "better than", "worse": "worse than", "not shown to differ": "not shown to differ from"}
    if (found := comparison.verdict()) is not None:
        return f"{model} is {relation[found]} {comparison.baseline_name}: PR-AUC {gain} over {events}."
    return f"{model}: too few events for a conclusion ({events}); record for longer before relying on its metrics."
