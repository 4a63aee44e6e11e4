"""What all models of a run share: the rows, the columns, and the folds."""

from __future__ import annotations

from dataclasses import dataclass

from volspike.datasets import Dataset
from volspike.datasets.dataset import PERSISTENCE
from volspike.datasets.splits import chosen_blocks, look_back_s
from volspike.errors import SchemaMismatch
from volspike.labels import HORIZON_S
from volspike.models import DETECTORS
from volspike.training.folds import Folds, labelled_folds
from volspike.training.request import TrainingRequest


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """A request with what it stands for: ``columns`` are those that it names, ``fold_by`` what a test block is."""

    request: TrainingRequest
    dataset: Dataset
    columns: tuple[str, ...]
    folds: Folds
    fold_by: str

    def offered(self, model: str) -> tuple[str, ...]:
        """The columns that a model may choose from: a rule that a trader has finds its own wherever they are."""
        return self.dataset.names if is_baseline(model) else self.columns


def is_baseline(model: str) -> bool:
    """Whether it is one of the rules that a model has to beat."""
    return DETECTORS[model].is_baseline


def baselines() -> tuple[str, ...]:
    """The rules that every model is judged beside."""
    return tuple(name for name in DETECTORS if is_baseline(name))


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
    folds = labelled_folds(dataset, request, _embargo_s(request, dataset, columns))
    fold_by = chosen_blocks(dataset, request.fold_by) if request.split_method == "walk_forward" else "rows"
    return Material(request, dataset, columns, folds, fold_by)


def _embargo_s(request: TrainingRequest, dataset: Dataset, columns: tuple[str, ...]) -> int:
    """How far back any column looks that a model or a baseline of this run takes; at least over the longest window."""
    taken = {name for model in request.model_names() for name in DETECTORS[model].columns(columns)}
    taken |= {name for model in baselines() for name in DETECTORS[model].columns(dataset.names)}
    return max(look_back_s(taken), dataset.facts.feature_set.longest_window)
