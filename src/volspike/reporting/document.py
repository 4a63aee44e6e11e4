"""An evaluation as a PDF document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from volspike.datasets.feature_file import replacing
from volspike.reporting.evaluate import Evaluation
from volspike.reporting.method_page import write_method_page
from volspike.reporting.model_pages import write_model_pages
from volspike.reporting.paper import Paper
from volspike.reporting.title_page import write_title_page


def document(evaluation: Evaluation, on_step: Callable[[str], None]) -> bytes:
    """The PDF: a title page, each model's pages, the method."""
    market = "SIMULATED market, " if evaluation.simulated else ""
    footer = f"volspike: {market}{evaluation.features.name}, {evaluation.start[:10]} to {evaluation.end[:10]}"
    paper = Paper("Evaluation of volatility spike models", footer)
    write_title_page(paper, evaluation)
    for model in evaluation.models:
        on_step(f"{model.title}: drawn")
        write_model_pages(paper, model)
    write_method_page(paper, evaluation)
    return paper.content()


def write_document(evaluation: Evaluation, file: Path, on_step: Callable[[str], None]) -> None:
    """Writes the PDF to ``file``, whole or not at all.

    Raises:
        UsageError: it cannot be written.
    """
    with replacing(file) as part:
        part.write_bytes(document(evaluation, on_step))
