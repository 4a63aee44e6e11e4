"""The first page: what was judged, on what, how, and what came of it in one table and a sentence for each model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isfinite

from volspike.reporting.evaluate import Evaluation
from volspike.reporting.figures import day_and_time, number, signed, span
from volspike.reporting.judged import Judged
from volspike.reporting.paper import Paper
from volspike.reporting.words import SIMULATED, row_spacing, split_in_words, verdict

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
