"""Performance drift: whether the served model has become worse than its reference metrics, over recent weeks.

PR-AUC depends on the share of spikes: in a calmer week it falls although the model ranks as well as before. It is
therefore computed at the reference's base rate π, with precision π·TPR / (π·TPR + (1 − π)·FPR) at each threshold
(Siblini et al., "Master your Metrics with Calibration", IDA 2020). Performance has fallen if the complete
block-bootstrap interval is more than 5 % below the reference.
"""

from __future__ import annotations

from contextlib import closing
from math import nan
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from volspike.evaluation.bootstrap import LEAST_BLOCKS, Draws, percentile_interval
from volspike.evaluation.scored import BLOCK_S, spike_events
from volspike.market import SECOND_NS
from volspike.models import Metadata
from volspike.monitoring.outcome_database import OutcomeDatabase, database_errors
from volspike.monitoring.performance import ServedModel

FALL: Final = 0.05
RECENT_DAYS: Final = 14.0
MAX_EVALUATED_ROWS: Final = 200_000
RESAMPLES: Final = 200


class PerformanceDrift(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics over ``rows`` predictions with known outcomes, with 95 % intervals; NaN where undefined.

    ``pr_auc`` is at the rows' base rate, ``pr_auc_at_reference`` at the reference's. ``spike_events`` is the number of
    spike events among the rows.
    """

    rows: int
    spike_events: int
    base_rate: float
    pr_auc: float
    brier: float
    brier_low: float
    brier_high: float
    pr_auc_at_reference: float
    pr_auc_low: float
    pr_auc_high: float
    reference_pr_auc: float
    reference_base_rate: float

    @property
    def is_conclusive(self) -> bool:
        """Whether there are enough spike events for a comparison."""
        return self.spike_events >= LEAST_BLOCKS

    @property
    def has_fallen(self) -> bool:
        """Whether PR-AUC is significantly more than 5 % below the reference."""
        return self.is_conclusive and self.pr_auc_high < (1.0 - FALL) * self.reference_pr_auc


def performance_drift(
    time: NDArray[np.int64],
    probability: NDArray[np.float64],
    spike: NDArray[np.int8],
    *,
    reference_pr_auc: float = nan,
    reference_base_rate: float = nan,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PerformanceDrift:
    """The metrics of n predictions: their time (ns), probability, and whether a spike followed."""
    base_rate = float(np.mean(spike)) if len(spike) else nan
    at_rate = base_rate if reference_base_rate != reference_base_rate else reference_base_rate  # noqa: PLR0124
    ranked = _Ranked(probability, spike)
    once = np.ones(len(spike))
    draws = Draws.of(time, BLOCK_S, resamples, seed)
    areas = np.array([ranked.area(draws.weight(draw).astype(np.float64), at_rate) for draw in range(len(draws))])
    losses = (probability - spike) ** 2
    sums = draws.sums(np.column_stack([losses, once])) if len(draws) else np.empty((0, 2))
    with np.errstate(invalid="ignore"):
        brier = percentile_interval(sums[:, 0] / sums[:, 1])
    pr_auc = percentile_interval(areas)
    return PerformanceDrift(
        rows=len(spike),
        spike_events=spike_events(time[spike == 1]),
        base_rate=base_rate,
        pr_auc=ranked.area(once, base_rate),
        brier=float(losses.mean()) if len(losses) else nan,
        brier_low=brier.low,
        brier_high=brier.high,
        pr_auc_at_reference=ranked.area(once, at_rate),
        pr_auc_low=pr_auc.low,
        pr_auc_high=pr_auc.high,
        reference_pr_auc=reference_pr_auc,
        reference_base_rate=reference_base_rate,
    )


def recent_performance(outcomes: Path, model: Metadata, days: float = RECENT_DAYS) -> PerformanceDrift | None:
    """The metrics of a served model over its newest ``days`` of outcomes; None without outcomes.

    Raises:
        UnreadableFile: the file cannot be read, or is not an outcome database.
    """
    database = OutcomeDatabase.open_reader(outcomes)
    if database is None:
        return None
    with closing(database), database_errors(outcomes):
        number = database.find(ServedModel.of(model, simulated=model.simulated))
        evaluated = None if number is None else database.evaluated(number, 0, None, MAX_EVALUATED_ROWS)
    if evaluated is None or len(evaluated.time) == 0:
        return None
    recent = evaluated.time >= evaluated.time.max() - round(days * 86_400) * SECOND_NS
    pr_auc, base_rate = reference_metrics(model)
    return performance_drift(
        evaluated.time[recent],
        evaluated.probability[recent],
        evaluated.spike[recent],
        reference_pr_auc=pr_auc,
        reference_base_rate=base_rate,
    )


def reference_metrics(model: Metadata) -> tuple[float, float]:
    """PR-AUC and base rate on the final block, which no model was fitted to, or else on all test rows; or NaN."""
    for name in ("model_final", "model"):
        metrics = model.metrics.get(name, {})
        pr_auc, base_rate = metrics.get("pr_auc"), metrics.get("base_rate")
        if pr_auc is not None and base_rate is not None:
            return float(pr_auc), float(base_rate)
    return nan, nan


class _Ranked:
    """Rows by descending probability; rows of equal probability are predicted together."""

    def __init__(self, probability: NDArray[np.float64], spike: NDArray[np.int8]) -> None:
        self._order = np.argsort(-probability, kind="stable")
        ranked = probability[self._order]
        self._spike = spike[self._order] == 1
        self._last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), np.bool_)))

    def area(self, weight: NDArray[np.float64], base_rate: float) -> float:
        """PR-AUC at ``base_rate``, with row i counted ``weight[i]`` times; NaN if there is one class only."""
        counts = weight[self._order]
        hits = np.cumsum(counts * self._spike)[self._last]
        misses = np.cumsum(counts * ~self._spike)[self._last]
        if len(hits) == 0 or hits[-1] == 0 or misses[-1] == 0:
            return nan
        recall, alarm_rate = hits / hits[-1], misses / misses[-1]
        predicted = base_rate * recall + (1.0 - base_rate) * alarm_rate
        precision = np.divide(base_rate * recall, predicted, out=np.zeros_like(predicted), where=predicted > 0)
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))
