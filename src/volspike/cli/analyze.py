"""``volspike analyze``: importance and redundancy of features, and a recommended selection."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Seed, TrainingPercentile, require_folder
from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working
from volspike.progress import Step

if TYPE_CHECKING:
    from volspike.training.analysis import FeatureAnalysis

EXAMPLES = "Example: volspike analyze --features data/processed/features.parquet --output reports/feature_analysis"

SHOWN = 15


def run(
    features: Annotated[Path, typer.Option(help="Labelled feature file.")],
    output: Annotated[Path, typer.Option(help="Folder for the four result files.")] = Path("reports/feature_analysis"),
    model: Annotated[str, typer.Option(help="Model whose features are rated.")] = "lightgbm",
    columns: Annotated[
        list[str] | None, typer.Option(help="Features to rate, or all (default: those that suit the file).")
    ] = None,
    folds: Annotated[int, typer.Option(help="Walk-forward folds; the newest is not used.")] = 5,
    label_percentile: TrainingPercentile = 90.0,
    repeats: Annotated[int, typer.Option(help="Permutations of each feature in each fold.", min=1)] = 3,
    seed: Seed = 0,
) -> None:
    """Rate features on held-out rows: importance, correlation, and which of them to train on."""
    from volspike.training.analysis import AnalysisRequest, analyze, write_analysis

    require_folder("--output", output)
    request = AnalysisRequest(
        features=features,
        model=model,
        columns=tuple(columns) if columns else None,
        folds=folds,
        label_percentile=label_percentile,
        repeats=repeats,
        seed=seed,
    )
    with working("analyzing") as show:
        result = analyze(request, show)
        show(Step("drawing plots", 0.95))
        files = write_analysis(result, output)
    print_result(result)
    for file in files:
        out.print(f"→ {file}")
    out.print(f"to train on them: volspike train --features {features} --columns $(cat {files[-1]})")


def print_result(result: FeatureAnalysis) -> None:
    """Prints the recommended features, and the most important ones."""
    note_if_simulated(result.simulated)
    for sentence in result.warnings:
        warn(sentence)
    out.print(
        f"{result.request.model}, {result.folds} walk_forward fold(s), {result.rows:,} held-out rows; "
        f"PR-AUC {figure(result.pr_auc, 3)}, base rate {figure(result.base_rate, 3)}"
    )
    ranked = sorted(
        (each for each in result.features if each.is_used), key=lambda feature: (feature.group, -feature.alone.mean)
    )[:SHOWN]
    rows = [
        [
            feature.name,
            figure(feature.together.mean),
            figure(feature.together.low),
            figure(feature.alone.mean),
            figure(feature.own, 3),
            str(feature.group + 1),
            "yes" if feature.name in result.recommended else "",
        ]
        for feature in ranked
    ]
    heads = ["feature", "PR-AUC lost with group", "lower bound", "alone", "model's own", "group", "recommended"]
    table("PR-AUC lost when a feature is permuted in time", heads, rows)
    out.print(f"recommended: {', '.join(result.recommended)}")
