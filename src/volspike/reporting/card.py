"""Model cards in Markdown (Mitchell et al., "Model Cards for Model Reporting", Conference on Fairness, Accountability,
and Transparency, 2019), generated from the metadata of an artifact.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from volspike.datasets.feature_file import write_atomically
from volspike.models import Artifact, Metadata
from volspike.models.evidence import has_evidence, model_limitations, venues_text
from volspike.models.metadata import Figure, PartFigures
from volspike.reporting.evaluate import artifact_folders
from volspike.reporting.format import (
    DASH,
    SIMULATED,
    between,
    day_and_time,
    fold_table,
    no_evidence,
    number,
    row_spacing,
    share,
    signed,
    split_in_words,
    table,
    threshold_table,
)

MOST_FEATURES: Final = 10

CARD_FILE: Final = "card.md"


def write_cards(folder: Path) -> tuple[Path, ...]:
    """Write the card of every artifact in ``folder``, or of ``folder`` itself if it is one.

    Raises:
        ArtifactMissing: there is no artifact.
        ArtifactCorrupt: one is damaged.
        UsageError: a folder cannot be written to.
    """
    artifacts = [Artifact.load(path) for path in artifact_folders(folder)]
    files = tuple(artifact.directory / CARD_FILE for artifact in artifacts)
    for artifact, file in zip(artifacts, files, strict=True):
        with write_atomically(file) as part:
            part.write_text(model_card(artifact.metadata), "utf-8", newline="\n")
    return files


def model_card(metadata: Metadata) -> str:
    """The card in Markdown, with the nine sections of the paper."""
    sections = {
        "Model details": _details(metadata),
        "Intended use": _use(metadata),
        "Factors": _factors(metadata),
        "Metrics": _metrics(metadata),
        "Evaluation data": _evaluation_data(metadata),
        "Training data": _training_data(metadata),
        "Quantitative analyses": _analyses(metadata),
        "Ethical considerations": _ethics(),
        "Caveats and recommendations": _caveats(metadata),
    }
    simulated = f"**{SIMULATED}**\n\n" if metadata.simulated else ""
    if not has_evidence(metadata):
        simulated += f"**{no_evidence([metadata.model])}**\n\n"
    body = "\n".join(f"## {title}\n\n{text.rstrip()}\n" for title, text in sections.items())
    return f"# Model card: {metadata.model}\n\n{simulated}{body}"


def _details(facts: Metadata) -> str:
    settings = ", ".join(f"`{name}` {value}" for name, value in facts.settings.items()) or "the detector's defaults"
    tried = f", the best of {facts.trials} trials on training rows" if facts.trials else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    rows = [
        ("type", f"`{facts.model}`: probability of a volatility spike in the next {facts.horizon_s} seconds"),
        ("trained", f"{day_and_time(facts.created)} by volspike {facts.volspike_version}, seed {facts.seed}"),
        ("settings", settings + tried),
        ("format", f"ONNX, sha256 `{facts.onnx_sha256[:16]}…`; calibration {facts.calibration}"),
        ("input", f"{len(facts.features)} of the features with digest `{facts.feature_digest}` ({facts.scope} set)"),
        ("libraries", versions),
        ("licence", "Apache-2.0"),
    ]
    return table(("", ""), rows)


def _use(facts: Metadata) -> str:
    missing = "may lack values" if facts.accepts_missing else "must be complete; an incomplete row has no probability"
    return (
        f"Warning of volatility in the next {facts.horizon_s} seconds in {', '.join(facts.products)}, from one row "
        f"per {row_spacing(facts.every)} of a feed with profile `{facts.profile}`. Rows {missing}. Intended for people "
        "who watch a market, and for systems that trade less or widen their quotes when it is volatile.\n\n"
        "Not for buy or sell decisions by itself: it does not predict a direction. Not for products, venues or kinds "
        "of rows it was not trained on; `volspike` refuses rows of another digest or spacing, and those that lack a "
        "feature."
    )


def _factors(facts: Metadata) -> str:
    text = (
        "Metrics depend most on the product, the hour of the day and the volatility of the days. Metrics per product "
        "and per hour (UTC) are given below where five separate spike events are available."
    )
    if facts.spike_definition.is_adaptive:
        return text
    return text + " τ is frozen: on days more volatile than those of the training, more rows are spikes."


def _metrics(facts: Metadata) -> str:
    thresholds = threshold_table(facts)
    return (
        f"A spike is a future {facts.horizon_s}-second volatility (standard deviation of one-second log returns), "
        f"{facts.spike_phrase}. PR-AUC is the "
        "main metric, because spikes are rare and ROC-AUC is then too optimistic. Brier score and log loss measure the "
        "calibration of probabilities; caught episodes, lead time and false alarms per hour describe the alerts. "
        "Intervals are 95 % intervals of a block bootstrap.\n\n" + table(thresholds.heads, thresholds.rows)
    )


def _evaluation_data(facts: Metadata) -> str:
    split = facts.split
    embargo = "" if split.embargo_s is None else f", purge {split.purge_s} s, embargo {split.embargo_s} s"
    block = f" The final block ({facts.data.test_rows:,} rows) is {split.final_block}." if split.final_block else ""
    method = split_in_words(split.method, split.folds, split.fold_by, split.training)
    return f"Test rows of the data below, split by {method}{embargo}; {split.note}.{block}"


def _training_data(facts: Metadata) -> str:
    data = facts.data
    learned = f" ({data.learned_rows:,} of them used for fitting, weights: {data.weights})" if data.learned_rows else ""
    market = "a simulated market" if facts.simulated else "a recorded market"
    left = (
        f" Columns left out because they have no value: {', '.join(f'`{name}`' for name in facts.left_out)}."
        if facts.left_out
        else ""
    )
    return (
        f"{data.rows:,} labelled rows of {', '.join(facts.products)} (venues: {venues_text(facts)}) from {market}, "
        f"{day_and_time(data.start)} to {day_and_time(data.end)}: {data.train_rows:,} training rows{learned} and "
        f"{data.validation_rows:,} validation rows after them for calibration and thresholds.{left}"
    )


def _ethics() -> str:
    return (
        "The data are public trades and quotes and identify no person. A false warning costs money and trust, a missed "
        "one costs more; both rates are given above. If many users act on the same warning at once, they can cause the "
        "move that it warns of."
    )


def _caveats(facts: Metadata) -> str:
    sentences = [
        "SIMULATED data: these metrics say nothing about a real market." if facts.simulated else "",
        *(f"{limitation.text}." for limitation in model_limitations(facts)),
        "τ, thresholds and calibration fit only the market and the days named above; retrain on your own data.",
        "The intervals do not cover days unlike those recorded.",
        "Evaluate it with `volspike report` on held-out rows before relying on it.",
    ]
    return "".join(f"- {sentence}\n" for sentence in sentences if sentence)


def _analyses(facts: Metadata) -> str:
    """Metrics overall, on the final block, per fold, product and hour, and per feature, as far as known."""
    final = "model_final" in facts.metrics
    parts = [
        "### Overall\n\n",
        _overall(facts, ""),
        f"### Final block, which can only overrule the choice\n\n{_overall(facts, '_final')}" if final else "",
        _folds(facts),
        f"### Products\n\n{_parts(facts.product_metrics, facts.baseline)}" if facts.product_metrics else "",
        _hours(facts),
        f"### Feature importance\n\n{_importance(facts.importance)}",
    ]
    return "".join(parts)


def _overall(facts: Metadata, end: str) -> str:
    model = facts.metrics.get(f"model{end}", {})
    name = (facts.final_baseline if end else "") or facts.baseline
    baseline = facts.metrics.get(f"{name}{end}", {})
    columns = 2 if facts.model == name else 3
    rows = [
        (title, _with_span(model, name, digits), _with_span(baseline, name, digits))[:columns]
        for title, name, digits in _FIGURES
    ]
    rows += [cells[:columns] for cells in _headlines(facts, end)]
    heads = (f"{model.get('rows') or 0:,} rows", f"`{facts.model}`", f"`{name}` (baseline)")
    events = model.get("spike_events")
    gain = _gain(facts.model, name, model)
    counted = "" if events is None else f"{gain}Separate spike events in these rows: {events}.\n\n"
    return table(heads[:columns], rows) + counted + _alerts(facts, end)


_FIGURES: Final = (
    ("PR-AUC (95 %)", "pr_auc", 3),
    ("ROC-AUC (95 %)", "roc_auc", 3),
    ("Brier score (95 %)", "brier", 4),
    ("log loss (95 %)", "log_loss", 3),
    ("precision (95 %)", "precision", 3),
    ("recall (95 %)", "recall", 3),
    ("base rate", "base_rate", 3),
)


_HEADLINES: Final = (
    ("PR-AUC, mean of days (95 %)", "days", ""),
    ("PR-AUC in calm rows (95 %)", "calm", ""),
    ("onset recall at 30 min of alarm per day (95 %)", "minutes_30_per_day", "recall_"),
)
"""Title, group of ``Metadata.metrics``, and the beginning of its figures."""


def _headlines(facts: Metadata, end: str) -> Iterator[tuple[str, str, str]]:
    for title, group, prefix in _HEADLINES:
        if figures := facts.metrics.get(f"{group}{end}"):
            yield title, _with_span(figures, f"{prefix}model", 3), _with_span(figures, f"{prefix}baseline", 3)


def _gain(name: str, baseline: str, model: Mapping[str, Figure]) -> str:
    if name == baseline or model.get("pr_auc_gain") is None:
        return ""
    low, high = model.get("pr_auc_gain_low"), model.get("pr_auc_gain_high")
    return f"Gain in PR-AUC over `{baseline}`: {signed(model.get('pr_auc_gain'))} ({between(low, high)}). "


def _with_span(figures: Mapping[str, Figure], name: str, digits: int) -> str:
    interval = between(figures.get(f"{name}_low"), figures.get(f"{name}_high"), digits)
    value = number(figures.get(name), digits)
    return value if interval == DASH or name == "base_rate" else f"{value} ({interval})"


def _alerts(facts: Metadata, end: str) -> str:
    events = facts.metrics.get(f"model_events{end}")
    if not events:
        return ""
    return (
        f"At `{facts.served_threshold}`: {events.get('caught')} of {events.get('episodes')} spike episodes caught, "
        f"median lead time {number(events.get('lead_median_s'), 0)} s, "
        f"{number(events.get('false_alarms_per_hour'), 2)} false alarms per hour, an alert open "
        f"{share(events.get('alarm_share'))} of the time.\n\n"
    )


def _folds(facts: Metadata) -> str:
    if not facts.fold_metrics:
        return ""
    folds = fold_table(facts)
    return f"### Folds\n\n{table(folds.heads, folds.rows)}"


def _hours(facts: Metadata) -> str:
    evaluated = [part for part in facts.hour_metrics if part.pr_auc is not None]
    if not facts.hour_metrics:
        return ""
    few = "No hour has the five separate spike events that an evaluation needs.\n\n"
    return f"### Hours of the day (UTC)\n\n{_parts(evaluated, facts.baseline) if evaluated else few}"


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
    return table(("feature", "share of importance"), [(f"`{name}`", share(value)) for name, value in ranked])
