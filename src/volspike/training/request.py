"""What a training run is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from volspike.datasets.splits import DEFAULT_FOLDS, DEFAULT_FRACTIONS
from volspike.errors import SchemaMismatch, UsageError
from volspike.evaluation.thresholds import BEST_F1, check_threshold
from volspike.models import DETECTORS
from volspike.models.calibration import CALIBRATIONS
from volspike.models.detector import default_columns

ALL: Final = "all"

DEFAULT_TRIALS: Final = 8
"""Settings tried of each model besides its defaults: a few minutes for 400 000 rows of 60 columns on two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What to learn from, which models, and where their artifacts go (``artifacts/<model>/``).

    ``models`` are names of ``DETECTORS`` or ``("all",)``; ``columns`` are feature names, ``("all",)`` for every
    feature of the file, or None for ``default_columns`` of it. ``fractions`` are the training, validation and test
    parts of the split methods that take one cut; ``folds``, ``fold_by``, ``training`` and ``training_span_h`` belong to
    ``walk_forward``. ``threshold`` names what is served (see ``training.thresholds``), ``search`` counts the settings
    that are tried of each model, and ``promote`` puts the chosen model into ``artifacts/production``.
    """

    features: Path
    models: tuple[str, ...]
    artifacts: Path = Path("models/artifacts")
    split_method: str = "walk_forward"
    folds: int = DEFAULT_FOLDS
    fold_by: str = "auto"
    training: str = "expanding"
    training_span_h: float | None = None
    fractions: tuple[float, float, float] = DEFAULT_FRACTIONS
    columns: tuple[str, ...] | None = None
    label_percentile: float = 90.0
    calibration: str = "platt"
    threshold: str = BEST_F1
    search: int = DEFAULT_TRIALS
    promote: bool = False
    seed: int = 0

    def check(self) -> None:
        """Refuse what cannot be asked for, before anything is read.

        Raises:
            UsageError: a model, calibration or threshold that does not exist, a number of trials below 0, or a
                promotion by a split that is no evidence.
        """
        self.model_names()
        check_threshold(self.threshold)
        if self.calibration not in CALIBRATIONS:
            raise UsageError(f"no calibration {self.calibration!r}; there are {', '.join(CALIBRATIONS)}")
        if self.search < 0:
            raise UsageError(f"the number of settings to try is 0 or more, was {self.search}")
        if self.promote and self.split_method == "stratified":
            raise UsageError("a stratified split is no evidence to promote a model by; judge by walk_forward")

    def model_names(self) -> tuple[str, ...]:
        """The models asked for, each once.

        Raises:
            UsageError: a name that is none of the detectors', or no name at all.
        """
        wanted = tuple(DETECTORS) if ALL in self.models else tuple(dict.fromkeys(self.models))
        unknown = [name for name in wanted if name not in DETECTORS]
        if unknown or not wanted:
            asked = f"no model named {', '.join(unknown)}" if unknown else "no model was named"
            raise UsageError(f"{asked}; there are {', '.join(DETECTORS)}, or all")
        return wanted

    def column_names(self, available: tuple[str, ...]) -> tuple[str, ...]:
        """The columns asked for, of those that the feature file has.

        Raises:
            SchemaMismatch: one of them is not in the file.
        """
        wanted = default_columns(available) if self.columns is None else self.columns
        if ALL in wanted:
            return available
        missing = [name for name in wanted if name not in available]
        if missing or not wanted:
            raise SchemaMismatch(
                f"{self.features} lacks columns to train on",
                missing=missing,
                remedy="featurize with windows that have them, or choose columns that are there (all: every one)",
            )
        return tuple(dict.fromkeys(wanted))
