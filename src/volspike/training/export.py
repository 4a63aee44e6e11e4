"""A detector's ONNX form, checked row by row against the library that trained it, before and after calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from volspike.errors import ModelError
from volspike.models import Detector
from volspike.models.calibration import Calibration
from volspike.models.scorer import Scorer

TOLERANCE: Final = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """The graph, what it gives for the rows that it was checked on, and its largest difference there."""

    graph: ModelProto
    probability: NDArray[np.float64]
    difference: float


def verified_export(detector: Detector, x: NDArray[np.float64]) -> Export:
    """The graph of a trained ``detector``, having agreed with it on every row of ``x`` (n, f) to 1e-5.

    Raises:
        ModelError: it did not, or the two disagree on which rows can be scored; the row is named.
    """
    graph = detector.to_onnx()
    served = _scored(detector, graph, x)
    return Export(graph, served, _difference(f"the ONNX form of {detector.name}", served, detector.probability(x), x))


def calibrated_export(detector: Detector, raw: Export, calibration: Calibration, x: NDArray[np.float64]) -> Export:
    """The graph of ``raw`` with ``calibration`` at its end, checked on the same rows ``x``.

    Raises:
        ModelError: the two disagree; the row is named.
    """
    graph = calibration.append_to(raw.graph)
    served = _scored(detector, graph, x)
    wanted = calibration.apply(raw.probability)
    difference = _difference(f"the calibrated ONNX form of {detector.name}", served, wanted, x)
    return Export(graph, served, max(raw.difference, difference))


def _scored(detector: Detector, graph: ModelProto, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return Scorer(graph.SerializeToString(), width=x.shape[1], accepts_missing=detector.accepts_missing).probability(x)


def _difference(what: str, served: NDArray[np.float64], trained: NDArray[np.float64], x: NDArray[np.float64]) -> float:
    difference = np.abs(served - trained)
    agrees = (difference <= TOLERANCE) | (np.isnan(served) & np.isnan(trained))
    if not agrees.all():
        row = int(np.flatnonzero(~agrees)[0])
        raise ModelError(
            f"{what} gives {served[row]:.9g} where the trained model gives {trained[row]:.9g}, at row {row} of "
            f"{len(x):,} ({x[row].tolist()}); nothing was written"
        )
    return float(np.nanmax(difference, initial=0.0))
