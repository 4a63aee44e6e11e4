"""An export is taken only when it agrees with what was trained."""

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
from volspike.training.fitting import calibrated_export, verified_export


class Forgetful:
    """A logistic regression whose own probability is off at one row, as after a faulty conversion."""

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
    """300 rows of three features, the first of which tells."""
    x = np.random.default_rng(0).normal(size=(300, 3))
    return Sample(
        ("a", "b", "c"), x, (x[:, 0] > 0.5).astype(np.int8), np.exp(x[:, 0]), float(np.exp(0.5)), np.ones(300)
    )


def test_an_export_that_agrees_is_taken(rows: Sample) -> None:
    """The graph's probabilities come with it, NaN where a value is missing, and so does the greatest difference."""
    detector = Forgetful().fit(rows)
    holed = rows.x.copy()
    holed[5, 1] = np.nan
    export = verified_export(detector, holed)
    assert np.flatnonzero(np.isnan(export.probability)).tolist() == [5]
    assert 0 <= export.difference < 1e-6


def test_the_row_of_disagreement_is_named(rows: Sample) -> None:
    """One row that differs by 1e-4 refuses the export and is named."""
    detector = Forgetful().fit(rows)
    detector.off_at = 17
    with pytest.raises(ModelError, match=r"ONNX form of forgetful gives .* at row 17 of 300"):
        verified_export(detector, rows.x)


def test_a_calibrated_export_gives_the_calibrated_probability(rows: Sample) -> None:
    """The graph with the calibration at its end gives what the calibration makes of the graph without it."""
    detector = Forgetful().fit(rows)
    raw = verified_export(detector, rows.x)
    platt = Platt.fit(raw.probability, rows.y)
    export = calibrated_export(detector, raw, platt, rows.x)
    np.testing.assert_allclose(export.probability, platt.apply(raw.probability), atol=1e-6)
    assert export.difference >= raw.difference


@dataclass(frozen=True)
class Lying(Platt):
    """A calibration whose graph is not what it says."""

    def apply(self, probability: NDArray[np.float64]) -> NDArray[np.float64]:
        return super().apply(probability) + 1e-4


def test_a_calibration_that_the_graph_does_not_share_is_refused(rows: Sample) -> None:
    """A graph whose calibrated probability is another than the calibration's own is no export."""
    detector = Forgetful().fit(rows)
    raw = verified_export(detector, rows.x)
    with pytest.raises(ModelError, match="calibrated ONNX form of forgetful"):
        calibrated_export(detector, raw, Lying(Platt.fit(raw.probability, rows.y).curve), rows.x)
