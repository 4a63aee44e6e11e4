"""Whether the served model has become worse: its figures over recent weeks against those that it was chosen by.

PR-AUC moves with the share of spikes alone: in a calmer week it falls though the model ranks as well as ever. So it is
read at the reference's base rate, precision at a cut being π·TPR / (π·TPR + (1 − π)·FPR) with the reference's π
(Siblini et al., "Master your Metrics with Calibration", IDA 2020). The model has fallen where the whole block-bootstrap
interval of that lies more than 5 % below the reference: less may be chance.
"""

from __future__ import annotations

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
from volspike.monitoring.outcome_database import OutcomeDatabase
from volspike.monitoring.performance import ServedModel

FALL: Final = 0.05
RECENT_DAYS: Final = 14.0
MOST_JUDGED: Final = 200_000
RESAMPLES: Final = 200


class PerformanceDrift(msgspec.Struct, frozen=True, kw_only=True):
    """Figures over ``rows`` predictions whose outcome is known, with 95 % intervals; NaN where undefined.

    ``pr_auc`` is at the rows' own base rate, ``pr_auc_at_reference`` at the reference's; ``spike_events`` are the
    stretches of spikes that it all rests on.
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
    def is_judgeable(self) -> bool:
        """Whether there are events enough for the figures to mean anything."""
        return self.spike_events >= LEAST_BLOCKS

    @property
    def has_fallen(self) -> bool:
        """Whether PR-AUC is more than 5 % below the reference, by more than chance."""
        return self.is_judgeable and self.pr_auc_high < (1.0 - FALL) * self.reference_pr_auc


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
    """The figures of n predictions: when they were made (ns), what was foreseen, and whether it came."""
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
    """The figures of a served model over its newest ``days`` of outcomes; None where none are kept.

    Raises:
        UnreadableFile: the file holds something else.
    """
    if not outcomes.is_file():
        return None
    database = OutcomeDatabase(outcomes)
    try:
        number = database.find(_served(model))
        judged = None if number is None else database.evaluated(number, 0, None, MOST_JUDGED)
    finally:
        database.close()
    if judged is None or len(judged.time) == 0:
        return None
    recent = judged.time >= judged.time.max() - round(days * 86_400) * SECOND_NS
    pr_auc, base_rate = reference_figures(model)
    return performance_drift(
        judged.time[recent],
        judged.probability[recent],
        judged.spike[recent],
        reference_pr_auc=pr_auc,
        reference_base_rate=base_rate,
    )


def reference_figures(model: Metadata) -> tuple[float, float]:
    """PR-AUC and base rate of the block that no choice looked at, else over all test rows; NaN where untold."""
    for name in ("model_final", "model"):
        told = model.metrics.get(name, {})
        pr_auc, base_rate = told.get("pr_auc"), told.get("base_rate")
        if pr_auc is not None and base_rate is not None:
            return float(pr_auc), float(base_rate)
    return nan, nan


def _served(model: Metadata) -> ServedModel:
    return ServedModel(
        digest=model.onnx_sha256[:12],
        name=model.model,
        version=model.created,
        tau=model.tau,
        simulated=model.simulated,
    )


class _Ranked:
    """Rows from the most to the least probable, rows of one probability being called together."""

    def __init__(self, probability: NDArray[np.float64], spike: NDArray[np.int8]) -> None:
        self._order = np.argsort(-probability, kind="stable")
        ranked = probability[self._order]
        self._spike = spike[self._order] == 1
        self._last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], np.ones(len(ranked[:1]), np.bool_)))

    def area(self, weight: NDArray[np.float64], base_rate: float) -> float:
        """PR-AUC, were the share of spikes ``base_rate``, row i counting ``weight[i]`` times; NaN for one class."""
        drawn = weight[self._order]
        hits = np.cumsum(drawn * self._spike)[self._last]
        misses = np.cumsum(drawn * ~self._spike)[self._last]
        if len(hits) == 0 or hits[-1] == 0 or misses[-1] == 0:
            return nan
        recall, alarm_rate = hits / hits[-1], misses / misses[-1]
        called = base_rate * recall + (1.0 - base_rate) * alarm_rate
        precision = np.divide(base_rate * recall, called, out=np.zeros_like(called), where=called > 0)
        return float(np.sum(np.diff(recall, prepend=0.0) * precision))
