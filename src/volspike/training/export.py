"""A detector's ONNX form, checked row by row against the library that trained it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.errors import ModelError
from volspike.models import Detector
from volspike.models.scorer import Scorer

TOLERANCE: Final = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """The graph, what it gives for the rows that it was checked on, and its largest difference there."""

    onnx: bytes
    probability: NDArray[np.float64]
    difference: float


def verified_export(detector: Detector, x: NDArray[np.float64]) -> Export:
    """The graph of a trained ``detector``, having agreed with it on every row of ``x`` (n, f) to 1e-5.

    Raises:
        ModelError: it did not, or the two disagree on which rows can be scored; the row is named.
    """
    onnx = detector.to_onnx().SerializeToString()
    scorer = Scorer(onnx, width=x.shape[1], accepts_missing=detector.accepts_missing)
    served, trained = scorer.probability(x), detector.probability(x)
    difference = np.abs(served - trained)
    agrees = (difference <= TOLERANCE) | (np.isnan(served) & np.isnan(trained))
    if not agrees.all():
        row = int(np.flatnonzero(~agrees)[0])
        raise ModelError(
            f"the ONNX form of {detector.name} gives {served[row]:.9g} where the trained model gives "
            f"{trained[row]:.9g}, at row {row} of {len(x):,} ({x[row].tolist()}); nothing was written"
        )
    return Export(onnx, served, float(np.nanmax(difference, initial=0.0)))
