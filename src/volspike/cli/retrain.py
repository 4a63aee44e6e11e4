"""``volspike retrain``: learn anew from what was recorded, compare with what is served, and serve what is not worse."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working

if TYPE_CHECKING:
    from volspike.lifecycle.challenger import Verdict
    from volspike.lifecycle.need import RetrainingNeed
    from volspike.lifecycle.retrain import RetrainingResult

EXAMPLES = "Example: volspike retrain --if-needed"


def run(
    if_needed: Annotated[
        bool, typer.Option("--if-needed", help="Train only where drift, delayed labels or new data call for it.")
    ] = False,
    only_shadow: Annotated[
        bool, typer.Option("--only-shadow", help="Look at a challenger that waits in shadow, and do nothing else.")
    ] = False,
    features: Annotated[
        Path | None, typer.Option(help="A labelled feature file to learn from, instead of the recordings.")
    ] = None,
    tape: Annotated[Path, typer.Option(help="The folder that `volspike up` records to.")] = Path("data/raw"),
    days: Annotated[float, typer.Option(help="How many days of the recordings are replay_tapes, the newest.")] = 14.0,
    models: Annotated[list[str], typer.Option(help="Detectors that may become the challenger.")] = [  # noqa: B006
        "har",
        "logistic",
        "lightgbm",
    ],
    shadow_hours: Annotated[
        float, typer.Option(help="Hours of recorded market that a challenger must stand beside the champion; 0: none.")
    ] = 24.0,
    folds: Annotated[int, typer.Option(help="Test blocks of walk_forward; the newest is the one that decides.")] = 5,
    search: Annotated[int, typer.Option(help="Settings tried of each model on training rows; 0: its defaults.")] = 0,
    outcomes: Annotated[Path, typer.Option(help="Live predictions and what became of them (SQLite).")] = Path(
        "data/outcomes.sqlite"
    ),
    artifacts: Annotated[Path, typer.Option(help="Where the models are.")] = Path("models/artifacts"),
    results: Annotated[Path, typer.Option(help="Where the server looks for the last result, for its metrics.")] = Path(
        "models/results"
    ),
    trigger: Annotated[str, typer.Option(help="Who asked, for the history.")] = "by hand",
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.", min=0, max=2**32 - 1)] = 0,
    mlflow_uri: Annotated[
        str | None, typer.Option(help="Track the run in MLflow, and move its aliases with what is served.")
    ] = None,
) -> None:
    """Train a challenger on recorded data and promote it once it is no worse than the champion.

    A challenger is compared with the champion on rows held out from both, then scores in shadow before it is promoted.
    A run that fails changes nothing. Every run is a line in the history.
    """
    from volspike.cli.train import tracking_settings
    from volspike.lifecycle.request import RetrainingRequest
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
    with working("retraining") as show:
        done = retrain(request, show)
    tell(done)


def tell(done: RetrainingResult) -> None:
    """Prints how the run ended, and by which figures."""
    note_if_simulated(done.simulated)
    for caveat in done.warnings:
        warn(caveat)
    if done.need is not None:
        _need(done.need)
    if done.verdict is not None and done.verdict.figures:
        _figures(done.verdict)
    for reason in done.reasons:
        out.print(f"  {reason}")
    ends = {
        "no_challenger": "no challenger waits in shadow",
        "not_needed": f"nothing to do: {done.model} goes on",
        "waits": f"{done.model} waits in shadow → {done.place}",
        "rejected": f"{done.model} is not served: what is in production goes on",
        "promoted": f"in service: {done.model} → {done.place}",
    }
    out.print(ends[done.outcome])


def _need(need: RetrainingNeed) -> None:
    drift = need.severity or "not known"
    live = "not known" if need.performance is None else figure(need.performance.pr_auc, 3)
    out.print(f"new hours {need.new_hours:.1f}; drift {drift}; live PR-AUC {live}; {need.decision.action.value}")


def _figures(verdict: Verdict) -> None:
    rows = [[name, _shown(value)] for name, value in verdict.figures.items()]
    table("Challenger and champion on rows that neither has seen", ["figure", "value"], rows)


def _shown(value: object) -> str:
    return figure(value) if isinstance(value, float) else "–" if value is None else str(value)
