"""An ONNX export is accepted only if it agrees with the trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from volspike.errors import ModelError
from volspike.models import DETECTORS, Sample
from volspike.models.calibration import Platt
from volspike.models.detector import Trial
from volspike.training.fitting import export_calibrated, export_detector


class Forgetful:
    """A logistic regression whose own probability differs at one row, as after a faulty conversion."""

    name: ClassVar[str] = "forgetful"
    accepts_missing: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0, settings: Mapping[str, Any] | None = None) -> None:
        self._inner = DETECTORS["logistic"](seed=seed)
        self.off_at: int | None = None

    @classmethod
    def columns(cls, offered: Sequence[str]) -> tuple[str, ...]:
        return tuple(offered)

    @classmethod
    def space(cls, trial: Trial) -> dict[str, Any]:
        return {}

    def fit(self, sample: Sample) -> Self:
        self._inner.fit(sample)
        return self

    def probability(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        probability = self._inner.probability(x)
        if self.off_at is not None:
            probability[self.off_at] += 1e-4
        return probability

    def importance(self) -> NDArray[np.float64]:
        return self._inner.importance()

    def thresholds(self) -> dict[str, float]:
        return {}

    def to_onnx(self) -> Any:
        return self._inner.to_onnx()


@pytest.fixture
def rows() -> Sample:
    """300 rows of three features, the first of which is informative."""
    x = np.random.default_rng(0).normal(size=(300, 3))
    return Sample(
        ("a", "b", "c"), x, (x[:, 0] > 0.5).astype(np.int8), np.exp(x[:, 0]), float(np.exp(0.5)), np.ones(300)
    )


def test_agreeing_export_is_accepted(rows: Sample) -> None:
    """The export has the graph's probabilities, NaN where a value is missing, and the largest difference."""
    detector = Forgetful().fit(rows)
    holed = rows.x.copy()
    holed[5, 1] = np.nan
    export = export_detector(detector, holed)
    assert np.flatnonzero(np.isnan(export.probability)).tolist() == [5]
    assert 0 <= export.difference < 1e-6


def test_row_of_disagreement_is_named(rows: Sample) -> None:
    """One row that differs by 1e-4 rejects the export, and the error names it."""
    detector = Forgetful().fit(rows)
    detector.off_at = 17
    with pytest.raises(ModelError, match=r"ONNX graph of forgetful gives .* at row 17 of 300"):
        export_detector(detector, rows.x)


def test_a_calibrated_export_gives_the_calibrated_probability(rows: Sample) -> None:
    """The calibrated graph equals the calibration applied to the raw graph."""
    detector = Forgetful().fit(rows)
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
    detector = Forgetful().fit(rows)
    raw = export_detector(detector, rows.x)
    with pytest.raises(ModelError, match="calibrated ONNX graph of forgetful"):
        export_calibrated(detector, raw, Inconsistent(Platt.fit(raw.probability, rows.y).curve), rows.x)
