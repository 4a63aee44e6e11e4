"""The options of a training run, and the checks that need no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from volspike.datasets.feature_file import FeatureFacts
from volspike.datasets.splits import DEFAULT_FOLDS, DEFAULT_FRACTIONS
from volspike.errors import SchemaMismatch, UsageError
from volspike.evaluation.thresholds import BEST_F1, check_threshold
from volspike.labels import LONGEST_HORIZON_S, MINUTE_S, SpikeDefinition
from volspike.models import DETECTORS
from volspike.models.detector import default_columns

ALL: Final = "all"

DEFAULT_TRIALS: Final = 8
"""Settings tried per model in addition to its defaults: a few minutes for 400 000 rows of 60 columns on two cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """Options of a training run, whose artifacts are written to ``artifacts/<model>/``.

    ``models`` are names in ``DETECTORS``; ``all`` are the built-in ones. ``columns`` are feature names, ``("all",)``
    for every feature of the file, or None for its ``default_columns``. ``fractions`` (training, validation, test) apply
    to ``time_based`` and ``stratified``; ``folds``, ``fold_by``, ``training`` and ``training_span_h`` to
    ``walk_forward``.
    ``spike`` is the text of a ``SpikeDefinition``; without it ``spike_definition`` chooses. ``threshold``
    names the served alert threshold (see ``evaluation.thresholds``). ``search`` is the number of settings tried per
    model. ``promote`` is read by ``lifecycle.promotion``, which promotes the chosen model after the run.
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
    spike: str | None = None
    calibration: str = "platt"
    threshold: str = BEST_F1
    search: int = DEFAULT_TRIALS
    promote: bool = False
    venue: str | None = None
    seed: int = 0

    def check(self) -> None:
        """Reject invalid options before any file is read.

        Raises:
            UsageError: an unknown model, calibration or threshold, a negative number of trials, or a promotion based
                on a stratified split.
        """
        self.model_names()
        if self.spike is not None:
            SpikeDefinition.parse(self.spike)
        check_threshold(self.threshold)
        # after the names of models, whose errors then need no scikit-learn
        from volspike.models.calibration import CALIBRATIONS  # noqa: PLC0415

        if self.calibration not in CALIBRATIONS:
            raise UsageError(f"no calibration {self.calibration!r}; choose one of {', '.join(CALIBRATIONS)}")
        if self.search < 0:
            raise UsageError(f"--search must be 0 or more, was {self.search}")
        if self.promote and self.split_method == "stratified":
            raise UsageError("a stratified split is no evidence to promote a model; use --split-method walk_forward")

    def model_names(self) -> tuple[str, ...]:
        """The requested models without duplicates; ``all`` are the built-in ones.

        Raises:
            UsageError: an unknown name, or no name.
        """
        available = tuple(DETECTORS)  # `in DETECTORS` would import the model's learning library
        names = tuple(dict.fromkeys(self.models))
        if ALL in names:
            names = tuple(dict.fromkeys((*DETECTORS.built_in, *(name for name in names if name != ALL))))
        unknown = [name for name in names if name not in available]
        if unknown or not names:
            problem = f"no model named {', '.join(unknown)}" if unknown else "no model was named"
            raise UsageError(f"{problem}; choose from {DETECTORS.describe()}, or all")
        return names

    def spike_definition(self, facts: FeatureFacts) -> SpikeDefinition:
        """The requested definition; by default that of the feature file unless it is a percentile, else
        ``label_percentile``.

        Raises:
            UsageError: no definition has that name.
        """
        if self.spike is None and facts.spike is not None and not facts.spike.startswith("percentile"):
            return SpikeDefinition.parse(facts.spike)
        return SpikeDefinition.parse(self.spike or f"percentile:{self.label_percentile!r}")

    def column_names(self, available: tuple[str, ...]) -> tuple[str, ...]:
        """The requested columns, given those of the feature file.

        Raises:
            SchemaMismatch: the file lacks one of them.
        """
        names = default_columns(available) if self.columns is None else self.columns
        if ALL in names:
            return available
        missing = [name for name in names if name not in available]
        if missing or not names:
            raise SchemaMismatch(
                f"{self.features} lacks columns to train on",
                missing=missing,
                remedy="featurize with windows that provide them, or choose existing --columns (all: every column)",
            )
        return tuple(dict.fromkeys(names))


def check_horizons(horizons: Sequence[int]) -> tuple[int, ...]:
    """The horizons in seconds without duplicates; the first is that of the artifact itself.

    Raises:
        UsageError: none, or one out of range.
    """
    wrong = [horizon for horizon in horizons if not MINUTE_S <= horizon <= LONGEST_HORIZON_S]
    if wrong or not horizons:
        raise UsageError(f"--horizons must be {MINUTE_S} to {LONGEST_HORIZON_S} s, got {list(horizons)}")
    return tuple(dict.fromkeys(horizons))
