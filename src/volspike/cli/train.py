"""``volspike train``: a labelled feature file to artifacts, compared with the baselines."""

from __future__ import annotations

import os
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Columns, Seed, Spike, TrainingPercentile, Venue
from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working
from volspike.errors import VolspikeError

if TYPE_CHECKING:
    from volspike.evaluation import Comparison, Contrast, Interval
    from volspike.training.report import ModelResult, TrainingReport
    from volspike.training.tracking import TrackingSettings

EXAMPLES = "Example: volspike train --features data/processed/features.parquet --models baseline logistic random_forest"


def run(
    features: Annotated[Path, typer.Option(help="Labelled feature file.")],
    models: Annotated[
        list[str], typer.Option(help="Models to train, of volspike or a plug-in; `all`: those of volspike.")
    ] = ["all"],  # noqa: B006
    split_method: Annotated[str, typer.Option(help="walk_forward, time_based, or stratified (no evidence).")] = (
        "walk_forward"
    ),
    folds: Annotated[int, typer.Option(help="Walk-forward test blocks; the newest is the final block.")] = 5,
    fold_by: Annotated[str, typer.Option(help="Test blocks by rows (equal shares), session, day, or auto.")] = "auto",
    training: Annotated[str, typer.Option(help="expanding, or rolling to drop old rows.")] = "expanding",
    training_span: Annotated[
        float | None, typer.Option(help="Hours of rolling training (default: those of the first fold).")
    ] = None,
    columns: Columns = None,
    label_percentile: TrainingPercentile = 90.0,
    spike: Spike = None,
    horizons: Annotated[
        list[int] | None,
        typer.Option(
            help="Horizons in seconds, such as 60 300 900: one artifact with a head each (default: that of the file)."
        ),
    ] = None,
    calibration: Annotated[str, typer.Option(help="platt, isotonic or none, fitted on validation rows.")] = "platt",
    threshold: Annotated[
        str,
        typer.Option(
            help="Alert threshold: best_f1, rate_10, cost_10, false_alarms_2_per_hour or minutes_30_per_day; other "
            "numbers work too."
        ),
    ] = "best_f1",
    search: Annotated[int, typer.Option(help="Settings tried per model on training rows; 0 for the defaults.")] = 8,
    artifacts: Annotated[Path, typer.Option(help="Folder for the artifacts.")] = Path("models/artifacts"),
    promote: Annotated[
        bool, typer.Option("--promote", help="Promote the chosen model to ARTIFACTS/production.")
    ] = False,
    venue: Venue = None,
    seed: Seed = 0,
    mlflow_uri: Annotated[
        str | None,
        typer.Option(help="Track the run in MLflow: a server, or a database such as sqlite:///mlruns/mlflow.db."),
    ] = None,
) -> None:
    """Train models, compare them with the best baseline on held-out rows, and write their artifacts."""
    from volspike.datasets.feature_file import facts_of, open_feature_file
    from volspike.training.request import TrainingRequest, check_horizons

    tracking = tracking_settings(mlflow_uri)
    request = TrainingRequest(
        features=features,
        models=tuple(models),
        artifacts=artifacts,
        split_method=split_method,
        folds=folds,
        fold_by=fold_by,
        training=training,
        training_span_h=training_span,
        columns=tuple(columns) if columns else None,
        label_percentile=label_percentile,
        spike=spike,
        calibration=calibration,
        threshold=threshold,
        search=search,
        promote=promote,
        venue=venue,
        seed=seed,
    )
    request.model_names()
    with open_feature_file(features) as file:
        facts_of(features, file)
    request.check()
    if horizons:
        check_horizons(horizons)
    # errors up to here need no learning library, except that of an unknown calibration
    from volspike.lifecycle.promotion import promote_chosen
    from volspike.training.horizons import train_horizons
    from volspike.training.run import train

    with working("training") as show:
        report, *others = train_horizons(request, horizons, show) if horizons else [train(request, show)]
    refusal: VolspikeError | None = None
    try:
        report = promote_chosen(report)
    except VolspikeError as error:  # raised below: a refused promotion must not cost the report
        refusal = error
    for horizon, other in zip(horizons[1:] if horizons else (), others, strict=True):
        out.print(f"Horizon {horizon} s")
        print_result(other)
    print_result(report)
    if tracking.is_on:
        follow(report, tracking)
    if refusal is not None:
        raise refusal


def tracking_settings(uri: str | None) -> TrackingSettings:
    """The tracking settings from the option or MLflow's environment variables.

    Raises:
        UsageError: MLflow is not installed, or the URI is invalid.
    """
    from volspike.config import load_settings
    from volspike.training.tracking import TrackingSettings

    settings = load_settings(TrackingSettings, {"tracking_uri": uri}, os.environ, None, "tracking")
    settings.check()
    return settings


def follow(report: TrainingReport, settings: TrackingSettings) -> None:
    """Tracks a finished run; failures are warnings."""
    from volspike.training.mlflow import track_run

    with working("tracking") as show:
        tracking = track_run(report, settings, show)
    for limitation in tracking.warnings:
        warn(limitation)
    out.print(tracking.summary())


def print_result(report: TrainingReport) -> None:
    """Prints a training report: folds, figures, verdicts, and the artifacts."""
    note_if_simulated(report.simulated)
    for limitation in report.warnings:
        warn(limitation)
    embargo = "" if report.split_method == "stratified" else f", embargo {report.embargo_s} s"
    by = f" by {report.fold_by}" if report.split_method == "walk_forward" else ""
    is_evidence = report.split_method != "stratified"
    figures = "all figures are out of sample" if is_evidence else "NO EVIDENCE: no figure is out of sample"
    out.print(
        f"{report.rows:,} rows of {', '.join(report.products)}, {report.start} to {report.end}, split "
        f"{report.split_method}{by}{embargo}; {figures}"
    )
    _folds(report)
    everyone = (*report.models, *report.baselines)
    if report.has_selection:
        blocks = len(report.models[0].folds) - 1
        _figures(f"Pooled test rows of {blocks} fold(s), used for the choice", report, everyone)
        _figures("Final block, which can only overrule the choice", report, everyone, final=True)
    elif report.split_method == "stratified":
        _figures("Test rows of a stratified split: NO EVIDENCE of skill", report, everyone)
    else:
        _figures("Test rows; the choice was made on the validation rows before them", report, everyone)
    _headline(report, everyone)
    _alarms(report, everyone)
    for model in report.models:
        out.print(sentence(model, report))
    _where(report)


def _folds(report: TrainingReport) -> None:
    """Prints the folds, which all models share, and the PR-AUC of every model on each."""
    shared = report.models[0].folds
    rows = [
        [
            f"{fold.fold}{' final' if fold.is_final and report.has_selection else ''}",
            fold.block,
            *(f"{count:,}" for count in (fold.train_rows, fold.validation_rows, fold.test_rows)),
            f"{fold.tau:.2e}",
            figure(fold.comparison.model.base_rate, 3),
        ]
        for fold in shared
    ]
    table("Folds", ["fold", "test block", "train", "valid.", "test", "τ", "base rate"], rows)
    if len(shared) > 1:
        everyone = (*report.models, *report.baselines)
        scores = [
            [_name(model, report), *(figure(fold.comparison.model.pr_auc, 3) for fold in model.folds)]
            for model in everyone
        ]
        table("PR-AUC by fold", ["", *(str(fold.fold) for fold in shared)], scores)


def _figures(title: str, report: TrainingReport, everyone: tuple[ModelResult, ...], *, final: bool = False) -> None:
    """Prints PR-AUC with its interval, its difference to the best baseline, and further figures.

    ``no score`` counts the rows that a model cannot score: they rank last, and their spikes count as missed.
    """
    best = report.final_baseline if final else report.best_baseline
    rows = []
    for model in everyone:
        judged = model.final if final else model.pooled
        unscored = model.folds[-1].unscored_rows if final else model.unscored_rows
        is_itself = model.model == best
        rows.append(
            [
                _name(model, report),
                figure(judged.model.pr_auc),
                span(judged.model_intervals["pr_auc"]),
                *([] if final else [figure(judged.folds.pr_auc.model, 3)]),
                "" if is_itself else _signed(judged.gain),
                "" if is_itself else span(judged.gain_intervals["pr_auc"]),
                figure(judged.model.roc_auc, 3),
                figure(judged.model.brier),
                figure(judged.model.log_loss, 3),
                f"{unscored:,}",
            ]
        )
    mean = [] if final else ["per fold"]
    heads = ["", "PR-AUC", "95 %", *mean, f"minus {best}", "95 %", "ROC-AUC", "Brier", "log loss", "no score"]
    table(title, heads, rows)


def _headline(report: TrainingReport, everyone: tuple[ModelResult, ...]) -> None:
    """Prints each PR-AUC over that of the best baseline, and onset recall at budgets of alarm minutes."""
    rows = []
    for model in everyone:
        compared = model.pooled
        ratios = (compared.pr_auc, compared.days.pr_auc, compared.calm.pr_auc)
        is_itself = model.model == report.best_baseline
        rows.append(
            [
                _name(model, report),
                *("" if is_itself else _ratio(found) for found in ratios),
                *(figure(point.model.onset_recall, 2) for point in compared.budgets),
            ]
        )
    budgets = [f"{point.budget:g} min" for point in everyone[0].pooled.budgets]
    heads = ["", "pooled (95 %)", "mean of days (95 %)", "calm rows (95 %)", *budgets]
    title = f"PR-AUC as a multiple of that of {report.best_baseline}; share of onsets caught per minutes of alarm a day"
    table(title, heads, rows)


def _ratio(found: Contrast) -> str:
    ends = found.ratio_interval
    interval = "" if isnan(ends.low) else f" ({ends.low:.2f} … {ends.high:.2f})"
    return "–" if isnan(found.ratio) else f"×{found.ratio:.2f}{interval}"


def _alarms(report: TrainingReport, everyone: tuple[ModelResult, ...]) -> None:
    """Prints the alarms at the served threshold on the rows that were used for the choice."""
    rows = []
    for model in everyone:
        judged, events = model.pooled.model, model.pooled.model_events
        rows.append(
            [
                _name(model, report),
                *(figure(value, 3) for value in (judged.precision, judged.recall, judged.f1)),
                f"{events.caught}/{events.episodes}",
                figure(events.lead_median_s, 0),
                figure(events.false_alarms_per_hour, 2),
                figure(events.alarm_share, 3),
                f"{judged.rows:,}",
            ]
        )
    heads = ["", "precision", "recall", "F1", "spikes caught", "lead s", "false/h", "in alarm", "rows"]
    table(f"Alarms at the threshold {report.request.threshold}, same rows", heads, rows)


def sentence(model: ModelResult, report: TrainingReport) -> str:
    """A verdict on the figures of a model in one line."""
    if model.model == report.best_baseline:
        return f"{model.model} is the best baseline itself: a model has to beat it"
    verdict = f"{model.model} minus {report.best_baseline}: PR-AUC {_verdict(model.pooled)}"
    if not report.has_selection:
        return verdict
    against = "" if report.final_baseline == report.best_baseline else f" minus {report.final_baseline}"
    return f"{verdict}; final block{against} {_verdict(model.final)}"


def _verdict(judged: Comparison) -> str:
    interval = span(judged.gain_intervals["pr_auc"])
    return f"{_signed(judged.gain)} ({interval}), {judged.verdict() or 'too few events for a verdict'}"


def _where(report: TrainingReport) -> None:
    for model in (*report.models, *report.baselines):
        if model.artifact is None:
            continue
        best = max(model.importance, key=model.importance.__getitem__)
        left = f"; {len(model.left_out)} columns left out: too few values" if model.left_out else ""
        tried = f"; {model.search.trials} settings tried" if model.search.trials else ""
        out.print(
            f"{model.model} → {model.artifact} ({model.seconds:.1f} s; most important feature {best}{left}{tried})"
        )
    kind = " (baseline)" if report.result(report.chosen).is_baseline else ""
    out.print(f"chosen: {report.chosen}{kind}; {report.reason}")
    if report.promoted:
        out.print(f"promoted: {report.chosen} → {report.promoted}")


def _name(model: ModelResult, report: TrainingReport) -> str:
    """The name of a model; a star marks the chosen one, a dot the baseline for comparison."""
    chosen = " *" if model.model == report.chosen else ""
    return f"{model.model}{chosen}{' ·' if model.model == report.best_baseline else ''}"


def _signed(value: float) -> str:
    return "–" if isnan(value) else f"{value:+.4f}"


def span(interval: Interval) -> str:
    """An interval, or a dash."""
    return "–" if isnan(interval.low) else f"{interval.low:.3f} … {interval.high:.3f}"
