"""A model's pages: curves, calibration, folds, events, thresholds, products, hours, features, the largest spikes."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation import EventFigures, Part
from volspike.evaluation.plots import (
    around_episode,
    feature_importance,
    hour_bars,
    pr_curve,
    reliability_curve,
    roc_curve,
)
from volspike.reporting.figures import day_and_time, number, share, signed, span
from volspike.reporting.fold_plot import fold_picture
from volspike.reporting.judged import Judged
from volspike.reporting.paper import Paper, height_of
from volspike.reporting.title_page import verdict_of
from volspike.reporting.words import threshold_meaning

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
        (name, *cells) for name, cells in zip(_EVENT_NAMES, zip(_told(ours), _told(theirs), strict=True), strict=True)
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


def _told(events: EventFigures) -> tuple[str, ...]:
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
