"""An ONNX export is accepted only if it agrees with the trained model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from volspike.errors import ModelError
from volspike.models import Sample
from volspike.models.calibration import Platt
from volspike.models.linear import Logistic
from volspike.training.fitting import export_calibrated, export_detector


class FaultyExport(Logistic):
    """A logistic regression whose own probability differs at one row, as after a faulty conversion."""

    off_at: int | None = None

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        probability = super().probability(x)
        if self.off_at is not None:
            probability[self.off_at] += 1e-4
        return probability


@pytest.fixture
def rows() -> Sample:
    """300 rows of three features, the first of which is informative."""
    x = np.random.default_rng(0).normal(size=(300, 3))
    return Sample(
        ("a", "b", "c"), x, (x[:, 0] > 0.5).astype(np.int8), np.exp(x[:, 0]), np.full(300, np.exp(0.5)), np.ones(300)
    )


def test_agreeing_export_is_accepted(rows: Sample) -> None:
    """The export has the graph's probabilities, NaN where a value is missing, and the largest difference."""
    detector = FaultyExport().fit(rows)
    holed = rows.x.copy()
    holed[5, 1] = np.nan
    export = export_detector(detector, holed)
    assert np.flatnonzero(np.isnan(export.probability)).tolist() == [5]
    assert 0 <= export.difference < 1e-6


def test_row_of_disagreement_is_named(rows: Sample) -> None:
    """One row that differs by 1e-4 rejects the export, and the error names it."""
    detector = FaultyExport().fit(rows)
    detector.off_at = 17
    with pytest.raises(ModelError, match=r"ONNX graph of logistic gives .* at row 17 of 300"):
        export_detector(detector, rows.x)


def test_a_calibrated_export_gives_the_calibrated_probability(rows: Sample) -> None:
    """The calibrated graph equals the calibration applied to the raw graph."""
    detector = FaultyExport().fit(rows)
    raw = export_detector(detector, rows.x)
    platt = Platt.fit(raw.probability, rows.y)
    export = export_calibrated(detector, raw, platt, rows.x)
    np.testing.assert_allclose(export.probability, platt.apply(raw.probability), atol=1e-6)
    assert export.difference >= raw.difference


@dataclass(frozen=True)
class Inconsistent(Platt):
    """A calibration whose graph differs from its own values."""

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        return super().apply(probability) + 1e-4


def test_inconsistent_calibration_is_rejected(rows: Sample) -> None:
    """A graph that differs from its calibration is rejected."""
    detector = FaultyExport().fit(rows)
    raw = export_detector(detector, rows.x)
    with pytest.raises(ModelError, match="calibrated ONNX graph of logistic"):
        export_calibrated(detector, raw, Inconsistent(Platt.fit(raw.probability, rows.y).curve), rows.x)
