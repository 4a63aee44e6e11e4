"""What a model is judged beside: the best baseline of its training, or what every trader has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from volspike.datasets import Dataset
from volspike.evaluation.comparison import PERSISTENCE
from volspike.models import Artifact
from volspike.models.artifact import companion_of


@dataclass(frozen=True, slots=True, eq=False)
class Rival:
    """A baseline's score of the rows asked for, (n,), NaN where it has none; ``told`` says for what it stands in."""

    name: str
    score: NDArray[np.float64]
    threshold: float
    is_probability: bool
    told: str = ""


def rival_of(model: Artifact, dataset: Dataset, rows: NDArray[np.int64]) -> Rival:
    """The baseline that training found best, from the model's folder; where it is not there, the last minute's
    volatility in multiples of τ, called at 1, which orders rows as ``persistence`` does.

    Raises:
        ArtifactCorrupt: the baseline in the folder is not what was written.
    """
    name = model.metadata.baseline
    if model.name == name:
        score = model.probability(columns_of(dataset, rows, model.features))
        return Rival(name, score, model.threshold, is_probability=True)
    companion = companion_of(model.directory)
    if companion is not None:
        score = companion.probability(columns_of(dataset, rows, companion.facts.features))
        return Rival(companion.facts.model, score, companion.facts.threshold, is_probability=True)
    told = (
        f"its best baseline, {name}, is not in its folder, so that the last minute's volatility stands in, called at τ"
    )
    score = dataset.persistence[rows] / model.metadata.tau
    return Rival(PERSISTENCE, score, 1.0, is_probability=False, told=told)


def columns_of(dataset: Dataset, rows: NDArray[np.int64], names: Sequence[str]) -> NDArray[np.float64]:
    """(n, k) the named features of these rows alone."""
    places = np.array([dataset.names.index(name) for name in names], np.int64)
    return np.ascontiguousarray(dataset.x[np.ix_(rows, places)])
