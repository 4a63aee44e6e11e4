"""The rendered pages of a report: text, ink and overflow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypdfium2
import pytest

from volspike.reporting.evaluate import EvaluationReport, evaluate

TITLE = "Evaluation of volatility spike models"


@dataclass(frozen=True)
class Page:
    """Text without line breaks, the share of pixels that are not white, and how far text reaches beyond the page."""

    text: str
    inked: float
    overflow: float


def evaluated(features: Path, artifacts: Path) -> EvaluationReport:
    """An evaluation with few resamples per interval: these tests do not check its width."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("volspike.reporting.evaluate.RESAMPLES", 50)
        patch.setattr("volspike.reporting.evaluate.PART_RESAMPLES", 20)
        return evaluate(features, artifacts, lambda step: None)


def pages(pdf: bytes) -> list[Page]:
    """Every page of a PDF, rendered."""
    document = pypdfium2.PdfDocument(pdf)
    try:
        return [_page(document[number]) for number in range(len(document))]
    finally:
        document.close()


def _page(page: pypdfium2.PdfPage) -> Page:
    text = page.get_textpage()
    width, height = page.get_size()
    told = text.get_text_range()
    boxes = np.array([text.get_charbox(index) for index in range(text.count_chars())])
    left, bottom, right, top = boxes.min(axis=0)[[0, 1]].tolist() + boxes.max(axis=0)[[2, 3]].tolist()
    dots = page.render(scale=0.5).to_numpy()
    return Page(" ".join(told.split()), float(np.mean(dots < 250)), max(-left, -bottom, right - width, top - height))
