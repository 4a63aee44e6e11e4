"""An export is taken only when it agrees with what was trained."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import pytest
from numpy.typing import NDArray

from volspike.errors import ModelError
from volspike.models import DETECTORS
from volspike.training.export import verified_export


class Forgetful:
    """A logistic regression whose own probability is off at one row, as after a faulty conversion."""

    name: ClassVar[str] = "forgetful"
    accepts_missing: ClassVar[bool] = False

    def __init__(self, *, seed: int = 0) -> None:
        self._inner = DETECTORS["logistic"](seed=seed)
        self.off_at: int | None = None

    def fit(self, x: NDArray[np.float64], y: NDArray[np.int8]) -> Self:
        self._inner.fit(x, y)
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
def rows() -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """300 rows of three features, the first of which tells."""
    x = np.random.default_rng(0).normal(size=(300, 3))
    return x, (x[:, 0] > 0.5).astype(np.int8)


def test_an_export_that_agrees_is_taken(rows: tuple[NDArray[np.float64], NDArray[np.int8]]) -> None:
    """The graph's probabilities come with it, NaN where a value is missing, and so does the greatest difference."""
    x, y = rows
    detector = Forgetful().fit(x, y)
    holed = x.copy()
    holed[5, 1] = np.nan
    export = verified_export(detector, holed)
    assert np.flatnonzero(np.isnan(export.probability)).tolist() == [5]
    assert 0 <= export.difference < 1e-6


def test_the_row_of_disagreement_is_named(rows: tuple[NDArray[np.float64], NDArray[np.int8]]) -> None:
    """One row that differs by 1e-4 refuses the export and is named."""
    x, y = rows
    detector = Forgetful().fit(x, y)
    detector.off_at = 17
    with pytest.raises(ModelError, match=r"ONNX form of forgetful gives .* at row 17 of 300"):
        verified_export(detector, x)
