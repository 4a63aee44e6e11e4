"""``volspike report``: trained models evaluated on held-out rows, as HTML page or PDF, and their model cards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volspike.cli.options import Venue, require_file
from volspike.cli.screen import figure, note_if_simulated, out, table, warn, working
from volspike.errors import UsageError
from volspike.progress import part

if TYPE_CHECKING:
    from volspike.reporting.evaluate import EvaluationReport

EXAMPLES = "Example: volspike report --features data/processed/features.parquet --artifacts models/artifacts"


def run(
    features: Annotated[
        Path | None, typer.Option(help="Labelled feature file: the one used for training, or newer rows.")
    ] = None,
    artifacts: Annotated[Path, typer.Option(help="Folder of the artifacts, or one artifact.")] = Path(
        "models/artifacts"
    ),
    output: Annotated[
        list[Path], typer.Option(help="File to write, .pdf or .html (interactive, one file); may be repeated.")
    ] = [Path("reports/model_eval.pdf")],  # noqa: B006  typer reads it
    venue: Venue = None,
    cards: Annotated[
        bool, typer.Option("--cards", help="Write a model card, card.md, into the folder of each artifact.")
    ] = False,
) -> None:
    """Score trained models on held-out rows, compared with the best baseline, in a report (PDF or HTML)."""
    if features is None and not cards:
        raise UsageError("nothing to do: name rows with --features, or use --cards")
    for file in output:
        require_file("--output", file, ".pdf", ".html")
    if features is not None:
        _report(features, artifacts, output, venue)
    if cards:
        from volspike.reporting.card import write_cards

        for file in write_cards(artifacts):
            out.print(f"→ {file}")


def _report(features: Path, artifacts: Path, output: list[Path], venue: str | None) -> None:
    from volspike.reporting.evaluate import evaluate
    from volspike.reporting.pages import write_pdf
    from volspike.reporting.report_page import write_page

    with working("evaluating") as show:
        evaluation = evaluate(features, artifacts, part(show, 0.0, 0.8), venue=venue)
        for index, file in enumerate(output):
            write = write_page if file.suffix.lower() == ".html" else write_pdf
            write(evaluation, file, part(show, 0.8 + 0.2 * index / len(output), 0.8 + 0.2 * (index + 1) / len(output)))
    print_result(evaluation)
    for file in output:
        out.print(f"→ {file}")


def print_result(evaluation: EvaluationReport) -> None:
    """Prints the figures of each model and a verdict."""
    from volspike.reporting.format import no_evidence
    from volspike.reporting.pages import verdict_of

    note_if_simulated(evaluation.simulated)
    if banner := no_evidence(evaluation.without_evidence):
        out.print(banner, style="bold magenta")
    for sentence in evaluation.left_out:
        warn(sentence)
    for model in evaluation.models:
        for sentence in model.warnings:
            warn(f"{model.title}: {sentence}")
    rows = [
        [
            f"{model.title}{' *' if model.is_served else ''}",
            "held out" if model.is_evidence else "NO EVIDENCE",
            figure(model.comparison.model.pr_auc),
            model.comparison.baseline_name,
            figure(model.comparison.baseline.pr_auc),
            figure(model.comparison.model.roc_auc, 3),
            figure(model.comparison.model.brier),
            figure(model.comparison.model.base_rate, 3),
            str(model.comparison.spike_events),
            f"{model.comparison.model.rows:,}",
        ]
        for model in evaluation.models
    ]
    heads = ["", "rows are", "PR-AUC", "baseline", "PR-AUC", "ROC-AUC", "Brier", "base rate", "events", "rows"]
    table("Evaluated rows" if evaluation.without_evidence else "Held-out rows", heads, rows, 2)
    for model in evaluation.models:
        out.print(verdict_of(model))
