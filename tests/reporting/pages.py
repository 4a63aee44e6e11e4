"""The rendered pages of a report: text, ink and overflow; and the parts of an HTML page."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

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


class _Elements(HTMLParser):
    """The elements that load something, and the contents of scripts by id."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.scripts: dict[str, str] = {}
        self.ids: list[str] = []
        self._script: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.loaded += [f"{tag} {values[name]}" for name in ("src", "href", "srcset") if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        self._script = values.get("id") or f"{len(self.scripts)}" if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is not None:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data


@dataclass(frozen=True)
class HtmlPage:
    """What an HTML page loads, its ids, and the data that its script reads."""

    loaded: list[str]
    ids: list[str]
    charts: list[dict[str, Any]]
    days: list[dict[str, Any]]

    @classmethod
    def of(cls, html: str) -> HtmlPage:
        found = _Elements()
        found.feed(html)
        return cls(found.loaded, found.ids, json.loads(found.scripts["charts"]), json.loads(found.scripts["days"]))

    def columns(self, chart: str) -> list[dict[str, Any]]:
        """The columns of every source of a chart."""
        (item,) = [each["item"] for each in self.charts if each["id"] == chart]
        return list(_source_columns(item))


def _source_columns(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("name") == "ColumnDataSource":
            yield dict(value["attributes"]["data"].get("entries", []))
        for each in value.values():
            yield from _source_columns(each)
    elif isinstance(value, list):
        for each in value:
            yield from _source_columns(each)


def day_column(day: dict[str, Any], name: str, kind: str) -> list[float]:
    """A column of a timeline's day, decoded as the page's script does."""
    values: list[float] = np.frombuffer(b64decode(day["columns"][name]), kind).tolist()
    return values
