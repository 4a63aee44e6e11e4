"""What all models of a run share: the rows, the columns, and the folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from volspike.datasets import Dataset
from volspike.datasets.dataset import PERSISTENCE
from volspike.errors import SchemaMismatch
from volspike.labels import HORIZON_S
from volspike.training.folds import Fold, labelled_folds
from volspike.training.request import TrainingRequest


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """A request with what it stands for; ``warnings`` tell of folds that could not be used."""

    request: TrainingRequest
    dataset: Dataset
    columns: tuple[str, ...]
    folds: Sequence[Fold]
    warnings: tuple[str, ...]

    @property
    def newest(self) -> Fold:
        """The fold whose model is served."""
        return self.folds[-1]


def gathered(request: TrainingRequest, dataset: Dataset) -> Material:
    """The columns and folds of ``dataset`` that the request asks for.

    Raises:
        SchemaMismatch: a column is not there, or the one that persistence is judged by.
        NotEnoughData: too few rows, or rows of one class only.
    """
    columns = request.column_names(dataset.names)
    if PERSISTENCE not in dataset.names:
        raise SchemaMismatch(
            f"{request.features} has no last-minute volatility for models to be compared with",
            missing=[PERSISTENCE],
            remedy=f"featurize with {HORIZON_S} among the windows",
        )
    folds, warnings = labelled_folds(dataset, request)
    return Material(request, dataset, columns, folds, tuple(warnings))
