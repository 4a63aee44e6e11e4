"""One fold's model, and what it loses on rows that it has not seen when features tell of another time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volspike.models import DETECTORS
from volspike.training.fitting import taken_columns
from volspike.training.folds import Fold
from volspike.training.material import Material
from volspike.training.permutation import Unseen, lost_pr_auc
from volspike.training.sampling import Learned, values

MOST_LEARNED: Final = 60_000
MOST_JUDGED: Final = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class FoldFinding:
    """What was found on one fold.

    ``lost`` is (moved, repeats) PR-AUC, ``own`` (f,) the shares that the model itself gives, ``is_taken`` (f,) whether
    it takes the column at all; ``y`` and ``score`` are the rows that were judged.
    """

    lost: NDArray[np.float64]
    own: NDArray[np.float64]
    is_taken: NDArray[np.bool_]
    y: NDArray[np.int8]
    score: NDArray[np.float64]

    @property
    def is_judgeable(self) -> bool:
        """Whether its rows are of both classes."""
        return 0 < int(self.y.sum()) < len(self.y)


def unseen_rows(material: Material) -> list[tuple[Fold, NDArray[np.int64]]]:
    """Each fold but the final one with its test rows; where that is alone, with its validation rows: the final block is
    never looked at.
    """
    folds = material.folds
    return [(fold, fold.test) for fold in folds.selection] or [(folds.final, folds.final.validation)]


def judge_fold(
    material: Material, fold: Fold, rows: NDArray[np.int64], moved: Sequence[NDArray[np.int64]], repeats: int
) -> FoldFinding:
    """The one model of the request fitted on ``fold``; ``moved`` are groups of places in ``material.columns``."""
    dataset, names, request = material.dataset, material.columns, material.request
    (model,) = request.model_names()
    taken, _ = taken_columns(model, material, fold)
    learned = Learned.of(dataset, fold.train, MOST_LEARNED)
    detector = DETECTORS[model](seed=request.seed).fit(learned.sample(dataset, taken, fold.y, fold.tau))
    rows = Learned.of(dataset, rows, MOST_JUDGED).rows
    unseen = Unseen(dataset.time[rows], dataset.product[rows], values(dataset, rows, taken), fold.y[rows])
    score = detector.probability(unseen.x)
    known = np.isfinite(score)
    shares = dict(zip(taken, detector.importance().tolist(), strict=True))
    finding = FoldFinding(
        lost=np.zeros((len(moved), repeats)),
        own=np.array([shares.get(name, 0.0) for name in names]),
        is_taken=np.array([name in shares for name in names]),
        y=unseen.y[known],
        score=score[known],
    )
    if finding.is_judgeable:
        places = [np.array([taken.index(names[column]) for column in columns if names[column] in shares], np.int64)
                  for columns in moved]  # fmt: skip
        used = [number for number, columns in enumerate(places) if len(columns)]
        seed = request.seed + fold.number
        finding.lost[used] = lost_pr_auc(detector.probability, unseen, [places[n] for n in used], repeats, seed)
    return finding
