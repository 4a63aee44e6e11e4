"""What an audit is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from volspike.errors import UsageError
from volspike.training.request import TrainingRequest

PROTOCOLS: Final = ("stratified", "walk_forward")

DEFAULT_MODEL: Final = "random_forest"
DEFAULT_ROWS: Final = 40_000
LEAST_ROWS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """``rows`` bounds each data set: of more, those of every second, third … second are taken."""

    features: Path
    model: str = DEFAULT_MODEL
    columns: tuple[str, ...] | None = None
    folds: int = 5
    label_percentile: float = 90.0
    rows: int = DEFAULT_ROWS
    seed: int = 0

    def training(self, protocol: str) -> TrainingRequest:
        """What is trained under a protocol."""
        return TrainingRequest(
            features=self.features,
            models=(self.model,),
            columns=self.columns,
            split_method=protocol,
            folds=self.folds,
            label_percentile=self.label_percentile,
            seed=self.seed,
        )

    def check(self) -> None:
        """Refuse what cannot be asked for.

        Raises:
            UsageError: no such model, or fewer rows than tell anything.
        """
        request = self.training(PROTOCOLS[0])
        request.check()
        if len(request.model_names()) != 1:
            raise UsageError("an audit trains one model; name it")
        if self.rows < LEAST_ROWS:
            raise UsageError(f"an audit takes at least {LEAST_ROWS} rows, was {self.rows}")
