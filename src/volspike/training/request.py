"""What a training run is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from volspike.errors import SchemaMismatch, UsageError
from volspike.models import DETECTORS, TEN_FEATURES

ALL: Final = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What to learn from, which models, and where their artifacts go (``artifacts/<model>/``).

    ``models`` are names of ``DETECTORS`` or ``("all",)``; ``columns`` are feature names or ``("all",)`` for
    every feature of the file. ``fractions`` are the training, validation and test parts of the split methods
    that take one cut; ``folds`` counts those of ``walk_forward``.
    """

    features: Path
    models: tuple[str, ...]
    artifacts: Path = Path("models/artifacts")
    split_method: str = "walk_forward"
    folds: int = 5
    fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)
    columns: tuple[str, ...] = TEN_FEATURES
    label_percentile: float = 90.0
    seed: int = 0

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
        if ALL in self.columns:
            return available
        missing = [name for name in self.columns if name not in available]
        if missing or not self.columns:
            raise SchemaMismatch(
                f"{self.features} lacks columns to train on",
                missing=missing,
                remedy="featurize with windows that have them, or choose columns that are there (all: every one)",
            )
        return tuple(dict.fromkeys(self.columns))
