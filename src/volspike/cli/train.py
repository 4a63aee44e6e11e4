"""``volspike train``: a labelled feature file → artifacts, judged against what a trader already has."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working

if TYPE_CHECKING:
    from volspike.evaluation import Comparison, Interval, Metrics
    from volspike.training import TrainingReport

EXAMPLES = "Example: volspike train --features data/processed/features.parquet --models baseline logistic random_forest"


def run(
    features: Annotated[Path, typer.Option(help="A labelled feature file.")],
    models: Annotated[list[str], typer.Option(help="baseline, logistic, random_forest, xgboost, or all.")] = ["all"],  # noqa: B006
    split_method: Annotated[str, typer.Option(help="walk_forward, time_based, or stratified (no evidence).")] = (
        "walk_forward"
    ),
    folds: Annotated[int, typer.Option(help="Folds of walk_forward.")] = 5,
    columns: Annotated[list[str] | None, typer.Option(help="Features to learn from; ten by default, or all.")] = None,
    label_percentile: Annotated[
        float, typer.Option(help="τ's percentile of the training rows.", min=0, max=100)
    ] = 90.0,
    artifacts: Annotated[Path, typer.Option(help="Where the artifacts go.")] = Path("models/artifacts"),
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Train models, judge them out of sample beside the persistence baseline, and write their artifacts."""
    from volspike.models import TEN_FEATURES
    from volspike.training import TrainingRequest, train

    request = TrainingRequest(
        features=features,
        models=tuple(models),
        artifacts=artifacts,
        split_method=split_method,
        folds=folds,
        columns=tuple(columns) if columns else TEN_FEATURES,
        label_percentile=label_percentile,
        seed=seed,
    )
    with working("training") as show:
        report = train(request, show)
    tell(report)


def tell(report: TrainingReport) -> None:
    """Prints a training report: pooled figures, each fold, and where the artifacts are."""
    note_if_simulated(report.simulated)
    for sentence in report.warnings:
        warn(sentence)
    out.print(
        f"{report.rows:,} rows of {', '.join(report.products)}, {report.start} to {report.end}, "
        f"split {report.split_method}; every figure is out of sample unless the split is stratified"
    )
    _pooled(report)
    _folds(report)
    for model in report.models:
        best = max(model.importance, key=model.importance.__getitem__)
        left = f"; left out, since the feed does not tell them: {', '.join(model.left_out)}" if model.left_out else ""
        out.print(f"{model.model} → {model.artifact} ({model.seconds:.1f} s; leans most on {best}{left})")


FIGURES = {
    "roc_auc": "ROC-AUC",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "brier": "Brier",
    "base_rate": "base rate",
}
COUNTS = {"tp": "true alarms", "fp": "false alarms", "fn": "missed spikes", "tn": "calm, no alarm", "rows": "rows"}


def _pooled(report: TrainingReport) -> None:
    """Each model's figures, and those of persistence on the same rows: beside the first model that has those rows."""
    columns: list[tuple[str, Metrics, Interval]] = []
    for model in report.models:
        pooled = model.pooled
        columns.append((model.model, pooled.model, pooled.model_pr_auc))
        trader = ("persistence", pooled.persistence, pooled.persistence_pr_auc)
        if not any(str(trader[1]) == str(known) for _, known, _ in columns):
            columns.append(trader)
    rows = [["PR-AUC", *(figure(metrics.pr_auc) for _, metrics, _ in columns)]]
    rows.append(["  95 % interval", *(span(interval) for _, _, interval in columns)])
    for name, label in FIGURES.items():
        rows.append([label, *(figure(getattr(metrics, name)) for _, metrics, _ in columns)])
    for name, label in COUNTS.items():
        rows.append([label, *(f"{getattr(metrics, name):,}" for _, metrics, _ in columns)])
    table("Out of sample, the test rows of all folds", ["", *(name for name, _, _ in columns)], rows)
    for model in report.models:
        gain = model.pooled.gain_pr_auc
        verdict = judgement(model.pooled)
        out.print(
            f"{model.model} against persistence (the last 60 s volatility) on the same rows: PR-AUC "
            f"{model.pooled.gain:+.4f}, 95 % {span(gain)}: {verdict}"
        )


def judgement(pooled: Comparison) -> str:
    """What the interval of the gain says in words, where there are events enough for it to say anything."""
    if not pooled.is_judgeable:
        return "too few events to tell"
    gain = pooled.gain_pr_auc
    return "better" if gain.low > 0 else "worse" if gain.high < 0 else "not shown to differ"


def span(interval: Interval) -> str:
    """An interval, or a dash."""
    return "–" if isnan(interval.low) else f"{interval.low:.3f} … {interval.high:.3f}"


def _folds(report: TrainingReport) -> None:
    """PR-AUC fold by fold; what a fold is made of is the same for all models."""
    first = report.models[0]
    rows = []
    for index, fold in enumerate(first.folds):
        sizes = (f"{count:,}" for count in (fold.train_rows, fold.validation_rows, fold.test_rows))
        scores = (figure(model.folds[index].comparison.model.pr_auc, 3) for model in report.models)
        judged = fold.comparison
        rows.append(
            [
                str(fold.fold),
                *sizes,
                f"{fold.tau:.2e}",
                figure(judged.model.base_rate, 3),
                figure(judged.persistence.pr_auc, 3),
                *scores,
            ]
        )
    heads = ["fold", "train", "valid.", "test", "τ", "base", "persist.", *(model.model for model in report.models)]
    table("PR-AUC fold by fold", heads, rows)
