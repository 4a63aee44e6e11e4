"""Performance of served predictions, from the outcomes a minute later."""

from __future__ import annotations

from math import isnan, nan
from typing import Any, Final, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.evaluation import evaluate_scores
from volspike.models import Metadata

BINS: Final = 10


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model of a prediction, and whether its market was simulated; metrics of two of these are never mixed.

    ``digest`` identifies the model file; a future volatility of at least ``tau`` is a spike. If τ differs from row to
    row, it is NaN here.
    """

    digest: str
    name: str
    version: str
    tau: float
    simulated: bool

    @classmethod
    def of(cls, metadata: Metadata, *, simulated: bool) -> Self:
        """The model with this metadata on a real or simulated market."""
        return cls(
            digest=metadata.onnx_sha256[:12],
            name=metadata.model,
            version=metadata.created,
            tau=nan if metadata.spike_definition.is_adaptive else metadata.tau,
            simulated=simulated,
        )


class CalibrationBin(msgspec.Struct, frozen=True):
    """The ``n`` rows with a probability in [low, high): their mean probability and their share of spikes."""

    low: float
    high: float
    n: int
    mean_probability: float
    observed_rate: float


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics of one model over the seconds since ``since`` (ns UTC) with known outcomes; NaN where undefined.

    ``rows`` counts seconds per product, ``alerts`` those predicted positive. ``since`` is later than requested if there
    were more rows than the limit. ``product`` is None for all products.
    """

    model: ServedModel | None
    product: str | None
    since: int
    rows: int
    alerts: int
    base_rate: float
    precision: float
    recall: float
    brier: float
    pr_auc: float
    calibration: tuple[CalibrationBin, ...]

    def figures(self) -> dict[str, Any]:
        """All fields as plain values for JSON, None where undefined."""
        return {name: _without_nan(value) for name, value in msgspec.to_builtins(self).items()}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and isnan(value) else value


def evaluate_predictions(
    model: ServedModel | None,
    product: str | None,
    since: int,
    probability: NDArray[np.float64],
    alert: NDArray[np.bool_],
    spike: NDArray[np.int8],
) -> Performance:
    """The metrics of n rows: predicted probability, whether it raised an alert, and whether a spike followed."""
    # alerts are stored with the rows: the threshold may have changed since
    decisions = evaluate_scores(spike, alert.astype(np.float64), 0.5)
    scores = evaluate_scores(spike, probability, 0.5)
    return Performance(
        model=model,
        product=product,
        since=since,
        rows=decisions.rows,
        alerts=int(np.count_nonzero(alert)),
        base_rate=decisions.base_rate,
        precision=decisions.precision,
        recall=decisions.recall,
        brier=scores.brier,
        pr_auc=scores.pr_auc,
        calibration=calibration(probability, spike),
    )


def calibration(
    probability: NDArray[np.float64], spike: NDArray[np.int8], bins: int = BINS
) -> tuple[CalibrationBin, ...]:
    """Predicted and observed rates in ``bins`` equal intervals of [0, 1], the last including 1; NaN in empty bins."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    predicted = np.bincount(place, weights=probability, minlength=bins)
    observed = np.bincount(place, weights=spike, minlength=bins)
    with np.errstate(invalid="ignore"):
        columns = zip(edges[:-1], edges[1:], n, predicted / n, observed / n, strict=True)
    return tuple(
        CalibrationBin(float(low), float(high), int(count), float(mean), float(rate))
        for low, high, count, mean, rate in columns
    )
