"""The decision whether to retrain: drift since the champion's training, live performance, and new data."""

from __future__ import annotations

from math import nan
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData
from volspike.evaluation.metrics import known
from volspike.lifecycle.challenger import Champion, rows_after
from volspike.lifecycle.promotion import read_history
from volspike.lifecycle.request import RetrainingRequest
from volspike.market import format_time, parse_time
from volspike.monitoring.block_permutation import DriftSample
from volspike.monitoring.decision import Decision, Evidence, decide, drift_days
from volspike.monitoring.drift import Drift, DriftSeverity, check_drift
from volspike.monitoring.performance_drift import PerformanceDrift, recent_performance

OWN_MARKET_HOURS: Final = 6.0
"""Hours of its own recordings from which an installation trains its first own model."""


class RetrainingNeed(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to train, the reasons, and the evidence; ``drift`` and ``performance`` are None if unknown."""

    is_needed: bool
    reasons: tuple[str, ...]
    decision: Decision
    drift: Drift | None
    performance: PerformanceDrift | None
    new_hours: float

    def figures(self) -> dict[str, Any]:
        """The evidence, for the history."""
        figures: dict[str, Any] = {"new_hours": round(self.new_hours, 2), "action": self.decision.action.value}
        if self.drift is not None:
            figures |= {"drift_share": self.drift.share, "features_judged": self.drift.tested}
        if self.performance is not None:
            live = msgspec.structs.asdict(self.performance)
            figures |= {f"live_{name}": known(value) for name, value in live.items()}
        return figures

    @property
    def severity(self) -> str:
        """The severity of the drift; "" if unknown."""
        return "" if self.drift is None or self.drift.severity is None else self.drift.severity.value


def assess_need(request: RetrainingRequest, dataset: Dataset, champion: Champion, now_ns: int) -> RetrainingNeed:
    """Compare the rows since the champion's training with those before, and read the outcomes of its predictions.

    Raises:
        UnreadableFile: the outcomes or the history cannot be read.
    """
    metadata = champion.artifact.metadata
    end_ns = champion.data_end_ns
    names = tuple(name for name in champion.artifact.features if name in dataset.names)
    newer = DriftSample.of(dataset, rows_after(dataset, end_ns), names)
    older = DriftSample.of(dataset, np.flatnonzero(dataset.time <= end_ns), names)
    drift, drift_reasons = _measure_drift(older, newer, request.seed)
    performance = recent_performance(request.outcomes, metadata)
    is_known = performance is not None and performance.is_conclusive
    decision = decide(
        Evidence(
            severity=None if drift is None else drift.severity,
            pr_auc=performance.pr_auc if performance is not None and is_known else nan,
            has_fallen=performance is not None and performance.has_fallen,
            drift_days=drift_days(_past_checks(request.artifacts, metadata.created), now_ns),
        )
    )
    hours = newer.span_s / 3600.0
    data_reasons = _new_data_reasons(champion, hours)
    return RetrainingNeed(
        is_needed=decision.action.calls_for_training or bool(data_reasons),
        reasons=(*decision.reasons, *drift_reasons, *data_reasons),
        decision=decision,
        drift=drift,
        performance=performance,
        new_hours=hours,
    )


def _measure_drift(older: DriftSample, newer: DriftSample, seed: int) -> tuple[Drift | None, tuple[str, ...]]:
    if not len(older) or not len(newer):
        side = "newer" if len(older) else "older"
        return None, (f"drift not measured: no row is {side} than the training data of the served model",)
    try:
        return check_drift(older, newer, seed=seed), ()
    except NotEnoughData as error:
        return None, (f"drift not measured: {error}",)


def _past_checks(artifacts: Path, since: str) -> list[tuple[int, DriftSeverity]]:
    """Time and severity of each drift check since the champion was trained."""
    since_ns = parse_time(since)
    checks = [(parse_time(entry.time), entry.severity) for entry in read_history(artifacts) if entry.severity]
    return [(time_ns, DriftSeverity(severity)) for time_ns, severity in checks if time_ns >= since_ns]


def _new_data_reasons(champion: Champion, new_hours: float) -> tuple[str, ...]:
    """A reason to train if there is enough new data, whatever drift and performance say."""
    if not champion.is_own:
        if new_hours < OWN_MARKET_HOURS:
            return ()
        return (f"the shipped model is served, and {new_hours:.1f} hours of this market are available for training",)
    data = champion.artifact.metadata.data
    trained_hours = (parse_time(data.end) - parse_time(data.start)) / 3.6e12
    if new_hours < max(trained_hours, OWN_MARKET_HOURS):
        return ()
    since = format_time(parse_time(data.start) // 10**9 * 10**9)
    return (f"{new_hours:.1f} new hours are as many as the model was trained on (from {since})",)
