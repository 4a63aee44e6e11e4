"""The pages of the evaluation PDF: a title page with the summary, pages for each model, and the method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.feature_file import write_atomically
from volspike.evaluation import EventFigures, Interval, RowGroup
from volspike.evaluation.plots import (
    around_episode,
    feature_importance,
    fold_bars,
    hour_bars,
    pr_curve,
    reliability_curve,
    roc_curve,
)
from volspike.models import Metadata
from volspike.models.metadata import FoldFigures
from volspike.progress import OnStep, counted
from volspike.reporting.evaluate import EvaluationReport, ModelEvaluation
from volspike.reporting.format import (
    DASH,
    SIMULATED,
    Table,
    budget_table,
    day_and_time,
    fold_table,
    headline_table,
    no_evidence,
    number,
    reliability_table,
    row_spacing,
    share,
    share_span,
    signed,
    span,
    split_in_words,
    threshold_table,
    verdict,
)
from volspike.reporting.pdf import Paper, height_of


def render_pdf(evaluation: EvaluationReport, on_step: OnStep) -> bytes:
    """The evaluation as a PDF."""
    market = "SIMULATED market, " if evaluation.simulated else ""
    footer = f"volspike: {market}{evaluation.features.name}, {evaluation.start[:10]} to {evaluation.end[:10]}"
    paper = Paper("Evaluation of volatility spike models", footer, no_evidence(evaluation.without_evidence))
    write_title_page(paper, evaluation)
    on_step = counted(on_step, len(evaluation.models))
    for model in evaluation.models:
        on_step(f"{model.title}: drawing")
        write_model_pages(paper, model)
    write_method_page(paper, evaluation)
    return paper.content()


def write_pdf(evaluation: EvaluationReport, file: Path, on_step: OnStep) -> None:
    """Write the PDF to ``file``, which is replaced in one step.

    Raises:
        UsageError: it cannot be written.
    """
    with write_atomically(file) as part:
        part.write_bytes(render_pdf(evaluation, on_step))


SUMMARY_HEADS: Final = (
    "model",
    "PR-AUC",
    "95 %",
    "baseline",
    "PR-AUC",
    "gain",
    "95 %",
    "ROC-AUC",
    "Brier",
    "log loss",
    "base rate",
)
SUMMARY_WIDTHS: Final = (27, 14, 23, 20, 14, 13, 24, 15, 10, 10, 10)


def write_title_page(paper: Paper, evaluation: EvaluationReport) -> None:
    """Write the title page: the data, how the models were evaluated, and the summary."""
    paper.heading("Evaluation of volatility spike models", 0)
    if evaluation.simulated:
        paper.warning(SIMULATED)
    paper.paragraph(
        f"{evaluation.features.name}: {evaluation.rows:,} labelled rows of {', '.join(evaluation.products)}, "
        f"{day_and_time(evaluation.start)} to {day_and_time(evaluation.end)}, a row per "
        f"{row_spacing(evaluation.every)}, profile {evaluation.profile}."
    )
    paper.paragraph(
        "A model forecasts the probability of a volatility spike within its horizon: a volatility of at least τ, which "
        f"its page defines. Every model was scored by its ONNX graph on {_rows_in_words(evaluation)}, and compared "
        "with the best baseline on the same rows."
    )
    paper.heading("Evaluation", 2)
    paper.bullets(list(describe_evaluations(evaluation.models)))
    paper.heading("Summary", 2)
    paper.table(SUMMARY_HEADS, [summary_row(model) for model in evaluation.models], SUMMARY_WIDTHS, size_pt=7.0)
    paper.paragraph(
        "95 %: block-bootstrap interval. Gain: PR-AUC of the model minus that of the baseline, on the same rows. "
        "Random scores reach the base rate in PR-AUC and 0.500 in ROC-AUC. Lower is better for Brier score and log "
        "loss. * is the model that is served.",
        small=True,
    )
    paper.heading("Conclusions", 2)
    paper.bullets([verdict_of(model) for model in evaluation.models])
    if warnings := [*evaluation.left_out, *dict.fromkeys(model_warnings(evaluation.models))]:
        paper.heading("Warnings", 2)
        paper.bullets(warnings)


def _rows_in_words(evaluation: EvaluationReport) -> str:
    if not evaluation.without_evidence:
        return "rows held out from its training"
    return "the rows named below (NO EVIDENCE: rows that its training saw, or their neighbours)"


def verdict_of(model: ModelEvaluation) -> str:
    """The verdict on a model, under its title in the report."""
    if not model.is_evidence:
        return f"{no_evidence([model.title])} Evaluated on {model.held_out}."
    if model.metadata.model == model.comparison.baseline_name:
        return f"{model.title} is the best baseline, which other models have to beat."
    return verdict(model.title, model.comparison)


def describe_evaluations(models: Sequence[ModelEvaluation]) -> Iterator[str]:
    """One sentence for all models that were trained and evaluated alike."""
    ways: dict[str, list[str]] = {}
    for model in models:
        split = model.metadata.split
        way = split_in_words(split.method, split.folds, split.fold_by, split.training)
        embargo = f", purge {split.purge_s} s, embargo {split.embargo_s} s" if split.embargo_s is not None else ""
        evidence = "" if model.is_evidence else "NO EVIDENCE, "
        ways.setdefault(f"{evidence}trained by {way}{embargo}; evaluated on {model.held_out}", []).append(model.title)
    for way, titles in ways.items():
        yield f"{', '.join(titles)}: {way}."


def model_warnings(models: Sequence[ModelEvaluation]) -> Iterator[str]:
    """The warnings of all models, each once, with the models that it concerns."""
    named: dict[str, list[str]] = {}
    for model in models:
        for sentence in model.warnings:
            named.setdefault(sentence, []).append(model.title)
    for sentence, titles in named.items():
        yield f"{', '.join(titles)}: {sentence}."


def summary_row(model: ModelEvaluation) -> tuple[str, ...]:
    """A model's row of the summary, under ``SUMMARY_HEADS``."""
    comparison = model.comparison
    is_baseline = model.metadata.model == comparison.baseline_name
    return (
        f"{model.title}{' *' if model.is_served else ''}{'' if model.is_evidence else ' (NO EVIDENCE)'}",
        number(comparison.model.pr_auc),
        span(comparison.model_intervals["pr_auc"]),
        DASH if is_baseline else comparison.baseline_name,
        number(comparison.baseline.pr_auc),
        "" if is_baseline else signed(comparison.gain),
        "" if is_baseline or not isfinite(comparison.gain) else span(comparison.gain_intervals["pr_auc"]),
        number(comparison.model.roc_auc),
        number(comparison.model.brier),
        number(comparison.model.log_loss),
        number(comparison.model.base_rate),
    )


MOST_FEATURES: Final = 12
_CURVE_MM: Final = 87.0
_PICTURE_MM: Final = 140.0
_SMALL_MM: Final = 118.0


def write_model_pages(paper: Paper, model: ModelEvaluation) -> None:
    """Write the pages of one model, beginning on a new page."""
    paper.start_page("" if model.is_evidence else no_evidence([model.title]))
    paper.heading(model.title, 0)
    _facts(paper, model)
    _headline(paper, model)
    _curves(paper, model)
    _events(paper, model)
    _reliability(paper, model)
    _folds(paper, model)
    _thresholds(paper, model)
    _parts(paper, model)
    _episodes(paper, model)
    _importance(paper, model)


def _facts(paper: Paper, model: ModelEvaluation) -> None:
    facts, metrics = model.metadata, model.comparison.model
    served = "Served model. " if model.is_served else ""
    paper.paragraph(
        f"{served}{facts.model} with {len(facts.features)} feature(s), fitted on {facts.data.learned_rows:,} of "
        f"{facts.data.train_rows:,} training rows; data from {day_and_time(facts.data.start)} to "
        f"{day_and_time(facts.data.end)}; a spike is {facts.spike_phrase}; calibration {facts.calibration}; "
        f"seed {facts.seed}."
    )
    paper.paragraph(
        f"Evaluated on {model.held_out}: {metrics.rows:,} scored rows, {metrics.tp + metrics.fn:,} of them spikes in "
        f"{model.comparison.spike_events} separate spike event(s)."
    )
    paper.paragraph(verdict_of(model), style="B")


_HEADLINE_WIDTHS: Final = (2.2, 1.2, 1.6, 1.2, 1.6, 1.2, 1.6)


def _headline(paper: Paper, model: ModelEvaluation) -> None:
    paper.heading("Ranking and onsets", 1, above=70)
    is_baseline = model.metadata.model == model.comparison.baseline_name
    tables = (headline_table(model.title, model.comparison), 3), (budget_table(model.title, model.comparison), 4)
    for table, own in tables:
        columns = own if is_baseline else len(table.heads)
        rows = [cells[:columns] for cells in table.rows]
        paper.table(table.heads[:columns], rows, _HEADLINE_WIDTHS[:columns])
    paper.paragraph(
        "Calm rows are those whose last minute was no spike itself. An onset is a spike event that begins in one. It "
        "is caught if an alert opens before the spike is realized. Both scores use as many minutes of alarm per day.",
        small=True,
    )


def _scores(model: ModelEvaluation) -> dict[str, NDArray[np.float64]]:
    scores = {model.title: model.scored.probability}
    if model.metadata.model != model.comparison.baseline_name:
        scores[model.comparison.baseline_name] = model.scored.baseline
    return scores


def _curves(paper: Paper, model: ModelEvaluation) -> None:
    if not model.has_both_classes:
        paper.paragraph(
            "The rows hold one class only: PR-AUC and ROC-AUC are undefined, and the model cannot be evaluated. "
            "Record for longer.",
            style="B",
        )
        return
    y, scores = model.scored.y, _scores(model)
    paper.pair(
        pr_curve(y, scores, title="Precision and recall"),
        roc_curve(y, scores, title="ROC"),
        ("Precision over recall of model and baseline", "Share of flagged spikes over share of flagged calm rows"),
    )


def _reliability(paper: Paper, model: ModelEvaluation) -> None:
    if model.reliability is None:
        return
    reliability = model.reliability
    picture = reliability_curve({model.title: reliability}, title="Reliability, bins of equally many rows")
    paper.heading("Calibration", 1, above=height_of(picture, _CURVE_MM) + 15)
    paper.paragraph(
        "If the model is calibrated, one in five rows with a probability of 20 % is a spike. "
        f"Expected calibration error: {number(reliability.expected_error)} "
        f"(95 %: {span(reliability.expected_error_interval)}); by chance alone it is above 0."
    )
    paper.picture(picture, "Observed share of spikes over predicted probability", width_mm=_CURVE_MM)
    table = reliability_table(reliability)
    paper.table(table.heads, table.rows, (2.4, 1, 1.2, 1, 1, 0.8, 1.4))


def _folds(paper: Paper, model: ModelEvaluation) -> None:
    folds = model.metadata.fold_metrics
    if not folds:
        return
    paper.heading("Folds of the training", 1, above=72)
    paper.paragraph(
        "Each fold's test rows were scored by a model trained on the rows before them (from the artifact's metadata). "
        "The model of the final fold is served; its test rows can only overrule the choice."
    )
    paper.picture(plot_folds(folds, model.metadata), "PR-AUC of model and baseline per fold", width_mm=_PICTURE_MM)
    table = fold_table(model.metadata)
    widths = (1, 2.6, 1, 1, 1, 1, 1.6)[: len(table.heads)]
    paper.table(table.heads, table.rows, widths, texts=table.texts)


def plot_folds(folds: Sequence[FoldFigures], metadata: Metadata) -> bytes:
    """PR-AUC per fold of the model and, unless it is the best baseline, of that (PNG)."""
    scores = {metadata.model: [_or_nan(fold.pr_auc) for fold in folds]}
    spans = {metadata.model: [Interval(_or_nan(fold.pr_auc_low), _or_nan(fold.pr_auc_high)) for fold in folds]}
    if metadata.baseline != metadata.model:
        scores[metadata.baseline] = [_or_nan(fold.baseline_pr_auc) for fold in folds]
        ends = [(fold.baseline_pr_auc_low, fold.baseline_pr_auc_high) for fold in folds]
        spans[metadata.baseline] = [Interval(_or_nan(low), _or_nan(high)) for low, high in ends]
    names = [f"{fold.fold}{' final' if fold.is_final else ''}\n{_short(fold.block)}" for fold in folds]
    base = [_or_nan(fold.base_rate) for fold in folds]
    return fold_bars(names, scores, spans, base, title="PR-AUC per fold")


def _short(block: str) -> str:
    """A block's month, day and time, without the year that all bars share."""
    day, _, moment = block.removeprefix("from ").removesuffix("Z").partition("T")
    return f"{day[5:]} {moment[:5]}".strip()


def _or_nan(value: float | None) -> float:
    return nan if value is None else value


def _events(paper: Paper, model: ModelEvaluation) -> None:
    comparison = model.comparison
    paper.heading("Alerts", 1, above=60)
    paper.paragraph(
        f"At the served threshold {model.metadata.served_threshold} ({model.metadata.threshold:.4f}), over "
        f"{comparison.model_events.hours:.1f} hours. An alert catches a spike event if it is open on one of its "
        "rows. The lead time ends with the minute that the spike's first row forecasts. An onset follows a calm "
        "minute, and counts as caught only if caught within that time."
    )
    table = event_table(model)
    paper.table(table.heads, table.rows, (2, *[1.6] * (len(table.heads) - 1)))


def event_table(model: ModelEvaluation) -> Table:
    """Spike events, lead times and alerts of a model and, unless it is the baseline, of that."""
    comparison = model.comparison
    events = {model.title: comparison.model_events}
    if model.metadata.model != comparison.baseline_name:
        events[comparison.baseline_name] = comparison.baseline_events
    columns = [_event_cells(figures) for figures in events.values()]
    rows = [(name, *cells) for name, *cells in zip(_EVENT_NAMES, *columns, strict=True)]
    return Table(("events and alerts", *events), rows)


_EVENT_NAMES: Final = (
    "spike events",
    "spike events caught (95 %)",
    "caught in time",
    "median lead time (quartiles), s",
    "onsets caught in time (95 %)",
    "alerts",
    "share of alerts with a spike (95 %)",
    "false alarms per hour (95 %)",
    "share of time with an open alert (95 %)",
)


def _event_cells(events: EventFigures) -> tuple[str, ...]:
    def with_span(text: str, figure: str) -> str:
        found = events.intervals.get(figure)
        interval = span(found, 2) if figure == "false_alarms_per_hour" else share_span(found)
        return text if interval == DASH else f"{text} ({interval})"

    lead = f"{number(events.lead_median_s, 0)} ({number(events.lead_low_s, 0)} … {number(events.lead_high_s, 0)})"
    return (
        f"{events.episodes}",
        with_span(f"{events.caught}: {share(events.recall)}", "recall"),
        f"{events.in_time}: {share(events.recall_in_time)}",
        lead if events.caught else DASH,
        with_span(f"{events.onsets_caught} of {events.onsets}", "onset_recall"),
        f"{events.alarms}",
        with_span(share(events.precision), "precision"),
        with_span(number(events.false_alarms_per_hour, 2), "false_alarms_per_hour"),
        with_span(share(events.alarm_share), "alarm_share"),
    )


def _thresholds(paper: Paper, model: ModelEvaluation) -> None:
    paper.heading("Thresholds", 1)
    table = threshold_table(model.metadata)
    rows = [
        (
            *cells,
            *(number(value) for value in (at.metrics.precision, at.metrics.recall, at.metrics.f1)),
            share(at.flagged_share),
        )
        for cells, at in zip(table.rows, model.thresholds, strict=True)
    ]
    heads = (*table.heads, "precision", "recall", "F1", "flagged rows")
    paper.table(heads, rows, (2.7, 3.9, 1.45, 1.2, 0.9, 0.7, 1.2), texts=table.texts)


def _parts(paper: Paper, model: ModelEvaluation) -> None:
    paper.heading("Products", 1)
    paper.table(_PART_HEADS, [_part_row(part) for part in model.products], _PART_WIDTHS)
    paper.heading("Hours of the day (UTC)", 1)
    evaluated = [part for part in model.hours if part.comparison is not None]
    if not evaluated:
        most = max(part.spike_events for part in model.hours)
        paper.paragraph(f"No hour has the five separate spike events that an evaluation needs; the maximum is {most}.")
        return
    names = (model.title, model.comparison.baseline_name)
    picture = hour_bars(model.hours, title="PR-AUC by hour of the day", labels=names)
    paper.picture(picture, "PR-AUC of model and baseline by hour of the day", width_mm=_PICTURE_MM)
    paper.table(_PART_HEADS, [_part_row(part) for part in evaluated], _PART_WIDTHS)


_PART_HEADS: Final = ("", "rows", "spike events", "base rate", "PR-AUC", "95 %", "baseline", "gain", "95 %")
_PART_WIDTHS: Final = (2.1, 0.9, 1, 0.9, 1, 1.5, 1, 0.9, 1.6)


def _part_row(part: RowGroup) -> tuple[str, ...]:
    comparison = part.comparison
    if comparison is None:
        return (part.label, f"{part.rows:,}", f"{part.spike_events}", *[DASH] * 6)
    return (
        part.label,
        f"{part.rows:,}",
        f"{part.spike_events}",
        number(comparison.model.base_rate),
        number(comparison.model.pr_auc),
        span(comparison.model_intervals["pr_auc"]),
        number(comparison.baseline.pr_auc),
        signed(comparison.gain),
        span(comparison.gain_intervals["pr_auc"]),
    )


def _importance(paper: Paper, model: ModelEvaluation) -> None:
    ranked = sorted(model.metadata.importance.items(), key=lambda item: -item[1])
    shown = dict(ranked[:MOST_FEATURES])
    more = f", the first {len(shown)} of {len(ranked)}" if len(shown) < len(ranked) else ""
    picture = feature_importance(shown, title=f"Importance shares as given by the model{more}")
    paper.heading("Feature importance", 1, above=height_of(picture, _SMALL_MM) + 5)
    paper.picture(picture, "Importance of the features", width_mm=_SMALL_MM)


def _episodes(paper: Paper, model: ModelEvaluation) -> None:
    episodes = model.episodes
    if not episodes:
        return
    paper.heading("Largest spikes", 1, above=51)
    for episode in episodes:
        title = f"{episode.product}: peak {episode.peak:.1f} τ"
        picture = around_episode(model.scored, episode.index, title=title)
        paper.picture(picture, f"Probability around {episode.start}", width_mm=_SMALL_MM)


METHOD: Final = {
    "Label": "A row is a spike if the standard deviation of the 60 one-second log returns after it is at least τ. τ is "
    "a percentile of the model's own training rows, frozen from then on; the same row can have different labels under "
    "different models.",
    "Rows": "Only rows held out from training, calibration and the choice of thresholds: the final block, which "
    "walk_forward and time_based training keep as the newest rows, and later rows of the file. Where a model has none, "
    "it is marked NO EVIDENCE, and its figures only show that the report works.",
    "Purge and embargo": "Between the rows a model was made from and those it is evaluated on, every row is removed "
    "whose label overlaps the later part or the windows of its rows (López de Prado, Advances in Financial Machine "
    "Learning, 2018, chapter 7).",
    "Metrics": "PR-AUC is the average precision in step form. All metrics are those of the calibrated probabilities of "
    "the served ONNX graph, not of the library that trained it.",
    "Intervals": "95 %, from a moving block bootstrap (Künsch, 1989) over time, all products together; blocks are at "
    "least ten minutes long and four times as long as nine of ten spike events. Model and baseline are resampled "
    "together, so that their difference has an interval of its own. Products and hours have fewer resamples.",
    "Events": "Spike rows less than 60 seconds apart form one spike event; separate spike events are more than five "
    "minutes apart. With fewer than five of them no conclusion is drawn.",
}

LIMITS: Final = (
    "An interval covers chance on days like those recorded, not other days.",
    "The best of many models compared on these rows is selected by them: its metrics are too optimistic.",
    "A probability warns of volatility. It does not predict a direction, and is no basis for an order by itself.",
    "τ, thresholds and calibration belong to the market that the model was trained on, and become outdated with it.",
)


def write_method_page(paper: Paper, evaluation: EvaluationReport) -> None:
    """Write the page on method and limits, and the table of models."""
    paper.start_page(no_evidence(evaluation.without_evidence))
    paper.heading("Method", 0)
    paper.bullets([f"{name}. {text}" for name, text in METHOD.items()])
    paper.heading("Limits", 1)
    if evaluation.simulated:
        paper.warning(SIMULATED)
    paper.bullets(LIMITS)
    paper.heading("The models", 1)
    paper.table(
        ("model", "trained", "volspike", "features", "ONNX sha256"),
        _model_rows(evaluation.models),
        _MODEL_WIDTHS,
        texts=5,
    )


_MODEL_WIDTHS: Final = (1.6, 1.6, 0.8, 1.1, 1.6)


def _model_rows(models: Sequence[ModelEvaluation]) -> list[tuple[str, ...]]:
    return [
        (
            model.title,
            model.metadata.created[:16].replace("T", " "),
            model.metadata.volspike_version,
            model.metadata.feature_digest,
            model.metadata.onnx_sha256[:16],
        )
        for model in models
    ]
