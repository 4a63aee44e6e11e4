"""``volspike audit``: how much of a score is the market's, and how much the protocol's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.screen import figure, note_if_simulated, out, table, working

if TYPE_CHECKING:
    from volspike.evaluation import Interval
    from volspike.training.audit import AuditReport

EXAMPLES = "Example: volspike audit --features data/processed/features.parquet"


def run(
    features: Annotated[Path, typer.Option(help="A labelled feature file.")],
    model: Annotated[str, typer.Option(help="The model that is trained on each data set.")] = "random_forest",
    columns: Annotated[
        list[str] | None, typer.Option(help="Features to learn from, or all; by default what suits the file.")
    ] = None,
    folds: Annotated[int, typer.Option(help="Folds of walk_forward.")] = 5,
    label_percentile: Annotated[
        float, typer.Option(help="τ's percentile of the training rows.", min=0, max=100)
    ] = 90.0,
    rows: Annotated[int, typer.Option(help="At most so many rows of each data set.")] = 40_000,
    output: Annotated[Path | None, typer.Option(help="Write the figures to this file, as JSON.")] = None,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Score a model under two split methods on your data and on noise: a score on noise is not skill."""
    import msgspec

    from volspike.datasets.feature_file import replacing
    from volspike.training.audit import AuditRequest, audit

    request = AuditRequest(
        features=features,
        model=model,
        columns=tuple(columns) if columns else None,
        folds=folds,
        label_percentile=label_percentile,
        rows=rows,
        seed=seed,
    )
    with working("auditing") as show:
        result = audit(request, show)
    if output is not None:
        with replacing(output) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(result.figures())) + b"\n")
    tell(result)
    if output is not None:
        out.print(f"figures → {output}")


def tell(result: AuditReport) -> None:
    """Prints the scores, and what they say of each protocol."""
    from volspike.training.audit import DATA_VARIANTS

    note_if_simulated(result.simulated)
    thinned = f", those of every {result.step}th second" if result.step > 1 else ""
    out.print(
        f"{result.request.model} on {result.rows:,} of your rows{thinned}, "
        f"and on {result.null_rows:,} rows of a null market"
    )
    rows = [
        [
            data,
            protocol,
            figure(score.pr_auc, 3),
            span(score.interval),
            span(score.guessing),
            figure(score.base_rate, 3),
            figure(score.persistence, 3),
            str(score.spike_events),
            f"{score.rows:,}",
        ]
        for (data, protocol), score in result.scores.items()
    ]
    heads = ["data", "protocol", "PR-AUC", "95 %", "guessing, 95 %", "base rate", "last minute", "events", "rows"]
    table("What each protocol makes of each data set", heads, rows)
    for data, meaning in DATA_VARIANTS.items():
        out.print(f"  {data}: {meaning}")
    for sentence in result.sentences():
        out.print(sentence)


def span(interval: Interval) -> str:
    """An interval, or dashes."""
    return f"{figure(interval.low, 3)} … {figure(interval.high, 3)}"
