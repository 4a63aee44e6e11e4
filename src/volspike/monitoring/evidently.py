"""Evidently's report on two samples, as a page and as JSON: for people, who know it; no decision is taken from it.

Evidently is an extra and heavy (``volspike[monitor]``): it is imported when a report is made, and never by a server.
Its own tests take rows for independent and would find drift in every market, so that it is given volspike's p-values.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from volspike.datasets.feature_file import replacing
from volspike.errors import UsageError
from volspike.monitoring.block_permutation import DriftSample
from volspike.monitoring.drift import DRIFTED_ABOVE, LOW_ABOVE, Drift

TEST_NAME: Final = "volspike block permutation, adjusted p"


def check_evidently() -> None:
    """Refuse a report that cannot be made, before anything is read.

    Raises:
        UsageError: Evidently is not installed.
    """
    if find_spec("evidently") is None:
        raise UsageError(
            "Evidently is not installed, and its report cannot be made without it; `pip install 'volspike[monitor]'`, "
            "or leave --output out: the decision does not need it"
        )


def write_report(drift: Drift, reference: DriftSample, current: DriftSample, page: Path) -> tuple[Path, Path]:
    """Writes ``page`` (HTML) and, beside it, the same as ``.json``; returns both paths.

    Columns are the features that could be judged; a feature has drifted where volspike says so.

    Raises:
        UsageError: a path that cannot be written.
    """
    names = tuple(feature.name for feature in drift.features if feature.is_judged)
    if not names:
        raise UsageError("no feature could be judged, so that there is nothing to report on: record for longer")
    data = page.with_suffix(".json")
    with _quiet():
        snapshot = _snapshot(drift, reference.columns(names), current.columns(names))
        with replacing(page) as part, replacing(data) as data_part:
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

    def known(_reference: Any, column: Any, _kind: Any, threshold: float) -> tuple[float, bool]:
        p_value = p_values[column.name]
        assert p_value is not None  # noqa: S101  only judged features are columns
        return p_value, p_value <= threshold

    test = StatTest("volspike", TEST_NAME, [ColumnType.Numerical], LOW_ABOVE)
    register_stattest(test, default_impl=known)
    definition = DataDefinition(numerical_columns=list(current.names))
    samples = [
        Dataset.from_pandas(pd.DataFrame(sample.x, columns=list(sample.names)), data_definition=definition)
        for sample in (current, reference)
    ]
    presets = [DataDriftPreset(num_method="volspike", drift_share=DRIFTED_ABOVE), DataSummaryPreset()]
    return Report(presets).run(*samples)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without telemetry, and without its libraries' warnings."""
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
