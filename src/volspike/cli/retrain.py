"""``volspike retrain``: trains a challenger, compares it with the champion, and promotes it if it is no worse."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from volspike.cli.options import Results, Seed, handling
from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working

if TYPE_CHECKING:
    from volspike.lifecycle.challenger import Verdict
    from volspike.lifecycle.need import RetrainingNeed
    from volspike.lifecycle.retrain import RetrainingResult

EXAMPLES = "Example: volspike retrain --if-needed"


def run(
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="Train only if drift, delayed labels or new data require it.")
    ] = False,
    only_shadow: Annotated[
        bool, typer.Option("--only-shadow", help="Only evaluate a challenger that waits in shadow.")
    ] = False,
    features: Annotated[
        Path | None, typer.Option(help="Labelled feature file to train on, instead of the recordings.")
    ] = None,
    tape: Annotated[Path, typer.Option(help="Folder of the tapes that `volspike up` records.")] = Path("data/raw"),
    days: Annotated[float, typer.Option(help="Newest days of the recordings to replay.")] = 14.0,
    models: Annotated[list[str], typer.Option(help="Models that may become the challenger.")] = [  # noqa: B006
        "har",
        "logistic",
        "lightgbm",
    ],
    shadow_hours: Annotated[
        float, typer.Option(help="Hours of recorded market that a challenger scores in shadow; 0 for none.")
    ] = 24.0,
    folds: Annotated[int, typer.Option(help="Walk-forward test blocks; the newest one decides.")] = 5,
    search: Annotated[int, typer.Option(help="Settings tried per model on training rows; 0 for the defaults.")] = 0,
    outcomes: Annotated[Path, typer.Option(help="Live predictions and their outcomes (SQLite).")] = Path(
        "data/outcomes.sqlite"
    ),
    artifacts: Annotated[Path, typer.Option(help="Folder of the artifacts.")] = Path("models/artifacts"),
    results: Results = Path("models/results"),
    trigger: Annotated[str, typer.Option(help="Trigger, for the history.")] = "by hand",
    seed: Seed = 0,
    mlflow_uri: Annotated[
        str | None, typer.Option(help="Track the run in MLflow and move its aliases with the served model.")
    ] = None,
) -> None:
    """Train a challenger on recorded data and promote it once it is no worse than the champion.

    A challenger is compared with the champion on rows held out from both, then scores in shadow before it is promoted.
    A run that fails changes nothing. Every run is a line in the history.
    """
    from volspike.cli.train import tracking_settings
    from volspike.lifecycle.need import RetrainingRequest
    from volspike.lifecycle.retrain import retrain

    request = RetrainingRequest(
        features=features,
        tape=tape,
        artifacts=artifacts,
        outcomes=outcomes,
        results=results,
        models=tuple(models),
        if_needed=if_needed,
        only_shadow=only_shadow,
        trigger=trigger,
        days=days,
        shadow_hours=shadow_hours,
        folds=folds,
        search=search,
        seed=seed,
        tracking=tracking_settings(mlflow_uri),
    )
    with handling(_exit, signal.SIGTERM), working("retraining") as show:
        done = retrain(request, show)
    print_result(done)


def _exit(number: int, _: object) -> NoReturn:
    """SIGTERM ends the run as an error does, so that it removes its temporary files."""
    sys.exit(128 + number)


def print_result(done: RetrainingResult) -> None:
    """Prints the outcome of the run and the figures behind it."""
    note_if_simulated(done.simulated)
    for limitation in done.warnings:
        warn(limitation)
    if done.need is not None:
        _need(done.need)
    if done.verdict is not None and done.verdict.figures:
        _figures(done.verdict)
    for reason in done.reasons:
        out.print(f"  {reason}")
    ends = {
        "no_challenger": "no challenger waits in shadow",
        "not_needed": f"nothing to do: {done.model} stays in production",
        "waits": f"{done.model} waits in shadow → {done.place}",
        "rejected": f"{done.model} is not promoted: the champion stays in production",
        "promoted": f"promoted: {done.model} → {done.place}",
    }
    out.print(ends[done.outcome])


def _need(need: RetrainingNeed) -> None:
    drift = need.severity or "unknown"
    live = "unknown" if need.performance is None else figure(need.performance.pr_auc, 3)
    out.print(f"new hours {need.new_hours:.1f}; drift {drift}; live PR-AUC {live}; {need.decision.action.value}")


def _figures(verdict: Verdict) -> None:
    rows = [[name, _shown(value)] for name, value in verdict.figures.items()]
    table("Challenger and champion on rows held out from both", ["figure", "value"], rows)


def _shown(value: object) -> str:
    return figure(value) if isinstance(value, float) else "–" if value is None else str(value)
