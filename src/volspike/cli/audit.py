"""``volspike audit``: how much of a score comes from the split method rather than from the market."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Columns, Seed, Spike, TrainingPercentile, require_file
from volspike.cli.screen import figure, note_if_simulated, out, table, working

if TYPE_CHECKING:
    from volspike.evaluation import Interval
    from volspike.training.audit import AuditReport

EXAMPLES = "Example: volspike audit --features data/processed/features.parquet"


def run(
    features: Annotated[Path, typer.Option(help="Labelled feature file.")],
    model: Annotated[str, typer.Option(help="Model trained on each data set.")] = "random_forest",
    columns: Columns = None,
    folds: Annotated[int, typer.Option(help="Walk-forward folds.")] = 5,
    label_percentile: TrainingPercentile = 90.0,
    spike: Spike = None,
    rows: Annotated[int, typer.Option(help="Most rows of each data set.")] = 40_000,
    output: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
    seed: Seed = 0,
) -> None:
    """Score a model under two split methods on your data and on noise: a score on noise is not skill."""
    import msgspec

    from volspike.datasets.feature_file import write_atomically
    from volspike.training.audit import AuditRequest, audit

    require_file("--output", output, ".json")
    request = AuditRequest(
        features=features,
        model=model,
        columns=tuple(columns) if columns else None,
        folds=folds,
        label_percentile=label_percentile,
        spike=spike,
        rows=rows,
        seed=seed,
    )
    with working("auditing") as show:
        result = audit(request, show)
    if output is not None:
        with write_atomically(output) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(result.figures())) + b"\n")
    print_result(result)
    if output is not None:
        out.print(f"figures → {output}")


def print_result(result: AuditReport) -> None:
    """Prints the scores of each split method on each data set, and their meaning."""
    from volspike.training.audit import DATA_VARIANTS

    note_if_simulated(result.simulated)
    thinned = f", one of every {result.step} seconds" if result.step > 1 else ""
    out.print(
        f"{result.request.model} on {result.rows:,} of your rows{thinned}, "
        f"and on {result.null_rows:,} rows of a null market"
    )
    has_tau = any(isfinite(score.tau_alone.high) for score in result.scores.values())
    rows = [
        [
            data,
            protocol,
            figure(score.pr_auc, 3),
            span(score.interval),
            span(score.guessing),
            *([span(score.tau_alone)] if has_tau else []),
            figure(score.base_rate, 3),
            figure(score.persistence, 3),
            str(score.spike_events),
            f"{score.rows:,}",
        ]
        for (data, protocol), score in result.scores.items()
    ]
    chance = ["guessing, 95 %", *(["τ alone, 95 %"] if has_tau else [])]
    heads = ["data", "protocol", "PR-AUC", "95 %", *chance, "base rate", "last minute", "events", "rows"]
    table("PR-AUC of each split method on each data set", heads, rows)
    for data, meaning in DATA_VARIANTS.items():
        out.print(f"  {data}: {meaning}")
    for sentence in result.sentences():
        out.print(sentence)


def span(interval: Interval) -> str:
    """An interval, or dashes."""
    return f"{figure(interval.low, 3)} … {figure(interval.high, 3)}"
