"""Reliability of probabilities: predicted against observed share of spikes, in bins of equally many rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import nan
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import RESAMPLES, Draws, Interval, percentile_interval
from volspike.evaluation.scored import BLOCK_S, spike_events

BINS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Of ``rows`` rows with probabilities from ``low`` to ``high``: their mean, and the share that were spikes.

    ``spike_events`` counts the separate spike events of these rows: with few of them the observed rate means little.
    """

    low: float
    high: float
    rows: int
    mean_probability: float
    observed_rate: float
    spike_events: int
    interval: Interval
    """95 % interval of the observed rate by block bootstrap; Wilson's would treat neighbours as independent."""
    ratio_interval: Interval
    """95 % interval of ``ratio``."""

    @property
    def ratio(self) -> float:
        """Observed over predicted rate: above 1 the model is too cautious; NaN for a predicted rate of 0."""
        return self.observed_rate / self.mean_probability if self.mean_probability else nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """The bins from the lowest probability up, and the expected calibration error: their mean distance, by rows."""

    bins: tuple[ReliabilityBin, ...]
    expected_error: float
    expected_error_interval: Interval


def reliability(
    y: NDArray[np.int8],
    probability: NDArray[np.float64],
    time: NDArray[np.int64],
    *,
    bins: int = BINS,
    resamples: int = RESAMPLES,
) -> Reliability:
    """The reliability of n probabilities (no NaN) of outcomes ``y`` at ``time`` (ns, any order).

    Edges are quantiles of the probabilities; equal probabilities share a bin, so there may be fewer than
    ``bins``. The expected calibration error is biased upwards on few rows, as chance alone makes it greater than 0.
    """
    place = _bins(probability, bins)
    count = int(place.max()) + 1 if len(place) else 0
    columns = np.zeros((len(y), count, 3))
    columns[np.arange(len(y)), place] = np.column_stack([np.ones(len(y)), probability, y])
    rows, predicted, observed = columns.sum(axis=0).T
    draws = Draws.of(time, BLOCK_S, resamples)
    drawn = draws.sums(columns.reshape(len(y), count * 3)).reshape(len(draws), count, 3)
    rates, ratios = (
        np.divide(drawn[..., 2], drawn[..., over], out=np.full(drawn.shape[:2], nan), where=drawn[..., over] > 0)
        for over in (0, 1)
    )
    spike = y == 1
    return Reliability(
        bins=tuple(
            ReliabilityBin(
                low=float(probability[place == index].min()),
                high=float(probability[place == index].max()),
                rows=int(rows[index]),
                mean_probability=float(predicted[index] / rows[index]),
                observed_rate=float(observed[index] / rows[index]),
                spike_events=spike_events(time[spike & (place == index)]),
                interval=percentile_interval(rates[:, index]),
                ratio_interval=percentile_interval(ratios[:, index]),
            )
            for index in range(count)
        ),
        expected_error=float(_error(rows, predicted, observed)),
        expected_error_interval=percentile_interval(_error(*np.moveaxis(drawn, -1, 0))),
    )


def _bins(probability: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """Each row's bin, numbered from 0 without holes."""
    if len(probability) == 0:
        return np.zeros(0, np.int64)
    last_of_bin = -(-np.arange(1, bins) * len(probability) // bins) - 1
    edges = np.sort(probability)[last_of_bin]
    return np.unique(np.searchsorted(edges, probability, side="left"), return_inverse=True)[1]


def _error(
    rows: NDArray[np.float64], predicted: NDArray[np.float64], observed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Σ |predicted − observed| / Σ rows over the last axis: sums of probabilities and of spikes, by bin."""
    total = rows.sum(axis=-1)
    distance = np.abs(predicted - observed).sum(axis=-1)
    error = np.full(np.shape(total), nan)
    np.divide(distance, total, out=error, where=total > 0)
    return error
