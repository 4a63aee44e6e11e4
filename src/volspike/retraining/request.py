"""What a retraining run is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from volspike.errors import UsageError
from volspike.models import DETECTORS
from volspike.models.results import RESULTS
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
