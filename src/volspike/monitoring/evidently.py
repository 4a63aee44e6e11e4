"""Evidently's report on a drift check, as HTML and JSON, for readers who know it; no decision depends on it.

Evidently is a large extra (``volspike[monitor]``): it is imported when a report is written, and never by a server. Its
own tests assume independent rows and would find drift in every market, so the report shows volspike's p-values and
volspike's verdict, which also counts the features that could not be tested.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from volspike.datasets.feature_file import write_atomically
from volspike.errors import UsageError
from volspike.monitoring.block_permutation import DriftSample
from volspike.monitoring.drift import DRIFTED_ABOVE, LOW_ABOVE, Drift

TEST_NAME: Final = "volspike block permutation, adjusted p"


def check_evidently() -> None:
    """Check that Evidently is installed, before any data is read.

    Raises:
        UsageError: Evidently is not installed.
    """
    if find_spec("evidently") is None:
        raise UsageError(
            "the report needs Evidently, which is not installed; run `pip install 'volspike[monitor]'`, or omit "
            "--output: the decision does not need the report"
        )


def write_report(
    drift: Drift, reference: DriftSample, current: DriftSample, page: Path, *, simulated: bool = False
) -> tuple[Path, Path]:
    """Write ``page`` (HTML) and the same report as ``.json``; returns both paths.

    Both begin with volspike's verdict and the features that have no test. Evidently's part covers the features with a
    test, of which one has drifted if volspike's test says so; without such a feature there is no such part.

    Raises:
        UsageError: a path cannot be written.
    """
    names = tuple(feature.name for feature in drift.features if feature.is_tested)
    data = page.with_suffix(".json")
    head = _summary(drift, simulated=simulated)
    if names:
        with _quiet():
            snapshot = _snapshot(drift, reference.columns(names), current.columns(names))
            html = _with_verdict(snapshot.get_html_str(as_iframe=False), drift, head)
            document = msgspec.json.decode(snapshot.json())
    else:
        html = _PAGE.format(head=head)
        document = {"metrics": [], "tests": []}
    document["volspike"] = {
        "verdict": drift.verdict,
        "simulated": simulated,
        "notes": drift.notes,
        "not_evaluated": {feature.name: feature.note for feature in drift.features if not feature.is_tested},
        "reference": drift.reference,
        "current": drift.current,
    }
    with write_atomically(page) as part, write_atomically(data) as data_part:
        part.write_text(html, encoding="utf-8")
        data_part.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    return page, data


_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="UTF-8"><meta name="viewport" content="width=device-width, initial-scale=1.0">
<title>volspike: drift</title></head>
<body style="margin:0">
{head}
</body>
</html>
"""

_DATASET_LABEL: Final = re.compile(
    r'"Dataset Drift is (?:NOT )?detected\. Dataset drift detection threshold is [0-9.]+"'
)
"""Evidently's verdict on the data set, which is about the features with a test only."""


def _with_verdict(html: str, drift: Drift, head: str) -> str:
    """Evidently's page with volspike's verdict at the top and in place of Evidently's.

    Raises:
        UsageError: the page has another form than that of the supported versions.
    """
    label = msgspec.json.encode(f"Drift of the data set: {drift.verdict}").decode().replace("<", "\\u003c")
    html, labels = _DATASET_LABEL.subn(lambda _: label, html)
    before, body, after = html.partition("<body>")
    if not (labels and body):
        raise UsageError(
            "this version of Evidently writes other pages than 0.7, and its verdict would contradict volspike's; "
            "run `pip install 'volspike[monitor]'`, or omit --output"
        )
    return f"{before}{body}\n{head}\n{after}"


def _summary(drift: Drift, *, simulated: bool) -> str:
    """Verdict, samples, notes and the features that have no test, as HTML that needs no style sheet."""
    parts = ["<p><strong>SIMULATED market</strong>: nothing here describes a real market.</p>"] if simulated else []
    parts.append(f'<h1 style="margin:0 0 8px;font-size:24px">Drift of the data set: {escape(drift.verdict)}</h1>')
    for name, sample in (("Reference", drift.reference), ("Current", drift.current)):
        span = f", {sample.start} to {sample.end}" if sample.rows else ""
        parts.append(f"<p>{name}: {sample.rows:,} rows of {sample.hours:.1f} hours{escape(span)}</p>")
    parts += [f"<p><strong>{escape(note)}</strong></p>" for note in drift.notes]
    if untested := [feature for feature in drift.features if not feature.is_tested]:
        items = "".join(f"<li><code>{escape(each.name)}</code>: {escape(each.note)}</li>" for each in untested)
        title = f"Not evaluated: {len(untested)} of {len(drift.features)} features"
        parts.append(f"<details open><summary>{title}</summary><ul style='columns:24em'>{items}</ul></details>")
    style = "padding:16px 24px;border-bottom:3px solid #b2186b;font:15px/1.4 sans-serif;color:#111;background:#fff"
    return f'<section id="volspike" style="{style}">{"".join(parts)}</section>'


def _snapshot(drift: Drift, reference: DriftSample, current: DriftSample) -> Any:
    import pandas as pd  # noqa: PLC0415
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415
    from evidently.legacy.calculations.stattests import StatTest, register_stattest  # noqa: PLC0415
    from evidently.legacy.core import ColumnType  # noqa: PLC0415
    from evidently.presets import DataDriftPreset, DataSummaryPreset  # noqa: PLC0415

    p_values = {feature.name: feature.adjusted_p for feature in drift.features}

    def adjusted_p_value(_reference: Any, column: Any, _kind: Any, threshold: float) -> tuple[float, bool]:
        p_value = p_values[column.name]
        assert p_value is not None  # noqa: S101  only features with a test are columns
        return p_value, p_value <= threshold

    test = StatTest("volspike", TEST_NAME, [ColumnType.Numerical], LOW_ABOVE)
    register_stattest(test, default_impl=adjusted_p_value)
    definition = DataDefinition(numerical_columns=list(current.names))
    samples = [
        Dataset.from_pandas(pd.DataFrame(sample.x, columns=list(sample.names)), data_definition=definition)
        for sample in (current, reference)
    ]
    presets = [DataDriftPreset(num_method="volspike", drift_share=DRIFTED_ABOVE), DataSummaryPreset()]
    return Report(presets).run(*samples)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Evidently's telemetry and its libraries' warnings."""
    before = os.environ.get("DO_NOT_TRACK")
    os.environ["DO_NOT_TRACK"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        os.environ.pop("DO_NOT_TRACK")
        if before is not None:
            os.environ["DO_NOT_TRACK"] = before
