"""The figures of a model card: overall, on the final block, fold by fold, by product, by hour, and by feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from volspike.models import Metadata
from volspike.models.metadata import Figure, PartFigures
from volspike.reporting.figures import DASH, between, number, share, signed
from volspike.reporting.markdown import table

MOST_FEATURES: Final = 10


def analyses(facts: Metadata) -> str:
    """What the metadata tells of them, as Markdown; what it does not tell is left out."""
    final = "model_final" in facts.metrics
    parts = [
        "### Overall\n\n",
        _overall(facts, ""),
        f"### On the final block, which no choice looked at\n\n{_overall(facts, '_final')}" if final else "",
        _folds(facts),
        f"### By product\n\n{_parts(facts.product_metrics, facts.baseline)}" if facts.product_metrics else "",
        _hours(facts),
        f"### What it goes by\n\n{_importance(facts.importance)}",
    ]
    return "".join(parts)


def _overall(facts: Metadata, end: str) -> str:
    model = facts.metrics.get(f"model{end}", {})
    baseline = facts.metrics.get(f"{facts.baseline}{end}", {})
    rows = [
        (title, _with_span(model, name, digits), _with_span(baseline, name, digits)) for title, name, digits in _FIGURES
    ]
    heads = (f"{model.get('rows') or 0:,} rows", f"`{facts.model}`", f"`{facts.baseline}`, the baseline")
    events = model.get("spike_events")
    told = f"{_gain(facts, model)}Spikes of these rows: {events} separate event(s).\n\n" if events is not None else ""
    return table(heads, rows) + told + _alarms(facts, end)


_FIGURES: Final = (
    ("PR-AUC (95 %)", "pr_auc", 3),
    ("ROC-AUC (95 %)", "roc_auc", 3),
    ("Brier score (95 %)", "brier", 4),
    ("log loss (95 %)", "log_loss", 3),
    ("precision (95 %)", "precision", 3),
    ("recall (95 %)", "recall", 3),
    ("base rate", "base_rate", 3),
)


def _gain(facts: Metadata, model: Mapping[str, Figure]) -> str:
    if facts.model == facts.baseline or model.get("pr_auc_gain") is None:
        return ""
    low, high = model.get("pr_auc_gain_low"), model.get("pr_auc_gain_high")
    return f"Gain in PR-AUC over `{facts.baseline}`: {signed(model.get('pr_auc_gain'))} ({between(low, high)}). "


def _with_span(figures: Mapping[str, Figure], name: str, digits: int) -> str:
    told = between(figures.get(f"{name}_low"), figures.get(f"{name}_high"), digits)
    value = number(figures.get(name), digits)
    return value if told == DASH or name == "base_rate" else f"{value} ({told})"


def _alarms(facts: Metadata, end: str) -> str:
    events = facts.metrics.get(f"model_events{end}")
    if not events:
        return ""
    return (
        f"At `{facts.served_threshold}`: {events.get('caught')} of {events.get('episodes')} spike episodes caught, "
        f"median lead {number(events.get('lead_median_s'), 0)} s, {number(events.get('false_alarms_per_hour'), 2)} "
        f"false alarms per hour, {share(events.get('alarm_share'))} of the time in alarm.\n\n"
    )


def _folds(facts: Metadata) -> str:
    if not facts.fold_metrics:
        return ""
    rows = [
        (
            f"{fold.fold}{' (final)' if fold.is_final else ''}",
            fold.block or DASH,
            f"{fold.test_rows:,}",
            number(fold.base_rate),
            number(fold.pr_auc),
            number(fold.baseline_pr_auc),
        )
        for fold in facts.fold_metrics
    ]
    heads = ("fold", "test block", "rows", "base rate", "PR-AUC", f"`{facts.baseline}`")
    return f"### Fold by fold\n\n{table(heads, rows)}"


def _hours(facts: Metadata) -> str:
    judged = [part for part in facts.hour_metrics if part.pr_auc is not None]
    if not facts.hour_metrics:
        return ""
    told = _parts(judged, facts.baseline) if judged else "No hour holds five separate spike events: none is judged.\n\n"
    return f"### By hour of the day (UTC)\n\n{told}"


def _parts(parts: Sequence[PartFigures], baseline: str) -> str:
    rows = [
        (
            part.label,
            f"{part.rows:,}",
            f"{part.spike_events}",
            *(
                number(value)
                for value in (part.base_rate, part.pr_auc, part.baseline_pr_auc, part.precision, part.recall)
            ),
        )
        for part in parts
    ]
    return table(("", "rows", "spike events", "base rate", "PR-AUC", f"`{baseline}`", "precision", "recall"), rows)


def _importance(importance: Mapping[str, float]) -> str:
    ranked = sorted(importance.items(), key=lambda item: -item[1])[:MOST_FEATURES]
    return table(("feature", "share of its importance"), [(f"`{name}`", share(value)) for name, value in ranked])
