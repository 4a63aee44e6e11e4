"""Evidently's report on a drift check, as HTML and JSON, for readers who know it; no decision depends on it.

Evidently is a large extra (``volspike[monitor]``): it is imported when a report is written, and never by a server. Its
own tests assume independent rows and would find drift in every market, so the report shows volspike's p-values.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

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


def write_report(drift: Drift, reference: DriftSample, current: DriftSample, page: Path) -> tuple[Path, Path]:
    """Write ``page`` (HTML) and the same report as ``.json``; returns both paths.

    Columns are the features with a test; a feature has drifted if volspike's test says so.

    Raises:
        UsageError: no feature has a test, or a path cannot be written.
    """
    names = tuple(feature.name for feature in drift.features if feature.is_tested)
    if not names:
        raise UsageError("drift report: no feature has a test; record more")
    data = page.with_suffix(".json")
    with _quiet():
        snapshot = _snapshot(drift, reference.columns(names), current.columns(names))
        with write_atomically(page) as part, write_atomically(data) as data_part:
            part.write_text(snapshot.get_html_str(as_iframe=False), encoding="utf-8")
            data_part.write_text(snapshot.json(), encoding="utf-8")
    return page, data


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
