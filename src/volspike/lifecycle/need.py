"""What a retraining run is asked for.

Whether a new model is called for: what drift and delayed labels say, and whether there is anything new to learn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from volspike.datasets import Dataset
from volspike.errors import NotEnoughData, UsageError
from volspike.evaluation.metrics import known
from volspike.lifecycle.challenger import Champion, rows_after
from volspike.lifecycle.history import read_history
from volspike.market import format_time, parse_time
from volspike.models import DETECTORS
from volspike.monitoring.block_permutation import DriftSample
from volspike.monitoring.decision import Decision, Evidence, decide, drift_days
from volspike.monitoring.drift import Drift, Severity, look_for_drift
from volspike.monitoring.performance_drift import PerformanceDrift, recent_performance
from volspike.monitoring.results import RESULTS
from volspike.training.tracking import TrackingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRequest:
    """Where rows come from, and how they are learned from.

    ``features`` is a labelled feature file; without it the newest ``days`` of the recordings in ``tape`` are replayed.
    ``if_needed`` asks the decision matrix first. A challenger that won waits for ``shadow_hours`` of recorded market;
    0 puts it into service at once, and ``only_shadow`` looks at one that waits and does nothing else. ``outcomes`` is
    the file of live predictions. ``trigger`` says who asked.
    """

    features: Path | None = None
    tape: Path = Path("data/raw")
    artifacts: Path = Path("models/artifacts")
    outcomes: Path = Path("data/outcomes.sqlite")
    results: Path = RESULTS
    models: tuple[str, ...] = ("har", "logistic", "lightgbm")
    if_needed: bool = False
    only_shadow: bool = False
    trigger: str = "by hand"
    days: float = 14.0
    shadow_hours: float = 24.0
    folds: int = 5
    search: int = 0
    most_rows: int = 400_000
    seed: int = 0
    tracking: TrackingSettings = field(default_factory=TrackingSettings)

    def check(self) -> None:
        """Refuse what cannot be asked for, before anything is read.

        Raises:
            UsageError: a model that does not exist, or hours, days or rows that are none.
        """
        unknown = [name for name in self.models if name not in DETECTORS]
        if unknown or not self.models:
            raise UsageError(f"no model named {', '.join(unknown) or 'so'}; there are {', '.join(DETECTORS)}")
        if self.shadow_hours < 0 or self.days <= 0 or self.most_rows < 1000:
            raise UsageError("hours of shadow are 0 or more, days above 0, rows at least 1000")
        self.tracking.check()


OWN_MARKET_HOURS: Final = 6.0
"""Hours of its own market after which an installation has enough to learn its first own model from."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Whether to train, why, and what it was decided by; ``drift`` and ``performance`` are None where not known."""

    is_needed: bool
    reasons: tuple[str, ...]
    decision: Decision
    drift: Drift | None
    performance: PerformanceDrift | None
    new_hours: float

    def figures(self) -> dict[str, Any]:
        """What it was decided by, for the history."""
        told: dict[str, Any] = {"new_hours": round(self.new_hours, 2), "action": self.decision.action.value}
        if self.drift is not None:
            told |= {"drift_share": self.drift.share, "features_judged": self.drift.judged}
        if self.performance is not None:
            live = msgspec.structs.asdict(self.performance)
            told |= {f"live_{name}": known(value) for name, value in live.items()}
        return told

    @property
    def severity(self) -> str:
        """The drift in a word; empty where it is not known."""
        return "" if self.drift is None or self.drift.severity is None else self.drift.severity.value


def need_for(request: RetrainingRequest, dataset: Dataset, champion: Champion, now_ns: int) -> Need:
    """Looks at the rows since the champion's training, and at what became of its predictions.

    Raises:
        UnreadableFile: outcomes or history cannot be read.
    """
    metadata = champion.artifact.metadata
    end_ns = champion.seen_until
    names = tuple(name for name in champion.artifact.features if name in dataset.names)
    newer = DriftSample.of(dataset, rows_after(dataset, end_ns), names)
    older = DriftSample.of(dataset, np.flatnonzero(dataset.time <= end_ns), names)
    drift, told = _drift(older, newer, request.seed)
    performance = recent_performance(request.outcomes, metadata)
    is_known = performance is not None and performance.is_judgeable
    decision = decide(
        Evidence(
            severity=None if drift is None else drift.severity,
            pr_auc=performance.pr_auc if performance is not None and is_known else nan,
            has_fallen=performance is not None and performance.has_fallen,
            drift_days=drift_days(_checks(request.artifacts, metadata.created), now_ns),
        )
    )
    hours = newer.span_s / 3600.0
    own = _own_reasons(champion, hours)
    return Need(
        is_needed=decision.action.calls_for_training or bool(own),
        reasons=(*decision.reasons, *told, *own),
        decision=decision,
        drift=drift,
        performance=performance,
        new_hours=hours,
    )


def _drift(older: DriftSample, newer: DriftSample, seed: int) -> tuple[Drift | None, tuple[str, ...]]:
    if not len(older) or not len(newer):
        which = "newer" if len(older) else "older"
        return None, (f"no look for drift: no row is {which} than the training of the model that is served",)
    try:
        return look_for_drift(older, newer, seed=seed), ()
    except NotEnoughData as error:
        return None, (f"no look for drift: {error}",)


def _checks(artifacts: Path, since: str) -> list[tuple[int, Severity]]:
    """What the checks of the present champion found."""
    begun = parse_time(since)
    checks = [(parse_time(entry.time), entry.severity) for entry in read_history(artifacts) if entry.severity]
    return [(time_ns, Severity(severity)) for time_ns, severity in checks if time_ns >= begun]


def _own_reasons(champion: Champion, new_hours: float) -> tuple[str, ...]:
    """What there is to learn, besides what went wrong."""
    if not champion.is_own:
        if new_hours < OWN_MARKET_HOURS:
            return ()
        return (f"the model that ships is served, and {new_hours:.1f} hours of this market are there to learn from",)
    data = champion.artifact.metadata.data
    learned = (parse_time(data.end) - parse_time(data.start)) / 3.6e12
    if new_hours < max(learned, OWN_MARKET_HOURS):
        return ()
    return (f"{new_hours:.1f} new hours are as many as the model has learned from since {instant_of(data.start)}",)


def instant_of(text: str) -> str:
    """An instant to the second."""
    return format_time(parse_time(text) // 10**9 * 10**9)
