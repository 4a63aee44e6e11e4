"""The options of a retraining run, and the checks that need no data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from volspike.errors import UsageError
from volspike.models import DETECTORS
from volspike.monitoring.results import RESULTS
from volspike.training.tracking import TrackingSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRequest:
    """Options of a retraining run.

    ``features`` is a labelled feature file; without it the newest ``days`` of the recordings in ``tape`` are replayed.
    ``if_needed`` trains only if drift, delayed labels or new data require it. A challenger that is no worse waits for
    ``shadow_hours`` of recorded market; with 0 it is promoted at once. ``only_shadow`` evaluates a waiting challenger
    and trains nothing. ``outcomes`` is the database of live predictions, ``trigger`` the caller's name in the history.
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
        """Reject invalid options before any file is read.

        Raises:
            UsageError: an unknown model, or hours, days or rows out of range.
        """
        unknown = [name for name in self.models if name not in DETECTORS]
        if unknown or not self.models:
            problem = f"no model named {', '.join(unknown)}" if unknown else "no model was named"
            raise UsageError(f"{problem}; choose from {', '.join(DETECTORS)}")
        if self.shadow_hours < 0 or self.days <= 0 or self.most_rows < 1000:
            raise UsageError("--shadow-hours must be 0 or more, --days above 0, and the rows at least 1000")
        self.tracking.check()
