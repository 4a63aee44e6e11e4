"""PR-AUC fold by fold, as an artifact tells it.

The first page: what was judged, on what, how, and what came of it in one table and a sentence for each model.

A model's pages: curves, calibration, folds, events, thresholds, products, hours, features, the largest spikes.

The last page: how the figures came about, and what they do not tell.

An evaluation as a PDF document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isfinite, nan
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.datasets.feature_file import replacing
from volspike.evaluation import EventFigures, Interval, Part
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
from volspike.reporting.evaluate import Evaluation, Judged
from volspike.reporting.format import (
    SIMULATED,
    day_and_time,
    number,
    row_spacing,
    share,
    signed,
    span,
    split_in_words,
    threshold_meaning,
    verdict,
)
from volspike.reporting.pdf import Paper, height_of


def fold_picture(folds: Sequence[FoldFigures], metadata: Metadata) -> bytes:
    """Bars of the model and, unless it is that itself, of the best baseline (PNG)."""
    scores = {metadata.model: [_told(fold.pr_auc) for fold in folds]}
    spans = {metadata.model: [Interval(_told(fold.pr_auc_low), _told(fold.pr_auc_high)) for fold in folds]}
    if metadata.baseline != metadata.model:
        scores[metadata.baseline] = [_told(fold.baseline_pr_auc) for fold in folds]
        ends = [(fold.baseline_pr_auc_low, fold.baseline_pr_auc_high) for fold in folds]
        spans[metadata.baseline] = [Interval(_told(low), _told(high)) for low, high in ends]
    names = [f"{fold.fold}{' final' if fold.is_final else ''}\n{_short(fold.block)}" for fold in folds]
    base = [_told(fold.base_rate) for fold in folds]
    return fold_bars(names, scores, spans, base, title="PR-AUC fold by fold")


def _short(block: str) -> str:
    """A block's name without the words and the year that every bar would repeat."""
    day, _, moment = block.removeprefix("from ").removesuffix("Z").partition("T")
    return f"{day[5:]} {moment[:5]}".strip()


def _told(value: float | None) -> float:
    return nan if value is None else value


HEADS = (
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
WIDTHS = (27, 14, 23, 20, 14, 13, 24, 15, 10, 10, 10)


def write_title_page(paper: Paper, evaluation: Evaluation) -> None:
    """Writes it; the paper is empty."""
    paper.heading("Evaluation of volatility spike models", 0)
    if evaluation.simulated:
        paper.shout(SIMULATED)
    paper.say(
        f"{evaluation.features.name}: {evaluation.rows:,} labelled rows of {', '.join(evaluation.products)}, "
        f"{day_and_time(evaluation.start)} to {day_and_time(evaluation.end)}, a row per "
        f"{row_spacing(evaluation.every)}, profile {evaluation.profile}."
    )
    paper.say(
        "A model tells how likely the volatility of the next 60 seconds is to be a spike: at least τ, a percentile of "
        "what its training rows showed. Every model was scored anew by its ONNX graph, on rows alone that its training "
        "never learned from and never chose by, beside the best rule that a trader already has."
    )
    paper.heading("How they were judged", 2)
    paper.listed(list(_judged_on(evaluation.models)))
    paper.heading("Summary", 2)
    paper.table(HEADS, [_row(model) for model in evaluation.models], WIDTHS, size_pt=7.0)
    paper.say(
        "95 %: block bootstrap. A gain is the model's PR-AUC less the baseline's on the same rows. Guessing reaches "
        "the base rate in PR-AUC and 0.500 in ROC-AUC; of Brier and log loss less is better. * in service.",
        small=True,
    )
    paper.heading("What the figures are worth", 2)
    paper.listed([verdict_of(model) for model in evaluation.models])
    if warnings := [*evaluation.left_out, *dict.fromkeys(_warnings(evaluation.models))]:
        paper.heading("Warnings", 2)
        paper.listed(warnings)


def verdict_of(model: Judged) -> str:
    """The verdict on a model under its title in the report."""
    if model.metadata.model == model.comparison.baseline_name:
        return f"{model.title} is the best baseline itself: what a model has to beat."
    return verdict(model.title, model.comparison)


def _judged_on(models: Sequence[Judged]) -> Iterator[str]:
    """Once for all models that were judged alike."""
    ways: dict[str, list[str]] = {}
    for model in models:
        split = model.metadata.split
        way = split_in_words(split.method, split.folds, split.fold_by, split.training)
        embargo = f", purge {split.purge_s} s, embargo {split.embargo_s} s" if split.embargo_s is not None else ""
        ways.setdefault(f"trained by {way}{embargo}; judged on {model.unseen}", []).append(model.title)
    for way, titles in ways.items():
        yield f"{', '.join(titles)}: {way}."


def _warnings(models: Sequence[Judged]) -> Iterator[str]:
    named: dict[str, list[str]] = {}
    for model in models:
        for sentence in model.warnings:
            named.setdefault(sentence, []).append(model.title)
    for sentence, titles in named.items():
        yield f"{', '.join(titles)}: {sentence}."


def _row(model: Judged) -> tuple[str, ...]:
    judged = model.comparison
    is_itself = model.metadata.model == judged.baseline_name
    return (
        f"{model.title}{' *' if model.is_in_service else ''}",
        number(judged.model.pr_auc),
        span(judged.model_intervals["pr_auc"]),
        "itself" if is_itself else judged.baseline_name,
        number(judged.baseline.pr_auc),
        "" if is_itself else signed(judged.gain),
        "" if is_itself or not isfinite(judged.gain) else span(judged.gain_intervals["pr_auc"]),
        number(judged.model.roc_auc),
        number(judged.model.brier),
        number(judged.model.log_loss),
        number(judged.model.base_rate),
    )


MOST_FEATURES: Final = 20
_CURVE_MM: Final = 125.0
_PICTURE_MM: Final = 150.0


def write_model_pages(paper: Paper, model: Judged) -> None:
    """Writes them from the top of a new page on."""
    paper.page()
    paper.heading(model.title, 0)
    _facts(paper, model)
    _curves(paper, model)
    _reliability(paper, model)
    _folds(paper, model)
    _events(paper, model)
    _thresholds(paper, model)
    _parts(paper, model)
    _importance(paper, model)
    _episodes(paper, model)


def _facts(paper: Paper, model: Judged) -> None:
    facts, judged = model.metadata, model.comparison.model
    service = "In service. " if model.is_in_service else ""
    paper.say(
        f"{service}{facts.model} of {len(facts.features)} feature(s), learned from {facts.data.learned_rows:,} of "
        f"{facts.data.train_rows:,} training rows of data from {day_and_time(facts.data.start)} to "
        f"{day_and_time(facts.data.end)}; τ {facts.tau:.3g}, percentile {facts.label_percentile:g} of its training "
        f"rows; calibration {facts.calibration}; seed {facts.seed}."
    )
    paper.say(
        f"Judged on {model.unseen}: {judged.rows:,} rows could be scored, {judged.tp + judged.fn:,} of them spikes, "
        f"which are {model.comparison.spike_events} separate event(s)."
    )
    paper.say(verdict_of(model), style="B")


def _scores(model: Judged) -> dict[str, NDArray[np.float64]]:
    scores = {model.title: model.scored.probability}
    if model.metadata.model != model.comparison.baseline_name:
        scores[model.comparison.baseline_name] = model.scored.baseline
    return scores


def _curves(paper: Paper, model: Judged) -> None:
    if not model.has_both_classes:
        paper.say(
            "The rows are of one class only: areas are undefined, no curve can be drawn, and nothing tells whether the "
            "model is any good. Record for longer.",
            style="B",
        )
        return
    y, scores = model.scored.y, _scores(model)
    paper.picture(
        pr_curve(y, scores, title="Precision and recall"),
        "Precision over recall of model and baseline",
        width_mm=_CURVE_MM,
    )
    paper.picture(
        roc_curve(y, scores, title="ROC"), "Share of spikes called over share of calm rows called", width_mm=_CURVE_MM
    )


def _reliability(paper: Paper, model: Judged) -> None:
    if model.reliability is None:
        return
    told = model.reliability
    picture = reliability_curve({model.title: told}, title="Reliability, in bins of equally many rows")
    paper.heading("Does a spike come as often as foreseen?", 1, above=height_of(picture, _CURVE_MM) + 15)
    paper.say(
        f"Expected calibration error {number(told.expected_error)} "
        f"(95 %: {span(told.expected_error_interval)}); chance alone makes it more than 0."
    )
    paper.picture(picture, "Observed over foreseen share of spikes", width_mm=_CURVE_MM)


def _folds(paper: Paper, model: Judged) -> None:
    folds = model.metadata.fold_metrics
    if not folds:
        return
    paper.heading("Fold by fold, at training", 1, above=100)
    paper.say(
        "Each fold's test rows were scored by a model trained on what came before; the artifact itself tells of it. "
        "The final fold is the one whose model is served: no choice looked at its test rows."
    )
    paper.picture(
        fold_picture(folds, model.metadata), "PR-AUC of model and baseline, fold by fold", width_mm=_PICTURE_MM
    )
    rows = [
        (
            f"{fold.fold}{' final' if fold.is_final else ''}",
            fold.block or "newest rows",
            f"{fold.test_rows:,}",
            f"{fold.tau:.2e}",
            number(fold.base_rate),
            number(fold.pr_auc),
            number(fold.baseline_pr_auc),
        )
        for fold in folds
    ]
    heads = ("fold", "test block", "test rows", "τ", "base rate", "PR-AUC", model.metadata.baseline)
    paper.table(heads, rows, (1, 2.6, 1, 1, 1, 1, 1.2), texts=2)


def _events(paper: Paper, model: Judged) -> None:
    ours, theirs = model.comparison.model_events, model.comparison.baseline_events
    served = model.metadata.served_threshold
    paper.heading("What a user of the alarms would have lived through", 1, above=70)
    paper.say(
        f"At the served threshold {served} ({model.metadata.threshold:.4f}), over {ours.hours:.1f} watched hours. "
        "An alarm catches an episode if it is in force on a row of it; its lead is the time until the spike's own "
        "minute is over. Onsets begin out of a calm minute and count as caught only in time."
    )
    rows = [
        (name, *cells)
        for name, cells in zip(_EVENT_NAMES, zip(_told_figures(ours), _told_figures(theirs), strict=True), strict=True)
    ]
    paper.table(("", model.title, model.comparison.baseline_name), rows, (2, 1.6, 1.6))


_EVENT_NAMES: Final = (
    "spike episodes",
    "episodes caught (95 %)",
    "caught before the minute was over",
    "median lead (quartiles), s",
    "onsets caught in time (95 %)",
    "alarms",
    "share of alarms that were right (95 %)",
    "false alarms per hour (95 %)",
    "share of time in alarm (95 %)",
)


def _told_figures(events: EventFigures) -> tuple[str, ...]:
    def with_span(text: str, figure: str) -> str:
        told = span(events.intervals.get(figure), 2)
        return text if told == "–" else f"{text} ({told})"

    lead = f"{number(events.lead_median_s, 0)} ({number(events.lead_low_s, 0)} … {number(events.lead_high_s, 0)})"
    return (
        f"{events.episodes}",
        with_span(f"{events.caught}: {share(events.recall)}", "recall"),
        f"{events.in_time}: {share(events.recall_in_time)}",
        lead if events.caught else "–",
        with_span(f"{events.onsets_caught} of {events.onsets}", "onset_recall"),
        f"{events.alarms}",
        with_span(share(events.precision), "precision"),
        with_span(number(events.false_alarms_per_hour, 2), "false_alarms_per_hour"),
        with_span(share(events.alarm_share), "alarm_share"),
    )


def _thresholds(paper: Paper, model: Judged) -> None:
    paper.heading("Thresholds", 1)
    rows = [
        (
            f"{at.name}{' (served)' if at.is_served else ''}",
            threshold_meaning(at.name),
            f"{model.metadata.thresholds[at.name]:.4f}",
            *(number(value) for value in (at.metrics.precision, at.metrics.recall, at.metrics.f1)),
            share(at.called_share),
        )
        for at in model.thresholds
    ]
    heads = ("name", "chosen for", "probability", "precision", "recall", "F1", "rows called")
    paper.table(heads, rows, (2.6, 3.6, 1.3, 1.15, 0.9, 0.8, 1.2), texts=2)


def _parts(paper: Paper, model: Judged) -> None:
    paper.heading("Product by product", 1)
    paper.table(_PART_HEADS, [_part(part) for part in model.products], _PART_WIDTHS)
    paper.heading("Hour by hour (of the day, UTC)", 1)
    judged = [part for part in model.hours if part.comparison is not None]
    if not judged:
        most = max(part.spike_events for part in model.hours)
        paper.say(
            f"No hour holds the five separate spike events that a judgement takes; the most that one has is {most}."
        )
        return
    names = (model.title, model.comparison.baseline_name)
    picture = hour_bars(model.hours, title="PR-AUC by hour of the day", labels=names)
    paper.picture(picture, "PR-AUC of model and baseline by hour of the day", width_mm=_PICTURE_MM)
    paper.table(_PART_HEADS, [_part(part) for part in judged], _PART_WIDTHS)


_PART_HEADS: Final = ("", "rows", "spike events", "base rate", "PR-AUC", "95 %", "baseline", "gain", "95 %")
_PART_WIDTHS: Final = (1.3, 1, 1.2, 1, 1, 1.6, 1, 1, 1.8)


def _part(part: Part) -> tuple[str, ...]:
    told = part.comparison
    if told is None:
        return (part.label, f"{part.rows:,}", f"{part.spike_events}", *["–"] * 6)
    return (
        part.label,
        f"{part.rows:,}",
        f"{part.spike_events}",
        number(told.model.base_rate),
        number(told.model.pr_auc),
        span(told.model_intervals["pr_auc"]),
        number(told.baseline.pr_auc),
        signed(told.gain),
        span(told.gain_intervals["pr_auc"]),
    )


def _importance(paper: Paper, model: Judged) -> None:
    ranked = sorted(model.metadata.importance.items(), key=lambda item: -item[1])
    shown = dict(ranked[:MOST_FEATURES])
    more = f", the first {len(shown)} of {len(ranked)}" if len(shown) < len(ranked) else ""
    picture = feature_importance(shown, title=f"Shares of the model's own importance{more}")
    paper.heading("What it goes by", 1, above=height_of(picture, _PICTURE_MM) + 5)
    paper.picture(picture, "Importance of the features", width_mm=_PICTURE_MM)


def _episodes(paper: Paper, model: Judged) -> None:
    episodes = model.episodes
    if not episodes:
        return
    paper.heading("Around the largest spikes", 1, above=90)
    for episode in episodes:
        title = f"{episode.product}: {episode.peak:.1f} τ at its worst"
        picture = around_episode(model.scored, episode.index, title=title)
        paper.picture(picture, f"Probability around {episode.start}", width_mm=_PICTURE_MM)


METHOD = {
    "Label": "A row is a spike if the standard deviation of the 60 one-second log returns after it is at least τ. τ is "
    "a percentile of the model's own training rows and frozen from there on; a row's label under one model may differ "
    "from that under another.",
    "Rows": "Only rows that training neither learned from, calibrated on nor chose thresholds by: the final block, "
    "which walk_forward and time_based training set apart as the newest, and what the file has after it.",
    "Purge and embargo": "Between the rows that a model was made from and those that judge it, every row is missing "
    "whose label reaches into the later part, or into what the later part's windows look back at (López de Prado, "
    "Advances in Financial Machine Learning, 2018, chapter 7).",
    "Figures": "PR-AUC is the average precision in step form; curves, areas, Brier score and log loss are of the "
    "calibrated probabilities of the ONNX graph that is served, not of the library that trained it.",
    "Intervals": "95 %, from a moving block bootstrap (Künsch, 1989) of stretches of time, all products together, at "
    "least ten minutes long and four times as long as nine of ten spike episodes; model and baseline are drawn alike, "
    "so that the difference has an interval of its own. Of products and hours there are fewer draws.",
    "Events": "Spike rows less than 60 seconds apart are one episode; separate spike events are more than five minutes "
    "apart. With fewer than five of them nothing is judged.",
}

LIMITS = (
    "An interval tells how far a figure could have come out otherwise on days like those recorded, not on others.",
    "Whoever compares many models on these rows and keeps the best has chosen by them: its figure is then too kind.",
    "A probability warns of volatility. It says nothing of direction, and is no basis for an order by itself.",
    "τ, thresholds and calibration belong to the market that the model learned from, and age with it.",
)


def write_method_page(paper: Paper, evaluation: Evaluation) -> None:
    """Writes it on a page of its own."""
    paper.page()
    paper.heading("Method", 0)
    paper.listed([f"{name}. {text}" for name, text in METHOD.items()])
    paper.heading("Limits", 1)
    if evaluation.simulated:
        paper.shout(SIMULATED)
    paper.listed(LIMITS)
    paper.heading("The models", 1)
    paper.table(
        ("model", "trained", "volspike", "features", "ONNX sha256"), _models(evaluation.models), _WIDTHS, texts=5
    )


_WIDTHS = (1.6, 1.6, 0.8, 1.1, 1.6)


def _models(models: Sequence[Judged]) -> list[tuple[str, ...]]:
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


def document(evaluation: Evaluation, on_step: Callable[[str], None]) -> bytes:
    """The PDF: a title page, each model's pages, the method."""
    market = "SIMULATED market, " if evaluation.simulated else ""
    footer = f"volspike: {market}{evaluation.features.name}, {evaluation.start[:10]} to {evaluation.end[:10]}"
    paper = Paper("Evaluation of volatility spike models", footer)
    write_title_page(paper, evaluation)
    for model in evaluation.models:
        on_step(f"{model.title}: drawn")
        write_model_pages(paper, model)
    write_method_page(paper, evaluation)
    return paper.content()


def write_document(evaluation: Evaluation, file: Path, on_step: Callable[[str], None]) -> None:
    """Writes the PDF to ``file``, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    with replacing(file) as part:
        part.write_bytes(document(evaluation, on_step))
