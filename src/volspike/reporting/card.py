"""The figures of a model card: overall, on the final block, fold by fold, by product, by hour, and by feature.

A model card: what a model is, for whom, how good, and on what (Mitchell et al., "Model Cards for Model Reporting",
Conference on Fairness, Accountability, and Transparency, 2019). All of it comes from the model's own metadata.

The card of each artifact of a folder, beside its graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from volspike.datasets.feature_file import replacing
from volspike.models import Artifact, Metadata
from volspike.models.metadata import Figure, PartFigures
from volspike.reporting.evaluate import artifact_folders
from volspike.reporting.format import (
    DASH,
    SIMULATED,
    between,
    day_and_time,
    number,
    row_spacing,
    share,
    signed,
    split_in_words,
    table,
    threshold_meaning,
)

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


def model_card(metadata: Metadata) -> str:
    """The card as Markdown, in the nine sections of the paper."""
    sections = {
        "Model details": _details(metadata),
        "Intended use": _use(metadata),
        "Factors": _factors(metadata),
        "Metrics": _metrics(metadata),
        "Evaluation data": _evaluation_data(metadata),
        "Training data": _training_data(metadata),
        "Quantitative analyses": analyses(metadata),
        "Ethical considerations": _ethics(),
        "Caveats and recommendations": _caveats(metadata),
    }
    simulated = f"**{SIMULATED}**\n\n" if metadata.simulated else ""
    body = "\n".join(f"## {title}\n\n{text.rstrip()}\n" for title, text in sections.items())
    return f"# Model card: {metadata.model}\n\n{simulated}{body}"


def _details(facts: Metadata) -> str:
    settings = ", ".join(f"`{name}` {value}" for name, value in facts.settings.items()) or "the detector's defaults"
    tried = f", the best of {facts.trials} tried on training rows" if facts.trials else ""
    versions = ", ".join(f"{name} {version}" for name, version in facts.versions.items())
    rows = [
        ("kind", f"`{facts.model}`, a probability that the next {facts.horizon_s} seconds are a volatility spike"),
        ("made", f"{day_and_time(facts.created)} by volspike {facts.volspike_version}, seed {facts.seed}"),
        ("settings", settings + tried),
        ("form", f"ONNX, sha256 `{facts.onnx_sha256[:16]}…`; calibration {facts.calibration}"),
        ("input", f"{len(facts.features)} of the features with digest `{facts.feature_digest}` ({facts.scope} set)"),
        ("made with", versions),
        ("licence", "Apache-2.0"),
    ]
    return table(("", ""), rows)


def _use(facts: Metadata) -> str:
    missing = (
        "may miss values" if facts.accepts_missing else "must be whole: one that misses a value has no probability"
    )
    return (
        f"Warning of volatility within the next {facts.horizon_s} seconds in {', '.join(facts.products)}, from a row "
        f"per {row_spacing(facts.every)} of a feed with profile `{facts.profile}`; rows {missing}. For people who "
        "watch a market and for systems that slow down or widen their quotes in a wild one.\n\n"
        "Not for deciding by itself what to buy or sell: it says nothing of direction. Not for products, venues or "
        "kinds of rows that it was not trained on; `volspike` refuses rows of another digest, spacing or profile."
    )


def _factors(facts: Metadata) -> str:
    return (
        "What matters most is which market, which hour of the day and how wild the days were: figures by product and "
        "by hour (UTC) stand below, as far as each holds five separate spike events. τ is frozen, so that on wilder "
        f"days than those learned from more rows are spikes than the "
        f"{share(1 - facts.label_percentile / 100, 0)} of training."
    )


def _metrics(facts: Metadata) -> str:
    rows = [
        (f"`{name}`{', served' if name == facts.served_threshold else ''}", f"{value:.4f}", threshold_meaning(name))
        for name, value in facts.thresholds.items()
    ]
    return (
        f"A spike is a future {facts.horizon_s}-second volatility (standard deviation of one-second log returns) of at "
        f"least τ = {facts.tau:.3g}, the {facts.label_percentile:g}th percentile of the training rows. PR-AUC leads, "
        "because spikes are rare and ROC-AUC flatters; Brier score and log loss tell whether the probabilities are "
        "true; episodes caught, lead and false alarms per hour tell what a user lives through. Intervals are 95 % of a "
        "block bootstrap that keeps neighbouring time together.\n\n"
        + table(("threshold", "probability", "chosen for"), rows)
    )


def _evaluation_data(facts: Metadata) -> str:
    split = facts.split
    embargo = "" if split.embargo_s is None else f", purge {split.purge_s} s, embargo {split.embargo_s} s"
    block = f" The final block ({facts.data.test_rows:,} rows) is {split.final_block}." if split.final_block else ""
    way = split_in_words(split.method, split.folds, split.fold_by, split.training)
    return f"Test rows of the data below by {way}{embargo}; {split.note}.{block}"


def _training_data(facts: Metadata) -> str:
    data = facts.data
    learned = f", {data.learned_rows:,} of them learned from (weights: {data.weights})" if data.learned_rows else ""
    market = "a simulated market" if facts.simulated else "a recorded market"
    left = (
        f" Left out for want of any value: {', '.join(f'`{name}`' for name in facts.left_out)}."
        if facts.left_out
        else ""
    )
    return (
        f"{data.rows:,} labelled rows of {', '.join(facts.products)} from {market}, {day_and_time(data.start)} to "
        f"{day_and_time(data.end)}: {data.train_rows:,} training rows{learned} and {data.validation_rows:,} validation "
        f"rows after them, which calibrate and choose thresholds.{left}"
    )


def _ethics() -> str:
    return (
        "The data are public trades and quotes; no person can be told from them. A wrong warning costs money and "
        "trust, a missed one more: both rates are told above. Many users who act on the same warning at once can make "
        "the very move that it warns of."
    )


def _caveats(facts: Metadata) -> str:
    model = facts.metrics.get("model", {})
    events = model.get("spike_events")
    few = events is not None and events < 5
    sentences = [
        "SIMULATED data: none of these figures says anything of a real market." if facts.simulated else "",
        f"Only {events} spike event(s) stand behind the figures: they say next to nothing." if few else "",
        "A stratified split: no evidence of skill." if facts.split.method == "stratified" else "",
        "τ, thresholds and calibration fit the market and the days named above and no others; retrain on your own.",
        "The intervals know nothing of days unlike those recorded.",
        "Judge it with `volspike report` on rows that it has not seen before relying on it.",
    ]
    return "".join(f"- {sentence}\n" for sentence in sentences if sentence)


CARD_FILE: Final = "card.md"


def write_cards(folder: Path) -> tuple[Path, ...]:
    """Writes the card of every artifact in ``folder``, or of itself if it is one.

    Raises:
        ArtifactMissing: there is no artifact.
        ArtifactCorrupt: one is not what was written.
        UsageError: a folder cannot be written to.
    """
    artifacts = [Artifact.load(path) for path in artifact_folders(folder)]
    files = tuple(artifact.directory / CARD_FILE for artifact in artifacts)
    for artifact, file in zip(artifacts, files, strict=True):
        with replacing(file) as part:
            part.write_text(model_card(artifact.metadata))
    return files
