"""How good the served calls were, judged by what really happened a minute later. What is undefined is NaN."""

from __future__ import annotations

from math import isnan
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.evaluation import judge

BINS: Final = 10


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """Which model made a prediction, and on which kind of market; figures of two of these are never mixed.

    ``digest`` names the model's bits, ``tau`` is the future volatility from which it calls a spike.
    """

    digest: str
    name: str
    version: str
    tau: float
    simulated: bool


class CalibrationBin(msgspec.Struct, frozen=True):
    """Of the ``n`` rows whose probability was in [low, high), the mean probability and the share of spikes."""

    low: float
    high: float
    n: int
    mean_probability: float
    observed_rate: float


class Performance(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one model over the seconds since ``since`` (ns UTC) whose outcome is known.

    ``rows`` counts seconds of products, ``alerts`` those that were called. ``since`` is later than what was asked
    where there were more rows than are judged at once. ``product`` is None for all of them.
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
        """The same as plain values for JSON, None where undefined."""
        return {name: _defined(value) for name, value in msgspec.to_builtins(self).items()}


def _defined(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _defined(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_defined(inner) for inner in value]
    return None if isinstance(value, float) and isnan(value) else value


def performance_of(
    model: ServedModel | None,
    product: str | None,
    since: int,
    probability: NDArray[np.float64],
    called: NDArray[np.bool_],
    spike: NDArray[np.int8],
) -> Performance:
    """The figures of n rows: what was foreseen, whether it was called then, and whether it was a spike."""
    # whether it was called stands with the row: its threshold may have moved since
    call = judge(spike, called.astype(np.float64), 0.5)
    score = judge(spike, probability, 0.5)
    return Performance(
        model=model,
        product=product,
        since=since,
        rows=call.rows,
        alerts=int(np.count_nonzero(called)),
        base_rate=call.base_rate,
        precision=call.precision,
        recall=call.recall,
        brier=score.brier,
        pr_auc=score.pr_auc,
        calibration=calibration(probability, spike),
    )


def calibration(
    probability: NDArray[np.float64], spike: NDArray[np.int8], bins: int = BINS
) -> tuple[CalibrationBin, ...]:
    """Foreseen against observed in ``bins`` equal parts of [0, 1]; 1 is in the last; an empty one has NaN rates."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, bins - 1)
    n = np.bincount(place, minlength=bins)
    foreseen = np.bincount(place, weights=probability, minlength=bins)
    observed = np.bincount(place, weights=spike, minlength=bins)
    with np.errstate(invalid="ignore"):
        columns = zip(edges[:-1], edges[1:], n, foreseen / n, observed / n, strict=True)
    return tuple(
        CalibrationBin(float(low), float(high), int(count), float(mean), float(rate))
        for low, high, count, mean, rate in columns
    )
